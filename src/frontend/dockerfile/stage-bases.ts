import { SlipwayError, wrap } from "../../errors/errors.ts";
import { image as imageState } from "../../llb/sources.ts";
import { scratch } from "../../llb/state.ts";
import { encodeText } from "../../oci/byte-text.ts";
import { formatPlatformAll, normalizePlatform, type Platform } from "../../oci/platform.ts";
import {
	formatReference,
	parseReference,
	type Reference,
	withDefaultTag,
	withDigest,
} from "../../oci/reference.ts";
import { commandDescription, locationOf, nextStepName } from "./conversion.ts";
import { cloneImage, emptyImage, type ImageDraft, readImage } from "./image-draft.ts";
import type { Instruction, OnbuildInstruction } from "./instructions.ts";
import { invalidBaseImagePlatform } from "./lint-rules.ts";
import { Linter } from "./linter.ts";
import { parseInstruction } from "./parse-instructions.ts";
import { lineRanges, parseDockerfile, withSource } from "./parser.ts";
import { detectPlatform } from "./platform-args.ts";
import { settleAll } from "./settle-all.ts";
import { emptyEnvironment } from "./shell-words.ts";
import { emptyImageName, findStageContext, linkCommand, type StagePlan } from "./stage-graph.ts";
import { reachableFrom, type StageState, type StageTable } from "./stage-state.ts";
import { withSuggestion } from "./suggest.ts";

/**
 * Finds the bases of all stages that the target needs, side by side, and puts the triggers of bases in front of the
 * stages' own instructions. Triggers may need further stages, so this goes on until nothing is new.
 */
export async function resolveStages(
	table: StageTable,
	target: StageState,
	plan: StagePlan,
): Promise<ReadonlySet<StageState>> {
	for (;;) {
		const reachable = reachableFrom(target);
		await resolveBases(table, reachable, plan);
		let more = false;
		for (const stage of reachable) {
			inheritBase(stage);
			const triggers = takeTriggers(stage);
			if (triggers.length > 0 && addTriggers(stage, triggers, { table, plan })) {
				more = true;
			}
		}
		if (!more) {
			return reachable;
		}
	}
}

/** Takes over from another stage; to be called when that one is final, and harmless before. */
export function inheritBase(stage: StageState): void {
	const { base } = stage;
	if (base === undefined) {
		return;
	}
	stage.state = base.state;
	stage.platform = base.platform;
	stage.image = { ...cloneImage(base.image), onbuild: [] };
	stage.baseImage = base.baseImage;
	stage.usedPaths = base.usedPaths;
	stage.workdirSet = base.workdirSet;
	stage.args.push(...base.args);
}

async function resolveBases(
	table: StageTable,
	reachable: ReadonlySet<StageState>,
	plan: StagePlan,
): Promise<void> {
	const work = table.states.map(async (stage) => {
		if (stage.base !== undefined || stage.converted || stage.resolved) {
			return;
		}
		const needed = plan.allStages || reachable.has(stage);
		stage.resolved = needed;
		if (stage.baseName === emptyImageName && stage.namedContext === undefined) {
			stage.state = scratch();
			stage.image = emptyImage(plan.platforms.target);
			stage.platform = plan.platforms.target;
			stage.converted = !stage.registered;
			return;
		}
		try {
			await resolveBase(stage, needed, { table, plan });
		} catch (error) {
			throw withSource(error, plan.file, stage.stage.ranges);
		} finally {
			stage.converted ||= !stage.registered;
		}
	});
	await settleAll(work, plan.services.abort);
}

interface Surroundings {
	readonly table: StageTable;
	readonly plan: StagePlan;
}

async function resolveBase(stage: StageState, needed: boolean, around: Surroundings): Promise<void> {
	const { plan } = around;
	const written = stage.baseName;
	let reference: Reference;
	try {
		reference = parseReference(written);
	} catch (error) {
		throw wrap(error, `failed to parse stage name ${JSON.stringify(written)}`);
	}
	let platform = stage.platform ?? plan.platforms.target;
	stage.baseName = formatReference(withDefaultTag(reference));
	let isScratch = false;
	if (needed) {
		if (await resolveContext(stage)) {
			return;
		}
		const context = findStageContext(stage.baseName, platform, { plan, state: stage });
		if (context !== undefined) {
			const loaded = await context.load();
			const image = loaded.image ?? emptyImage(platform);
			stage.baseImage = cloneImage(image);
			stage.image = { ...image, created: undefined };
			stage.state = loaded.state.withPlatform(platform);
			stage.platform = platform;
			return;
		}
		const found = await resolveImage(stage, reference, { written, platform, ...around });
		if (stage.platform === undefined && plan.platforms.implicit) {
			platform = detectPlatform(found.platform, platform, plan.platforms.build);
		}
		isScratch = hasNoLayers(found);
		stage.image = found;
	}
	stage.platform = platform;
	if (isScratch) {
		stage.state = scratch();
		return;
	}
	stage.state = imageState(stage.baseName, {
		description: commandDescription(stage.stage.source),
		platform,
		resolveMode: plan.settings.resolveMode,
		name: nextStepName(stage, {
			text: `FROM ${stage.baseName}`,
			withPlatform: plan.settings.multiPlatform,
			platform,
			env: emptyEnvironment,
			trigger: false,
		}),
		locations: locationOf(plan.file, stage.stage.ranges),
	});
	if (needed) {
		lintPlatform(stage, written, platform, plan);
	}
}

