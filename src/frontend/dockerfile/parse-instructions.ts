import { wrap } from "../../errors/errors.ts";
import { parseGoDuration } from "../../oci/go-duration.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { parseFlags } from "./builder-flags.ts";
import { parseGoInt32 } from "./go-number.ts";
import { compareText, equalFold, toLower, toUpper, trimSpace } from "./go-text.ts";
import { atLeastOne, commandLine, common, invalid, isJson, wordsOf } from "./instruction-node.ts";
import type {
	ArgInstruction,
	EnvInstruction,
	HealthcheckInstruction,
	Instruction,
	LabelInstruction,
	ParsedStages,
	RunInstruction,
	Stage,
} from "./instructions.ts";
import {
	fromAsCasing,
	invalidDefinitionDescription,
	maintainerDeprecated,
	noEmptyContinuation,
	stageNameCasing,
} from "./lint-rules.ts";
import type { Linter } from "./linter.ts";
import { parseAdd, parseCopy } from "./parse-transfer.ts";
import { type InstructionNode, type ParsedDockerfile, withSource } from "./parser.ts";
import { parseDevice, parseMountSource } from "./run-flags.ts";
import { withSuggestion } from "./suggest.ts";

/**
 * The stages of a parsed Dockerfile, and the rules that single instructions can break reported to the linter. Throws
 * `invalid-argument`: `dockerfile parse error on line N: ...`, with the instruction's lines as source.
 */
export function parseInstructions(parsed: ParsedDockerfile, lint: Linter): ParsedStages {
	for (const warning of parsed.warnings) {
		lint.report(noEmptyContinuation, warning.ranges);
	}
	const stages: { stage: Stage; instructions: Instruction[] }[] = [];
	const metaArgs: ArgInstruction[] = [];
	for (const node of parsed.instructions) {
		const instruction = parseNode(parsed, node, lint);
		const current = stages.at(-1);
		if (instruction.kind === "from") {
			const instructions: Instruction[] = [];
			stages.push({ stage: { ...instruction, instructions }, instructions });
		} else if (current !== undefined) {
			current.instructions.push(instruction);
		} else if (instruction.kind === "arg") {
			metaArgs.push(instruction);
		} else {
			throw withSource(invalid("no build stage in current context"), parsed.file, node.ranges);
		}
	}
	return { file: parsed.file, stages: stages.map(({ stage }) => stage), metaArgs };
}

function parseNode(parsed: ParsedDockerfile, node: InstructionNode, lint: Linter): Instruction | Stage {
	try {
		return parseInstruction(node, lint);
	} catch (error) {
		const line = node.ranges[0]?.start.line ?? 0;
		const located = wrap(error, `dockerfile parse error on line ${line}`);
		throw withSource(located, parsed.file, node.ranges);
	}
}

/** One instruction, FROM as a stage without instructions. Throws `invalid-argument` with BuildKit's text, unlocated. */
export function parseInstruction(node: InstructionNode, lint: Linter): Instruction | Stage {
	const linter = lint.forComments(node.comments);
	switch (toLower(node.keyword)) {
		case "add":
			return parseAdd(node);
		case "arg":
			return parseArg(node, linter);
		case "cmd":
			parseFlags(node.flags, {});
			return { kind: "cmd", ...common(node), command: commandLine(node) };
		case "copy":
			return parseCopy(node);
		case "entrypoint":
			parseFlags(node.flags, {});
			return { kind: "entrypoint", ...common(node), command: commandLine(node) };
		case "env":
			return parsePairs(node, "env");
		case "expose": {
			const ports = atLeastOne(wordsOf(node), "EXPOSE");
			parseFlags(node.flags, {});
			return { kind: "expose", ...common(node), ports: ports.toSorted(compareText) };
		}
		case "from":
			return parseFrom(node, linter);
		case "healthcheck":
			return parseHealthcheck(node);
		case "label":
			return parsePairs(node, "label");
		case "maintainer": {
			linter.report(maintainerDeprecated, node.ranges);
			const maintainer = exactlyOne(node, "MAINTAINER");
			return { kind: "maintainer", ...common(node), maintainer };
		}
		case "onbuild":
			return parseOnbuild(node);
		case "run":
			return parseRun(node);
		case "shell":
			return parseShell(node);
		case "stopsignal": {
			const words = wordsOf(node);
			if (words.length !== 1) {
				throw invalid("STOPSIGNAL requires exactly one argument");
			}
			return { kind: "stopsignal", ...common(node), signal: words[0] ?? "" };
		}
		case "user":
			return { kind: "user", ...common(node), user: exactlyOne(node, "USER") };
		case "volume":
			return parseVolume(node);
		case "workdir":
			return { kind: "workdir", ...common(node), path: exactlyOne(node, "WORKDIR") };
		default:
			throw invalid(
				withSuggestion(`unknown instruction: ${node.keyword}`, node.keyword, instructionNames, {
					caseSensitive: false,
				}),
			);
	}
}

