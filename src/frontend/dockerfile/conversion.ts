import type { SourceRange } from "../../errors/errors.ts";
import type { LocatedFile, SourceLocation } from "../../llb/llb.ts";
import type { ProxyEnv } from "../../llb/op.ts";
import type { State } from "../../llb/state.ts";
import type { Platform } from "../../oci/platform.ts";
import type { PatternMatcher } from "../../patterns/patterns.ts";
import { toUpper } from "./go-text.ts";
import type { HostKeys } from "./host-keys.ts";
import type { ArgDeclaration } from "./instructions.ts";
import { undefinedVar } from "./lint-rules.ts";
import type { Linter } from "./linter.ts";
import { formatStagePlatform, type PlatformChoice } from "./platform-args.ts";
import type { BuildSettings } from "./settings.ts";
import { type Environment, mapEnvironment, processWord, type ShellLexer } from "./shell-words.ts";
import type { StageState } from "./stage-state.ts";
import { suggest } from "./suggest.ts";

/** What the instructions of all stages of one conversion share. */
export interface Conversion {
	readonly settings: BuildSettings;
	/** The settings' own, but for what SOURCE_DATE_EPOCH was resolved to. */
	readonly buildArgs: ReadonlyMap<string, string>;
	readonly platforms: PlatformChoice;
	/** ARGs before the first FROM, and the predefined ones. */
	readonly globalArgs: ReadonlyMap<string, string>;
	/** SOURCE_DATE_EPOCH in seconds. */
	readonly epoch: number | undefined;
	readonly lexer: ShellLexer;
	readonly lint: Linter;
	readonly file: LocatedFile;
	/** Known when all stages are converted. */
	readonly buildContext: State;
	readonly proxyEnv: ProxyEnv | undefined;
	readonly hostKeys: HostKeys;
	/** Of the build context; undefined if nothing is ignored. */
	readonly ignored: PatternMatcher | undefined;
}

/** The conversion of one instruction. */
export interface InstructionContext extends Conversion {
	/** With the checks that comments above the instruction switch off. */
	readonly lint: Linter;
	readonly trigger: boolean;
}

/** Has the command's text in it, as BuildKit's clients and cache tools look for it. */
export function commandDescription(text: string): Readonly<Record<string, string>> {
	return { "com.docker.dockerfile.v1.command": text };
}

export function locationOf(file: LocatedFile, ranges: readonly SourceRange[]): readonly SourceLocation[] {
	return [{ file, ranges }];
}

export function environmentOf(stage: StageState): Environment {
	return mapEnvironment(stage.variables ?? stage.state.env);
}

/** ARGs that never become variables of the stage. */
export const hiddenArgs: ReadonlySet<string> = new Set([
	"BUILDKIT_SBOM_SCAN_CONTEXT",
	"BUILDKIT_SBOM_SCAN_STAGE",
]);

/** Reports each variable that neither the environment nor an ARG of the stage has. */
export function reportUndefined(
	unmatched: ReadonlySet<string>,
	{
		args,
		env,
		lint,
		ranges,
	}: {
		readonly args: readonly ArgDeclaration[];
		readonly env: Environment;
		readonly lint: Linter;
		readonly ranges: readonly SourceRange[];
	},
): void {
	for (const name of unmatched) {
		if (hiddenArgs.has(name) || args.some((arg) => arg.key === name)) {
			continue;
		}
		lint.report(undefinedVar, ranges, name, suggest(name, env.keys(), { caseSensitive: true }) ?? "");
	}
}

/** The text of an instruction for people: its word in upper case, variables replaced; as it is if that fails. */
export function displayCommand(text: string, lexer: ShellLexer, env: Environment): string {
	const expanded = processWord(lexer, text, env);
	return upperFirstWord(expanded.error === undefined ? expanded.text : text);
}

function upperFirstWord(text: string): string {
	const space = text.indexOf(" ");
	return space < 0 ? toUpper(text) : toUpper(text.slice(0, space)) + text.slice(space);
}

export interface StepName {
	readonly text: string;
	readonly withPlatform: boolean;
	readonly platform: Platform | undefined;
	readonly env: Environment;
	readonly trigger: boolean;
}

/** `[linux/amd64 build 2/7] RUN make`. Counts the step. */
export function nextStepName(stage: StageState, name: StepName): string {
	if (stage.stepTotal === 0) {
		return name.text;
	}
	stage.stepIndex++;
	return stepName(stage, name);
}

/** The same for the step that was counted last. */
export function stepName(
	stage: StageState,
	{ text, withPlatform, platform, env, trigger }: StepName,
): string {
	const { stepTotal: total, stepIndex, displayName } = stage;
	if (total === 0) {
		return text;
	}
	const where = withPlatform && platform !== undefined ? `${formatStagePlatform(platform, env)} ` : "";
	const stageName = displayName === "" ? "" : `${displayName} `;
	const counter = `${String(stepIndex).padStart(String(total).length)}/${total}`;
	return `[${where}${stageName}${counter}] ${trigger ? "ONBUILD " : ""}${text}`;
}
