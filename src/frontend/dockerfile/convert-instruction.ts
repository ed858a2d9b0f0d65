import { SlipwayError, wrap } from "../../errors/errors.ts";
import { mkdir, parseOwner } from "../../llb/file-steps.ts";
import { joinPath } from "../../llb/go-path.ts";
import { formatGoDuration } from "../../oci/go-duration.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { isHttpUrl } from "./build-context.ts";
import {
	type Conversion,
	displayCommand,
	environmentOf,
	hiddenArgs,
	type InstructionContext,
	locationOf,
	nextStepName,
	reportUndefined,
} from "./conversion.ts";
import { convertTransfer } from "./convert-copy.ts";
import { convertRun, withShell } from "./convert-run.ts";
import { expandInstruction, type WordExpander } from "./expand-instruction.ts";
import { parseExposedPort } from "./exposed-ports.ts";
import { addHistory } from "./image-draft.ts";
import type {
	AddInstruction,
	ArgInstruction,
	CmdInstruction,
	CopyInstruction,
	EntrypointInstruction,
	EnvInstruction,
	ExposeInstruction,
	HealthcheckInstruction,
	Instruction,
	LabelInstruction,
	WorkdirInstruction,
} from "./instructions.ts";
import {
	isSecretName,
	jsonArgsRecommended,
	legacyKeyValueFormat,
	multipleInstructionsDisallowed,
	secretsUsedInArgOrEnv,
	workdirRelativePath,
} from "./lint-rules.ts";
import { processWord, splitWords } from "./shell-words.ts";
import { type StageCommand, type StageState, setVariable } from "./stage-state.ts";
import { checkSignal } from "./stop-signal.ts";
import { isAbsolutePath, normalizeWorkdir, toSlash } from "./target-path.ts";

/** What one instruction does to its stage. Throws `invalid-argument` with BuildKit's message, unlocated. */
export function convertInstruction(stage: StageState, command: StageCommand, conversion: Conversion): void {
	const context: InstructionContext = {
		...conversion,
		lint: conversion.lint.forComments(command.instruction.comments),
		trigger: command.trigger,
	};
	const instruction = expandInstruction(
		command.instruction,
		createExpander(stage, command.instruction, context),
	);
	const history = (text: string): void =>
		addHistory(stage.image, { text, layer: false, epoch: context.epoch });
	switch (instruction.kind) {
		case "add":
			convertTransfer(stage, instruction, { from: context.buildContext, isBuildContext: true, context });
			markContextPaths(stage, instruction);
			return;
		case "arg":
			history(convertArg(stage, instruction, context));
			return;
		case "cmd":
			history(convertCmd(stage, instruction, context));
			return;
		case "copy":
			convertCopy(stage, instruction, command, context);
			return;
		case "entrypoint":
			history(convertEntrypoint(stage, instruction, context));
			return;
		case "env":
			history(convertEnv(stage, instruction, context));
			return;
		case "expose":
			history(convertExpose(stage, instruction, context));
			return;
		case "healthcheck":
			history(convertHealthcheck(stage, instruction, context));
			return;
		case "label":
			history(convertLabel(stage, instruction, context));
			return;
		case "maintainer":
			stage.image.author = instruction.maintainer;
			history(`MAINTAINER ${instruction.maintainer}`);
			return;
		case "onbuild":
			stage.image.onbuild = [...stage.image.onbuild, instruction.expression];
			return;
		case "run":
			convertRun(stage, instruction, { sources: command.sources, context });
			return;
		case "shell":
			stage.image.shell = instruction.shell;
			history(`SHELL [${instruction.shell.join(" ")}]`);
			return;
		case "stopsignal":
			checkSignal(instruction.signal);
			stage.image.stopSignal = instruction.signal;
			history(`STOPSIGNAL ${instruction.signal}`);
			return;
		case "user":
			setUser(stage, instruction.user);
			history(`USER ${instruction.user}`);
			return;
		case "volume":
			for (const volume of instruction.volumes) {
				if (volume === "") {
					throw new SlipwayError("invalid-argument", "VOLUME specified can not be an empty string");
				}
				stage.image.volumes.add(volume);
			}
			history(`VOLUME [${instruction.volumes.join(" ")}]`);
			return;
		case "workdir":
			convertWorkdir(stage, instruction, context);
			return;
	}
}

