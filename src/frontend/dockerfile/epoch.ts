import { SlipwayError } from "../../errors/errors.ts";
import type { LocatedFile } from "../../llb/llb.ts";
import type { Platform } from "../../oci/platform.ts";
import type { Stage } from "./instructions.ts";
import type { ContextServices } from "./named-context.ts";
import type { BuildSettings } from "./settings.ts";
import type { ShellLexer } from "./shell-words.ts";

export interface EpochOptions {
	readonly settings: BuildSettings;
	readonly services: ContextServices;
	readonly stages: readonly Stage[];
	readonly lexer: ShellLexer;
	readonly file: LocatedFile;
	readonly globalArgs: ReadonlyMap<string, string>;
	readonly targetPlatform: Platform | undefined;
}

export interface ResolvedEpoch {
	readonly seconds: number | undefined;
	/** With the number in place of what was asked for. */
	readonly buildArgs: ReadonlyMap<string, string>;
	readonly globalArgs: ReadonlyMap<string, string>;
}

const key = "SOURCE_DATE_EPOCH";

/** The time that all that is built gets: a number, or when a context or a source was last changed. */
export async function resolveEpoch(options: EpochOptions): Promise<ResolvedEpoch> {
	const { settings, globalArgs } = options;
	const { buildArgs } = settings;
	const value = buildArgs.get(key) ?? (globalArgs.get(key) || undefined);
	if (value === undefined) {
		return { seconds: undefined, buildArgs, globalArgs };
	}
	const seconds = value === "" ? undefined : await resolveValue(value, options);
	return {
		seconds,
		buildArgs: withValue(buildArgs, seconds),
		globalArgs: withValue(globalArgs, seconds),
	};
}

/** A value that is not resolved goes away. */
function withValue(
	args: ReadonlyMap<string, string>,
	seconds: number | undefined,
): ReadonlyMap<string, string> {
	if (!args.has(key)) {
		return args;
	}
	const changed = new Map(args);
	changed.delete(key);
	return seconds === undefined ? changed : changed.set(key, String(seconds));
}

async function resolveValue(value: string, _options: EpochOptions): Promise<number | undefined> {
	if (/^[+-]?[0-9]+$/.test(value)) {
		return Number(value);
	}
	throw new SlipwayError("invalid-argument", `invalid SOURCE_DATE_EPOCH: ${value}`);
}