const instructionNames: readonly string[] = [
	"ADD",
	"ARG",
	"CMD",
	"COPY",
	"ENTRYPOINT",
	"ENV",
	"EXPOSE",
	"FROM",
	"HEALTHCHECK",
	"LABEL",
	"MAINTAINER",
	"ONBUILD",
	"RUN",
	"SHELL",
	"STOPSIGNAL",
	"USER",
	"VOLUME",
	"WORKDIR",
];

function parsePairs(node: InstructionNode, kind: "env" | "label"): EnvInstruction | LabelInstruction {
	parseFlags(node.flags, {});
	const name = kind === "env" ? "ENV" : "LABEL";
	const pairs = atLeastOne(node.arguments.kind === "pairs" ? node.arguments.pairs : [], name);
	if (pairs.some((pair) => pair.key === "")) {
		throw invalid(`${name} names can not be blank`);
	}
	return { kind, ...common(node), pairs };
}

function parseArg(node: InstructionNode, linter: Linter): ArgInstruction {
	const args = atLeastOne(wordsOf(node), "ARG").map((word) => {
		const equals = word.indexOf("=");
		if (equals === 0) {
			throw invalid("ARG names can not be blank");
		}
		const key = equals < 0 ? word : word.slice(0, equals);
		const declared = { key, description: describe(node.comments, key) };
		return equals < 0 ? declared : { ...declared, value: word.slice(equals + 1) };
	});
	lintDescription(
		node,
		"ARG",
		args.map((arg) => arg.key),
		linter,
	);
	return { kind: "arg", ...common(node), args };
}

function parseFrom(node: InstructionNode, linter: Linter): Stage {
	const words = wordsOf(node);
	const [baseName = "", as = "", stageName = ""] = words;
	if (words.length === 3 && stageName !== toLower(stageName)) {
		linter.report(stageNameCasing, node.ranges, stageName);
	}
	if (words.length >= 3 && !matchesCase(node.keyword, as)) {
		linter.report(fromAsCasing, node.ranges, node.keyword, as);
	}
	let name = "";
	if (words.length === 3 && equalFold(as, "as")) {
		name = toLower(stageName);
		if (!/^[a-z][a-z0-9-_.]*$/.test(name)) {
			throw invalid(
				`invalid name for build stage: ${quoteGo(stageName)}, name can't start with a number or contain symbols`,
			);
		}
	} else if (words.length !== 1) {
		throw invalid("FROM requires either one or three arguments");
	}
	const { platform = "" } = parseFlags(node.flags, { platform: "text" });
	if (name !== "") {
		lintDescription(node, "FROM", [name], linter);
	}
	const description = describe(node.comments, name);
	return { kind: "from", ...common(node), name, baseName, platform, description, instructions: [] };
}

/** A FROM in mixed case is reported by another rule. */
function matchesCase(from: string, as: string): boolean {
	if (from === toLower(from)) {
		return as === toLower(as);
	}
	return from !== toUpper(from) || as === toUpper(as);
}

function parseRun(node: InstructionNode): RunInstruction {
	const flags = parseFlags(node.flags, { mount: "list", network: "text", security: "text", device: "list" });
	const { mount: mountFlags = [], network = "default", security = "sandbox", device = [] } = flags;
	const devices = device.map(parseDevice);
	const mounts = mountFlags.map(parseMountSource);
	if (network !== "default" && network !== "none" && network !== "host") {
		throw invalid(`invalid network mode ${quoteGo(network)}`);
	}
	if (security !== "sandbox" && security !== "insecure") {
		throw invalid(`security ${quoteGo(security)} is not valid`);
	}
	const files = node.heredocs.map(({ name, content, chomp }) => ({ name, content, chomp }));
	const command = commandLine(node);
	return { kind: "run", ...common(node), command, files, mountFlags, mounts, network, security, devices };
}