/** All words of an instruction see the environment of its start. */
function createExpander(
	stage: StageState,
	{ ranges }: Instruction,
	context: InstructionContext,
): WordExpander {
	const env = environmentOf(stage);
	const expand = (text: string, lexer: Conversion["lexer"]): string => {
		const expanded = processWord(lexer, text, env);
		if (expanded.unmatched.size > 0) {
			reportUndefined(expanded.unmatched, { args: stage.args, env, lint: context.lint, ranges });
		}
		if (expanded.error !== undefined) {
			throw expanded.error;
		}
		return expanded.text;
	};
	return {
		word: (text) => expand(text, context.lexer),
		words: (text) => splitWords(context.lexer, text, env),
		document: (text) => expand(text, { escapeToken: "\\", skipProcessQuotes: true }),
	};
}

function convertCopy(
	stage: StageState,
	instruction: CopyInstruction,
	{ sources: [source] }: StageCommand,
	context: InstructionContext,
): void {
	if (source === undefined) {
		convertTransfer(stage, instruction, { from: context.buildContext, isBuildContext: true, context });
		markContextPaths(stage, instruction);
		return;
	}
	if (!source.converted) {
		throw new SlipwayError(
			"invalid-argument",
			`cannot copy from stage ${quoteGo(instruction.from)}, it needs to be defined before current stage ${quoteGo(stage.displayName)}`,
		);
	}
	convertTransfer(stage, instruction, { from: source.state, isBuildContext: false, context });
	for (const path of instruction.sources) {
		source.usedPaths.add(joinPath("/", path));
	}
}

function markContextPaths(stage: StageState, instruction: AddInstruction | CopyInstruction): void {
	for (const path of instruction.sources) {
		if (instruction.kind === "copy" || !isHttpUrl(path)) {
			stage.contextPaths.add(joinPath("/", path));
		}
	}
}

function convertArg(stage: StageState, instruction: ArgInstruction, context: InstructionContext): string {
	const { buildArgs, globalArgs, lexer, lint } = context;
	const { ranges } = instruction;
	const written: string[] = [];
	for (const declaration of instruction.args) {
		const { key } = declaration;
		if (isSecretName(key)) {
			lint.report(secretsUsedInArgOrEnv, ranges, "ARG", key);
		}
		const given = buildArgs.get(key);
		let value = given ?? declaration.value;
		let inherited = false;
		if (given === undefined && declaration.value !== undefined) {
			const env = environmentOf(stage);
			const expanded = processWord(lexer, declaration.value, env);
			reportUndefined(expanded.unmatched, { args: stage.args, env, lint, ranges });
			if (expanded.error !== undefined) {
				throw expanded.error;
			}
			value = expanded.text;
		} else if (value === undefined) {
			value = globalArgs.get(key);
			inherited = value !== undefined;
		}
		if (value !== undefined && !hiddenArgs.has(key)) {
			setVariable(stage, key, value);
		}
		const known = { ...declaration, ...(value === undefined ? {} : { value }) };
		if (!inherited) {
			stage.outline.args.set(key, { declaration: known, value: value ?? "", uses: new Set(), ranges });
		}
		stage.outline.usedArgs.add(key);
		stage.args.push(known);
		written.push(value === undefined ? key : `${key}=${value}`);
	}
	return `ARG ${written.join(" ")}`;
}

function convertEnv(stage: StageState, instruction: EnvInstruction, { lint }: InstructionContext): string {
	let text = "ENV";
	for (const { key, value, legacy } of instruction.pairs) {
		if (legacy) {
			lint.report(legacyKeyValueFormat, instruction.ranges, instruction.keyword);
		}
		if (isSecretName(key)) {
			lint.report(secretsUsedInArgOrEnv, instruction.ranges, "ENV", key);
		}
		text += ` ${key}=${value}`;
		setVariable(stage, key, value);
		setImageVariable(stage.image.env, key, value);
	}
	return text;
}

/** In place, because a stage may set thousands. */
function setImageVariable(env: string[], key: string, value: string): void {
	const prefix = `${key}=`;
	const at = env.findIndex((entry) => entry.startsWith(prefix) || entry === key);
	env[at === -1 ? env.length : at] = prefix + value;
}

function convertLabel(
	stage: StageState,
	instruction: LabelInstruction,
	{ lint }: InstructionContext,
): string {
	let text = "LABEL";
	for (const { key, value, legacy } of instruction.pairs) {
		if (legacy) {
			lint.report(legacyKeyValueFormat, instruction.ranges, instruction.keyword);
		}
		stage.image.labels.set(key, value);
		text += ` ${key}=${value}`;
	}
	return text;
}

function convertExpose(
	stage: StageState,
	{ ports, ranges }: ExposeInstruction,
	{ lint }: InstructionContext,
): string {
	const exposed = ports.flatMap((port) => parseExposedPort(port, lint, ranges));
	for (const port of exposed) {
		stage.image.exposedPorts.add(port);
	}
	return `EXPOSE [${exposed.join(" ")}]`;
}

