import { SlipwayError, type SourceRange, wrap } from "../../errors/errors.ts";
import { joinPath } from "../../llb/go-path.ts";
import type { LocatedFile } from "../../llb/llb.ts";
import { type Platform, parsePlatform } from "../../oci/platform.ts";
import { compareText } from "./go-text.ts";
import type { Instruction, Stage } from "./instructions.ts";
import {
	fromPlatformFlagConstDisallowed,
	redundantTargetPlatform,
	undefinedArgInFrom,
} from "./lint-rules.ts";
import type { Linter } from "./linter.ts";
import { type ContextServices, findNamedContext, type NamedContext } from "./named-context.ts";
import { newOutline, type OutlineArg } from "./outline-capture.ts";
import { withSource } from "./parser.ts";
import type { PlatformChoice } from "./platform-args.ts";
import { type BuildSettings, ignoresCache } from "./settings.ts";
import {
	emptyEnvironment,
	expandWord,
	mapEnvironment,
	processWord,
	type ShellLexer,
	type WordExpansion,
} from "./shell-words.ts";
import { newStage, type StageCommand, type StageState, StageTable } from "./stage-state.ts";
import { suggest, withSuggestion } from "./suggest.ts";

/** What is known before the first stage is looked at. */
export interface StagePlan {
	readonly settings: BuildSettings;
	readonly services: ContextServices;
	readonly file: LocatedFile;
	readonly lexer: ShellLexer;
	readonly lint: Linter;
	readonly platforms: PlatformChoice;
	/** What was asked for, if anything was. */
	readonly targetPlatform: Platform | undefined;
	readonly globalArgs: ReadonlyMap<string, string>;
	readonly outlineArgs: ReadonlyMap<string, OutlineArg>;
	readonly allStages: boolean;
}

export const emptyImageName = "scratch";

/**
 * The stages with what they use of each other, and the one that is wanted. Throws `invalid-argument` for a base that
 * can't be one, a target that does not exist, and stages that need themselves.
 */
export function prepareStages(
	stages: readonly Stage[],
	plan: StagePlan,
): { readonly table: StageTable; readonly target: StageState } {
	const table = new StageTable();
	for (const [index, stage] of stages.entries()) {
		prepareStage(stage, index, { table, plan });
	}
	const target = findTarget(table, plan.settings.target);
	// Images that instructions name are added on the way, and have no instructions.
	for (const state of [...table.states]) {
		state.commands = state.stage.instructions.map((instruction) =>
			linkCommand(state, instruction, { table, trigger: false, lexer: plan.lexer }),
		);
	}
	checkCycles(table.states, plan.file);
	const [only, ...more] = table.states;
	if (only !== undefined && more.length === 0) {
		only.displayName = "";
	}
	return { table, target };
}

function prepareStage(
	stage: Stage,
	index: number,
	{ table, plan }: { readonly table: StageTable; readonly plan: StagePlan },
): void {
	const { ranges } = stage;
	const fail = (error: unknown): SlipwayError => withSource(error, plan.file, ranges);
	const lint = plan.lint.forComments(stage.comments);
	const base = expandFrom(stage.baseName, stage, { plan, lint });
	if (base.error !== undefined) {
		throw fail(base.error);
	}
	if (base.text === "") {
		throw fail(invalid(`base name (${stage.baseName}) should not be blank`));
	}
	const used = new Set(base.matched);
	const state = newStage({ stage, registered: true, outline: newOutline(plan.outlineArgs) });
	state.baseName = base.text;
	if (stage.platform !== "") {
		const platform = expandFrom(stage.platform, stage, { plan, lint });
		lintPlatform(stage, platform, { plan, lint });
		state.platform = parseStagePlatform(stage, platform, plan);
		for (const name of platform.matched) {
			used.add(name);
		}
	}
	if (stage.name !== "") {
		const context = findStageContext(stage.name, state.platform, { plan, state });
		if (context !== undefined) {
			state.namedContext = context;
			table.add(state);
			state.base = undefined;
			return;
		}
	}
	if (stage.name === "") {
		state.displayName = `stage-${index}`;
	}
	table.add(state);
	for (const name of used) {
		state.outline.usedArgs.add(name);
	}
	const steps = stage.instructions.filter(({ kind }) =>
		["add", "copy", "run", "workdir"].includes(kind),
	).length;
	const pulls = state.baseName !== emptyImageName && state.base === undefined;
	state.stepTotal = steps + (pulls ? 1 : 0);
	state.ignoreCache = ignoresCache(plan.settings, stage.name);
}

/** A word of FROM, with the global ARGs. */
function expandFrom(
	word: string,
	{ ranges }: Stage,
	{ plan, lint }: { readonly plan: StagePlan; readonly lint: Linter },
): WordExpansion {
	const expanded = processWord(plan.lexer, word, mapEnvironment(plan.globalArgs));
	const known = new Set([...plan.outlineArgs.keys(), ...plan.globalArgs.keys()]);
	for (const name of expanded.unmatched) {
		if (!known.has(name)) {
			lint.report(undefinedArgInFrom, ranges, name, suggest(name, known, { caseSensitive: true }) ?? "");
		}
	}
	return expanded;
}

