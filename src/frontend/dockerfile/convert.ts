import { SlipwayError, type SourceRange, wrap } from "../../errors/errors.ts";
import { ownCapabilities } from "../../llb/capabilities.ts";
import { type Definition, deferredOutput, type LocatedFile, type Output } from "../../llb/llb.ts";
import type { ProxyEnv } from "../../llb/op.ts";
import { stateOf } from "../../llb/state.ts";
import { getEnv, splitEnv } from "../../oci/env.ts";
import type { Platform } from "../../oci/platform.ts";
import { createPatternMatcher } from "../../patterns/pattern-matcher.ts";
import type { PatternMatcher } from "../../patterns/patterns.ts";
import type { Conversion } from "./conversion.ts";
import { convertInstruction, setUser, setWorkdir } from "./convert-instruction.ts";
import { detectCheck } from "./directives.ts";
import { resolveEpoch } from "./epoch.ts";
import { evaluateGlobalArgs, lintDefaultArgs } from "./global-args.ts";
import { parseGoBool } from "./go-number.ts";
import { compareText, equalFold } from "./go-text.ts";
import { hostKeysOf } from "./host-keys.ts";
import { applyPlatform, defaultPathOf, type ImageDraft } from "./image-draft.ts";
import { lintStages } from "./lint-stages.ts";
import { Linter, type LintWarning, parseLintConfig } from "./linter.ts";
import type { ContextServices } from "./named-context.ts";
import { parseInstructions } from "./parse-instructions.ts";
import { parseDockerfile, withSource } from "./parser.ts";
import { choosePlatforms, platformArgs } from "./platform-args.ts";
import type { BuildSettings } from "./settings.ts";
import type { ShellLexer } from "./shell-words.ts";
import { inheritBase, resolveStages } from "./stage-bases.ts";
import { followedPaths, prepareStages, type StagePlan } from "./stage-graph.ts";
import { applyVariables, reachableFrom, type StageState, setVariable } from "./stage-state.ts";

/**
 * Pass three of the Dockerfile frontend: typed instructions to a build graph and an image config, for one platform.
 * Only stages that the target needs take part. Nothing is built here; base images are asked for their configs, and
 * SOURCE_DATE_EPOCH may need the metadata of a source.
 */
export interface ConvertOptions {
	readonly settings: BuildSettings;
	readonly services: ContextServices;
	readonly file: LocatedFile;
	/** Absent: the builder's own, which images may override. */
	readonly targetPlatform: Platform | undefined;
	readonly onWarning: (warning: LintWarning) => void;
	/** Also those that the target does not need: to look for mistakes in all. */
	readonly allStages?: boolean;
}

export interface ConvertedDockerfile {
	readonly target: StageState;
	readonly image: ImageDraft;
	/** SOURCE_DATE_EPOCH in seconds. */
	readonly epoch: number | undefined;
	readonly platforms: ReturnType<typeof choosePlatforms>;
	readonly buildContext: Output;
	/** The graph of the target; marshalled anew at each call. */
	readonly marshal: () => Definition;
}

/** Throws `invalid-argument` and the errors of the bridge, with the places in the Dockerfile as `source` details. */
export async function convertDockerfile(options: ConvertOptions): Promise<ConvertedDockerfile> {
	const { settings, file, services } = options;
	if (file.data.length === 0) {
		throw invalid("the Dockerfile cannot be empty");
	}
	const lint = createLinter(options);
	const parsed = parseDockerfile(file.data, { filename: file.filename });
	const { stages, metaArgs } = parseInstructions(parsed, lint);
	const lastStage = stages.at(-1);
	if (lastStage === undefined) {
		throw invalid("dockerfile contains no stages to build");
	}
	lintStages(stages, lint);

	const platforms = choosePlatforms(services.bridge.platforms.slice(0, 1), options.targetPlatform);
	const lexer: ShellLexer = { escapeToken: parsed.escapeToken };
	const predefined = platformArgs(platforms, settings.buildArgs, settings.target || lastStage.name);
	lintDefaultArgs(stages, metaArgs, { predefined, lexer, file, lint });
	const global = evaluateGlobalArgs(metaArgs, { predefined, buildArgs: settings.buildArgs, lexer, file });
	const epoch = await resolveEpoch({
		settings,
		services,
		stages,
		lexer,
		file,
		globalArgs: global.values,
	});

	const plan: StagePlan = {
		settings,
		services,
		file,
		lexer,
		lint,
		platforms,
		targetPlatform: options.targetPlatform,
		globalArgs: epoch.globalArgs,
		outlineArgs: global.outline,
		allStages: options.allStages ?? false,
	};
	const { table, target } = prepareStages(stages, plan);
	const reachable = await resolveStages(table, target, plan);

	let context: Output | undefined;
	const buildContext = deferredOutput(() => {
		if (context === undefined) {
			throw new SlipwayError("internal", "the build context is not known before all stages are converted");
		}
		return context;
	});
	const conversion: Conversion = {
		settings,
		buildArgs: epoch.buildArgs,
		platforms,
		globalArgs: epoch.globalArgs,
		epoch: epoch.seconds,
		lexer,
		lint,
		file,
		buildContext: stateOf(buildContext),
		proxyEnv: proxyOf(settings.buildArgs),
		hostKeys: hostKeysOf(services.bridge, services.request.signal),
		ignored: await ignoredPaths(services),
	};
	const contextPaths = new Set<string>();
	for (const stage of table.states) {
		if (options.allStages !== true && (stage.converted || !reachable.has(stage))) {
			continue;
		}
		convertStage(stage, conversion);
		for (const path of stage.contextPaths) {
			contextPaths.add(path);
		}
	}
	// Whatever takes the result takes all of it.
	target.usedPaths.add("/");

	for (const [key, value] of settings.labels) {
		target.image.labels.set(key, value);
	}
	const violation = lint.error();
	if (violation !== undefined) {
		throw violation;
	}
	await conversion.hostKeys.settled();
	context = (await services.context.mainContext(followedPaths(contextPaths))).output;
	applyPlatform(target.image, platforms.implicit ? undefined : platforms.target);
	const { image } = target;
	return {
		target,
		image,
		epoch: epoch.seconds,
		platforms,
		buildContext,
		marshal: () => {
			try {
				return target.state.marshal({
					constraints: { platform: platforms.target },
					caps: ownCapabilities,
				});
			} catch (error) {
				throw wrap(error, "failed to marshal LLB definition");
			}
		},
	};
}