function convertCmd(stage: StageState, instruction: CmdInstruction, context: InstructionContext): string {
	markOnce(stage, instruction, context);
	const words = commandWords(stage, instruction, context);
	stage.image.cmd = words;
	stage.image.argsEscaped = true;
	return `CMD [${words.map(quoteGo).join(" ")}]`;
}

function convertEntrypoint(
	stage: StageState,
	instruction: EntrypointInstruction,
	context: InstructionContext,
): string {
	markOnce(stage, instruction, context);
	const words = commandWords(stage, instruction, context);
	stage.image.entrypoint = words;
	// A command of the base was meant for the base's entrypoint.
	if (!stage.seen.has("cmd")) {
		stage.image.cmd = [];
	}
	return `ENTRYPOINT [${words.map(quoteGo).join(" ")}]`;
}

function commandWords(
	{ image }: StageState,
	{ command, keyword, ranges }: CmdInstruction | EntrypointInstruction,
	{ lint }: InstructionContext,
): readonly string[] {
	if (!command.shell) {
		return command.words;
	}
	if (image.shell.length === 0) {
		lint.report(jsonArgsRecommended, ranges, keyword);
	}
	return withShell(image, command.words);
}

function convertHealthcheck(
	stage: StageState,
	instruction: HealthcheckInstruction,
	context: InstructionContext,
): string {
	markOnce(stage, instruction, context);
	const { test, interval, timeout, startPeriod, startInterval, retries } = instruction;
	stage.image.healthcheck = {
		Test: test,
		Interval: interval,
		Timeout: timeout,
		StartPeriod: startPeriod,
		StartInterval: startInterval,
		Retries: retries,
	};
	const fields = [
		`Test:[${test.join(" ")}]`,
		`Interval:${formatGoDuration(interval)}`,
		`Timeout:${formatGoDuration(timeout)}`,
		`StartPeriod:${formatGoDuration(startPeriod)}`,
		`StartInterval:${formatGoDuration(startInterval)}`,
		`Retries:${retries}`,
	];
	return `HEALTHCHECK {${fields.join(" ")}}`;
}

/** The earlier of two has no effect, so that is the one to report. */
function markOnce(
	{ seen }: StageState,
	{ kind, keyword, ranges }: CmdInstruction | EntrypointInstruction | HealthcheckInstruction,
	{ lint }: InstructionContext,
): void {
	const earlier = seen.get(kind);
	if (earlier !== undefined) {
		lint.report(multipleInstructionsDisallowed, earlier, keyword);
	}
	seen.set(kind, ranges);
}

export function setUser(stage: StageState, user: string): void {
	stage.state = stage.state.withUser(user);
	stage.image.user = user;
}

/** Gives the directory with slashes, as it is inside the build. */
export function setWorkdir(stage: StageState, path: string): string {
	const os = stage.platform?.os ?? "";
	let dir: string;
	try {
		dir = normalizeWorkdir(stage.image.workingDir, path, os);
	} catch (error) {
		throw wrap(error, "normalizing workdir");
	}
	stage.image.workingDir = dir;
	const inside = toSlash(dir, os);
	stage.state = stage.state.withDir(inside);
	return inside;
}

function convertWorkdir(
	stage: StageState,
	instruction: WorkdirInstruction,
	context: InstructionContext,
): void {
	const { epoch, settings, lexer } = context;
	const { path, ranges, source } = instruction;
	// Only the first one counts: it makes all later ones absolute.
	if (!stage.workdirSet && !isAbsolutePath(path, stage.platform?.os ?? "")) {
		context.lint.report(workdirRelativePath, ranges, path);
	}
	stage.workdirSet = true;
	const dir = setWorkdir(stage, path);
	if (dir !== "/") {
		const { user } = stage.image;
		const env = environmentOf(stage);
		const platform = stage.platform ?? context.platforms.target;
		const options = {
			makeParents: true,
			...(user === "" ? {} : { owner: parseOwner(user) }),
			...(epoch === undefined ? {} : { createdNs: BigInt(epoch) * 1_000_000_000n }),
		};
		stage.state = stage.state.file(mkdir(dir, 0o755, options), {
			name: nextStepName(stage, {
				text: displayCommand(source, lexer, env),
				withPlatform: settings.multiPlatform,
				platform,
				env,
				trigger: context.trigger,
			}),
			locations: locationOf(context.file, ranges),
		});
	}
	addHistory(stage.image, { text: `WORKDIR ${dir}`, layer: dir !== "/", epoch });
}