function lintPlatform(
	stage: Stage,
	{ text, matched, unmatched }: WordExpansion,
	{ plan, lint }: { readonly plan: StagePlan; readonly lint: Linter },
): void {
	const target = "TARGETPLATFORM";
	if (matched.size === 1 && unmatched.size === 0 && matched.has(target)) {
		if (text === (plan.globalArgs.get(target) ?? "")) {
			lint.report(redundantTargetPlatform, stage.ranges, stage.platform);
		}
	}
	if (matched.size > 0 || unmatched.size > 0) {
		return;
	}
	let platform: Platform;
	try {
		platform = parsePlatform(text);
	} catch {
		return;
	}
	// A stage that says in its name what it is for may be for nothing else.
	if (!stage.name.includes(platform.os) && !stage.name.includes(platform.architecture)) {
		lint.report(fromPlatformFlagConstDisallowed, stage.ranges, text);
	}
}

function parseStagePlatform(
	{ platform: written, ranges }: Stage,
	{ text, unmatched, error }: WordExpansion,
	{ file, globalArgs }: StagePlan,
): Platform {
	if (error !== undefined) {
		throw withSource(wrap(error, `failed to process arguments for platform ${text}`), file, ranges);
	}
	const suggestArg = (message: string): string => {
		for (const name of unmatched) {
			const suggested = withSuggestion(message, name, globalArgs.keys());
			if (suggested !== message) {
				return suggested;
			}
		}
		return message;
	};
	if (text === "") {
		throw withSource(invalid(suggestArg(`empty platform value from expression ${written}`)), file, ranges);
	}
	try {
		return parsePlatform(text);
	} catch (cause) {
		const message = suggestArg(cause instanceof Error ? cause.message : String(cause));
		const located = withSource(
			new SlipwayError("invalid-argument", `failed to parse platform ${written}: ${message}`, { cause }),
			file,
			ranges,
		);
		// BuildKit gives the place twice here.
		throw withSource(located, file, ranges);
	}
}

export function findStageContext(
	name: string,
	platform: Platform | undefined,
	{ plan, state }: { readonly plan: StagePlan; readonly state: StageState },
): NamedContext | undefined {
	return findNamedContext(name, plan.services, {
		platform: platform ?? plan.targetPlatform,
		resolveMode: plan.settings.resolveMode,
		followPaths: () => followedPaths(state.usedPaths),
	});
}

/** The paths relative to the root of their file system; none if all of it is used. */
export function followedPaths(paths: ReadonlySet<string>): readonly string[] {
	return paths.has("/") ? [] : [...paths].map((path) => joinPath(".", path)).sort(compareText);
}

function findTarget(table: StageTable, name: string): StageState {
	const target = name === "" ? table.states.at(-1) : table.find(name);
	if (target === undefined) {
		const message = `target stage ${JSON.stringify(name)} could not be found`;
		throw new SlipwayError("not-found", withSuggestion(message, name, table.names()));
	}
	return target;
}

/** The instruction with the stages that it takes files from; what no stage is called is an image. */
export function linkCommand(
	state: StageState,
	instruction: Instruction,
	{
		table,
		trigger,
		lexer,
	}: { readonly table: StageTable; readonly trigger: boolean; readonly lexer: ShellLexer },
): StageCommand {
	const sources = sourcesOf(instruction, table, lexer);
	for (const source of sources) {
		state.uses.set(source, instruction.ranges);
		if (!source.registered && !table.states.includes(source)) {
			table.add(source);
		}
	}
	return { instruction, sources, trigger };
}

function sourcesOf(instruction: Instruction, table: StageTable, lexer: ShellLexer): readonly StageState[] {
	if (instruction.kind === "run") {
		return instruction.mounts.map(({ from }) => {
			const name = from === "" ? emptyImageName : from;
			return table.find(name) ?? imageStage(name, []);
		});
	}
	if (instruction.kind !== "copy" || instruction.from === "") {
		return [];
	}
	const { from, ranges } = instruction;
	if (expandWord(lexer, from, emptyEnvironment) !== from) {
		throw invalid(
			"variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
		);
	}
	if (/^[+-]?[0-9]+$/.test(from)) {
		return [table.at(Number(from))];
	}
	return [table.find(from) ?? imageStage(from, ranges)];
}

function imageStage(baseName: string, ranges: readonly SourceRange[]): StageState {
	return newStage({
		stage: {
			kind: "from",
			keyword: "",
			name: "",
			baseName,
			platform: "",
			source: "",
			ranges,
			comments: [],
			description: "",
			instructions: [],
		},
		registered: false,
		outline: newOutline(),
	});
}

/** By a stack of its own, because a chain of stages may be longer than the call stack. */
function checkCycles(states: readonly StageState[], file: LocatedFile): void {
	const done = new Set<StageState>();
	for (const root of states) {
		const path = new Map<StageState, readonly SourceRange[]>();
		const stack = [{ state: root, rest: [...root.uses] }];
		if (done.has(root)) {
			continue;
		}
		path.set(root, []);
		for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
			const next = top.rest.shift();
			if (next === undefined) {
				done.add(top.state);
				path.delete(top.state);
				stack.pop();
				continue;
			}
			const [state, ranges] = next;
			if (path.has(state)) {
				let error = invalid(`circular dependency detected on stage: ${root.displayName}`);
				for (const place of [...path.values()].slice(1)) {
					error = withSource(error, file, place);
				}
				throw withSource(error, file, ranges);
			}
			if (!done.has(state)) {
				path.set(state, ranges);
				stack.push({ state, rest: [...state.uses] });
			}
		}
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