function createLinter({ settings, file, onWarning }: ConvertOptions): Linter {
	if (settings.lint !== undefined) {
		return new Linter(settings.lint, onWarning);
	}
	try {
		return new Linter(parseLintConfig(detectCheck(file.data) ?? ""), onWarning);
	} catch (error) {
		throw wrap(error, "failed to parse check options");
	}
}

async function ignoredPaths({ context }: ContextServices): Promise<PatternMatcher | undefined> {
	const patterns = await context.ignorePatterns();
	return patterns.length === 0 ? undefined : createPatternMatcher(patterns);
}

function convertStage(stage: StageState, conversion: Conversion): void {
	const { settings, file } = conversion;
	inheritBase(stage);
	stage.converted = true;
	// Only a context of plain files has none, and only a look at all stages comes here with one.
	stage.platform ??= { architecture: "", os: "" };
	const { image, platform } = stage;
	if (getEnv(image.env, "PATH") === undefined && platform.os !== "windows") {
		image.env = [...image.env, `PATH=${defaultPathOf(platform.os)}`];
	}
	for (const entry of image.env) {
		const [key, value] = splitEnv(entry);
		setVariable(stage, key, value);
	}
	if (settings.hostname !== "") {
		stage.state = stage.state.withHostname(settings.hostname);
	}
	locate(stage.stage.ranges, file, () => {
		if (image.workingDir !== "") {
			setWorkdir(stage, image.workingDir);
		}
		if (image.user !== "") {
			setUser(stage, image.user);
		}
	});
	stage.state = stage.state.withNetwork(settings.network);
	for (const command of stage.commands) {
		locate(command.instruction.ranges, file, () => convertInstruction(stage, command, conversion));
	}
	applyVariables(stage);
	stage.scanContext = isScanned(stage, "BUILDKIT_SBOM_SCAN_CONTEXT", conversion);
	stage.scanStage = isScanned(stage, "BUILDKIT_SBOM_SCAN_STAGE", conversion);
}

function locate(ranges: readonly SourceRange[], file: LocatedFile, work: () => void): void {
	try {
		work();
	} catch (error) {
		throw withSource(error, file, ranges);
	}
}

/** A boolean, or a list of stage names; what the stage itself says comes after what is said for all. */
function isScanned({ args, displayName }: StageState, name: string, { globalArgs }: Conversion): boolean {
	const own = args.findLast((arg) => arg.key === name && arg.value !== undefined);
	const value = own?.value ?? globalArgs.get(name);
	return value !== undefined && (parseGoBool(value) ?? value.split(",").includes(displayName));
}

const proxyFields = {
	http_proxy: "httpProxy",
	https_proxy: "httpsProxy",
	ftp_proxy: "ftpProxy",
	no_proxy: "noProxy",
	all_proxy: "allProxy",
} as const;

/** Proxy settings among the build arguments, in any case; of several the last by name. Undefined for none. */
function proxyOf(buildArgs: ReadonlyMap<string, string>): ProxyEnv | undefined {
	const found: { -readonly [Key in keyof ProxyEnv]: ProxyEnv[Key] } = {
		httpProxy: "",
		httpsProxy: "",
		ftpProxy: "",
		noProxy: "",
		allProxy: "",
	};
	let some = false;
	for (const key of [...buildArgs.keys()].sort(compareText)) {
		for (const [name, field] of Object.entries(proxyFields)) {
			if (equalFold(key, name)) {
				found[field] = buildArgs.get(key) ?? "";
				some = true;
			}
		}
	}
	return some ? found : undefined;
}

/** Stages besides the target that a package scanner is to look at, by name. */
export function scannedStages({
	target,
	buildContext,
}: ConvertedDockerfile): ReadonlyMap<string, StageState | Output> {
	const extras = new Map<string, StageState | Output>();
	if (target.scanContext) {
		extras.set("context", buildContext);
	}
	for (const stage of reachableFrom(target)) {
		if (stage !== target && stage.scanStage) {
			extras.set(stage.displayName, stage);
		}
	}
	return extras;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