function parseHealthcheck(node: InstructionNode): HealthcheckInstruction {
	const [type = "", ...command] = atLeastOne(wordsOf(node), "HEALTHCHECK");
	const name = toUpper(type);
	if (name === "NONE") {
		if (command.length > 0) {
			throw invalid("HEALTHCHECK NONE takes no arguments");
		}
		const none = { interval: 0, timeout: 0, startPeriod: 0, startInterval: 0, retries: 0 };
		return { kind: "healthcheck", ...common(node), test: [name], ...none };
	}
	const flags = parseFlags(node.flags, {
		interval: "text",
		timeout: "text",
		"start-period": "text",
		"start-interval": "text",
		retries: "text",
	});
	if (name !== "CMD") {
		throw invalid(`Unknown type ${quoteGo(name)} in HEALTHCHECK (try CMD)`);
	}
	if (command.length === 0) {
		throw invalid("Missing command after HEALTHCHECK CMD");
	}
	return {
		kind: "healthcheck",
		...common(node),
		test: [isJson(node) ? name : "CMD-SHELL", ...command],
		interval: parseInterval("interval", flags.interval),
		timeout: parseInterval("timeout", flags.timeout),
		startPeriod: parseInterval("start-period", flags["start-period"]),
		startInterval: parseInterval("start-interval", flags["start-interval"]),
		retries: parseRetries(flags.retries),
	};
}

/** What the container runtime can tell apart from "not set". */
const minIntervalNanoseconds = 1_000_000;

function parseInterval(flag: string, text: string | undefined): number {
	const duration = text === undefined || text === "" ? 0 : parseGoDuration(text);
	if (duration !== 0 && duration < minIntervalNanoseconds) {
		throw invalid(`Interval ${quoteGo(flag)} cannot be less than 1ms`);
	}
	return duration;
}

function parseRetries(text: string | undefined): number {
	const retries = text === undefined || text === "" ? 0 : parseGoInt32(text);
	if (retries < 0) {
		throw invalid(`--retries cannot be negative (${retries})`);
	}
	return retries;
}

function parseOnbuild(node: InstructionNode): Instruction {
	const trigger = node.arguments.kind === "trigger" ? node.arguments.trigger : undefined;
	if (trigger === undefined) {
		throw invalid("ONBUILD requires at least one argument");
	}
	parseFlags(node.flags, {});
	const name = toUpper(trimSpace(trigger.keyword));
	if (name === "ONBUILD") {
		throw invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
	}
	if (name === "MAINTAINER" || name === "FROM") {
		throw invalid(`${name} isn't allowed as an ONBUILD trigger`);
	}
	const text = node.original.replace(/^[\t\n\f\r ]*onbuild[\t\n\f\r ]*/i, "");
	const bodies = node.heredocs.map((heredoc) => `\n${heredoc.content}${heredoc.name}`);
	return { kind: "onbuild", ...common(node), expression: text + bodies.join("") };
}

function parseShell(node: InstructionNode): Instruction {
	parseFlags(node.flags, {});
	const shell = atLeastOne(wordsOf(node), "SHELL");
	if (!isJson(node)) {
		throw invalid("SHELL requires the arguments to be in JSON form");
	}
	return { kind: "shell", ...common(node), shell };
}

function parseVolume(node: InstructionNode): Instruction {
	const words = atLeastOne(wordsOf(node), "VOLUME");
	parseFlags(node.flags, {});
	const volumes = words.map(trimSpace);
	if (volumes.includes("")) {
		throw invalid("VOLUME specified can not be an empty string");
	}
	return { kind: "volume", ...common(node), volumes };
}

/** The one raw argument of an instruction whose flags are read after it. */
function exactlyOne(node: InstructionNode, name: string): string {
	const [word, ...more] = wordsOf(node);
	if (word === undefined || more.length > 0) {
		throw invalid(`${name} requires exactly one argument`);
	}
	parseFlags(node.flags, {});
	return word;
}

/** What follows the name in the first comment line that begins with it. */
function describe(comments: readonly string[], name: string): string {
	const prefix = `${name} `;
	return name === "" ? "" : (comments.find((line) => line.startsWith(prefix))?.slice(prefix.length) ?? "");
}

function lintDescription(
	node: InstructionNode,
	instruction: "ARG" | "FROM",
	names: readonly string[],
	linter: Linter,
): void {
	const [firstWord] = node.comments.at(-1)?.split(" ", 1) ?? [];
	const [firstName] = names;
	if (firstWord === undefined || firstName === undefined || names.includes(firstWord)) {
		return;
	}
	const example = names.length > 1 ? "<arg_key>" : firstName;
	linter.report(invalidDefinitionDescription, node.ranges, instruction, example);
}