/** True if the client has put a context in the stage's place. */
async function resolveContext(stage: StageState): Promise<boolean> {
	if (stage.namedContext === undefined) {
		return false;
	}
	const { state, image } = await stage.namedContext.load();
	stage.converted = true;
	stage.state = state;
	if (image !== undefined) {
		stage.image = { ...image, created: undefined };
		if (image.platform.architecture !== "" && image.platform.os !== "") {
			stage.platform = image.platform;
		}
	}
	return true;
}

async function resolveImage(
	stage: StageState,
	reference: Reference,
	{
		written,
		platform,
		table,
		plan,
	}: Surroundings & { readonly written: string; readonly platform: Platform },
): Promise<ImageDraft> {
	const { bridge, request } = plan.services;
	const prefix = plan.settings.multiPlatform ? `[${formatPlatformAll(platform)} internal]` : "[internal]";
	let resolved: Awaited<ReturnType<typeof bridge.resolveImage>>;
	try {
		resolved = await bridge.resolveImage(
			{
				ref: stage.baseName,
				platform,
				mode: plan.settings.resolveMode,
				logName: `${prefix} load metadata for ${stage.baseName}`,
			},
			{ signal: request.signal },
		);
	} catch (error) {
		const wrapped = wrap(error, written);
		const message = withSuggestion(wrapped.message, written, [...table.names(), ...commonImages()]);
		throw new SlipwayError(wrapped.code, message, { cause: error, details: wrapped.details });
	}
	let pinned = reference;
	if (formatReference(reference) !== resolved.ref) {
		try {
			pinned = parseReference(resolved.ref);
		} catch (error) {
			throw wrap(error, `failed to parse ref ${JSON.stringify(resolved.ref)}`);
		}
	}
	let image: ImageDraft;
	try {
		image = readImage(resolved.config);
	} catch (error) {
		throw wrap(error, "failed to parse image config");
	}
	stage.baseName = formatReference(withDigest(pinned, resolved.digest));
	stage.baseImage = cloneImage(image);
	return { ...image, created: undefined };
}

/** Old manifests do not list layers, so the history has to agree. */
function hasNoLayers({ diffIds = [], history }: ImageDraft): boolean {
	return diffIds.length === 0 && history.every((entry) => entry.empty_layer === true);
}

function lintPlatform(stage: StageState, written: string, expected: Platform, { lint }: StagePlan): void {
	const actual = stage.image.platform;
	if (expected.os !== actual.os || expected.architecture !== actual.architecture) {
		lint.report(
			invalidBaseImagePlatform,
			stage.stage.ranges,
			written,
			formatPlatformAll(normalizePlatform(expected)),
			formatPlatformAll(normalizePlatform(actual)),
		);
	}
}

/** For suggestions, with BuildKit's spelling of the long names. */
function commonImages(): readonly string[] {
	const names = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
	return names.flatMap((name) => [
		name,
		`docker.io/library${name}`,
		`${name}:latest`,
		`docker.io/library${name}:latest`,
	]);
}

function takeTriggers(stage: StageState): readonly string[] {
	const triggers = [...stage.image.onbuild];
	if (stage.base !== undefined && !stage.triggersRead) {
		const isTrigger = (instruction: Instruction): instruction is OnbuildInstruction =>
			instruction.kind === "onbuild";
		const own = stage.base.commands.map((command) => command.instruction).filter(isTrigger);
		triggers.push(...own.map((instruction) => instruction.expression));
		stage.triggersRead = true;
	}
	stage.image.onbuild = [];
	return triggers;
}

/** True if a trigger takes files from elsewhere. Errors show the FROM that brought the trigger. */
function addTriggers(stage: StageState, triggers: readonly string[], { table, plan }: Surroundings): boolean {
	const { ranges } = stage.stage;
	const lines = ranges.flatMap(({ start, end }) => [start.line, end.line]);
	const place = lines.length === 0 ? ranges : lineRanges(Math.min(...lines), Math.max(...lines));
	try {
		const commands = triggers.map((trigger) => {
			const [node, ...more] = parseDockerfile(encodeText(trigger)).instructions;
			if (node === undefined || more.length > 0) {
				throw new SlipwayError("invalid-argument", "onbuild trigger should be a single expression");
			}
			const instruction = parseInstruction({ ...node, ranges: place }, new Linter(undefined));
			if (instruction.kind === "from") {
				throw new SlipwayError("invalid-argument", "*instructions.Stage is not a command type");
			}
			return linkCommand(stage, instruction, { table, trigger: true, lexer: plan.lexer });
		});
		stage.commands = [...commands, ...stage.commands];
		stage.stepTotal += commands.length;
		return commands.some(({ sources }) => sources.length > 0);
	} catch (error) {
		const { code, message, cause } = wrap(error, "");
		throw withSource(new SlipwayError(code, message, { cause: cause ?? error }), plan.file, ranges);
	}
}
