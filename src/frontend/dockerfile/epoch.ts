import { SlipwayError, wrap } from "../../errors/errors.ts";
import { parseGitRef } from "../../llb/git-ref.ts";
import type { LocatedFile } from "../../llb/llb.ts";
import { load } from "../../llb/load.ts";
import { http } from "../../llb/sources.ts";
import type { State } from "../../llb/state.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import type { SourceIdentity } from "../frontend.ts";
import { latestFileTime } from "./archive-time.ts";
import { downloadName, isHttpSource, parseChecksum } from "./convert-copy.ts";
import { equalFold } from "./go-text.ts";
import { type HostKeys, hostKeysOf } from "./host-keys.ts";
import type { AddInstruction, ArgInstruction, Stage } from "./instructions.ts";
import { type ContextServices, findNamedContext } from "./named-context.ts";
import { withSource } from "./parser.ts";
import type { BuildSettings } from "./settings.ts";
import { expandWord, mapEnvironment, processWord, type ShellLexer } from "./shell-words.ts";

export interface EpochOptions {
	readonly settings: BuildSettings;
	readonly services: ContextServices;
	readonly stages: readonly Stage[];
	readonly lexer: ShellLexer;
	readonly file: LocatedFile;
	readonly globalArgs: ReadonlyMap<string, string>;
}

export interface ResolvedEpoch {
	/** Since 1970, UTC; undefined if nobody asked, or what was asked for does not say. */
	readonly seconds: number | undefined;
	/** With the number in place of what was asked for. */
	readonly buildArgs: ReadonlyMap<string, string>;
	readonly globalArgs: ReadonlyMap<string, string>;
}

const key = "SOURCE_DATE_EPOCH";

/**
 * The time that all that is built gets: a number, or when a source was last changed: `context`, a named context, or a
 * stage that is `FROM scratch` with one remote ADD.
 */
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

async function resolveValue(value: string, options: EpochOptions): Promise<number | undefined> {
	if (/^[+-]?[0-9]{1,18}$/.test(value)) {
		return Number(value);
	}
	const { services, stages, file } = options;
	if (value === "context") {
		return timeOf(
			await services.context.mainContext([]),
			"[internal] resolve main build context metadata",
			services,
		);
	}
	const named = findNamedContext(value, services, {
		platform: undefined,
		resolveMode: "default",
		followPaths: () => [],
	});
	if (named !== undefined) {
		const { state } = await named.load();
		return timeOf(state, `[internal] resolve SOURCE_DATE_EPOCH named context ${value}`, services);
	}
	const stage = stages.find(({ name }) => equalFold(name, value));
	if (stage === undefined) {
		throw invalid(`invalid SOURCE_DATE_EPOCH: ${value}`);
	}
	let source: State;
	try {
		source = stageSource(stage, options);
	} catch (error) {
		throw withSource(error, file, stage.ranges);
	}
	return timeOf(source, `[internal] resolve SOURCE_DATE_EPOCH source stage ${stage.name}`, services);
}

/** Undefined for what is not made from exactly one source, and for sources that do not know. */
async function timeOf(
	state: State,
	logName: string,
	{ bridge, request }: ContextServices,
): Promise<number | undefined> {
	await hostKeysOf(bridge, request.signal).settled();
	const source = soleSource(state);
	if (source === undefined || !/^(?:git|https?):\/\//.test(source.identifier)) {
		return undefined;
	}
	if (bridge.sourceTime === undefined) {
		throw new SlipwayError("unimplemented", `this builder can't tell when ${source.identifier} was changed`);
	}
	const { signal } = request;
	const known = await bridge.sourceTime({ ...source, logName }, { signal });
	const filename = source.attrs.get("http.filename");
	if (known !== undefined || source.identifier.startsWith("git://") || filename === undefined) {
		return known;
	}
	const download = http(source.identifier, {
		filename,
		...optional("checksum", source.attrs.get("http.checksum")),
	});
	const ref = await bridge.solve(download.marshal(), { evaluate: false, signal });
	return latestFileTime(await ref.readFile(filename, { signal }));
}

function soleSource(state: State): SourceIdentity | undefined {
	const definition = state.marshal();
	if (definition.ops.length === 0) {
		return undefined;
	}
	const sources = [...load(definition).ops.values()].flatMap(({ op }) => (op.kind === "source" ? [op] : []));
	const [only, ...more] = sources;
	return only === undefined || more.length > 0
		? undefined
		: { identifier: only.identifier, attrs: only.attrs };
}

/** The one thing that the stage adds. Throws `invalid-argument` if the stage does anything else. */
function stageSource(stage: Stage, { settings, services, globalArgs, lexer }: EpochOptions): State {
	const hostKeys = hostKeysOf(services.bridge, services.request.signal);
	const env = new Map(globalArgs);
	env.delete(key);
	const base = processWord(lexer, stage.baseName, mapEnvironment(env));
	if (base.error !== undefined) {
		throw wrap(base.error, `failed to process source stage base name ${quoteGo(stage.baseName)}`);
	}
	if (base.text !== "scratch") {
		throw invalid("SOURCE_DATE_EPOCH stage must use FROM scratch");
	}
	let source: State | undefined;
	for (const instruction of stage.instructions) {
		if (instruction.kind === "arg") {
			applyArgs(instruction, { env, buildArgs: settings.buildArgs, lexer });
		} else if (instruction.kind !== "add") {
			throw invalid(
				`SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported ${instruction.keyword} instruction`,
			);
		} else if (source === undefined) {
			const expand = (word: string): string => expandWord(lexer, word, mapEnvironment(env));
			source = addedSource(instruction, expand, hostKeys);
		} else {
			throw invalid("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD");
		}
	}
	if (source === undefined) {
		throw invalid("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD");
	}
	return source;
}

function applyArgs(
	{ args }: ArgInstruction,
	{
		env,
		buildArgs,
		lexer,
	}: {
		readonly env: Map<string, string>;
		readonly buildArgs: ReadonlyMap<string, string>;
		readonly lexer: ShellLexer;
	},
): void {
	for (const { key: name, value: written } of args) {
		const given = buildArgs.get(name);
		const value =
			given ?? (written === undefined ? undefined : expandWord(lexer, written, mapEnvironment(env)));
		if (value !== undefined) {
			env.set(name, value);
		}
	}
}

function addedSource(
	instruction: AddInstruction,
	expand: (word: string) => string,
	hostKeys: HostKeys,
): State {
	const [word, ...more] = instruction.sources;
	if (word === undefined || more.length > 0 || instruction.documents.length > 0) {
		throw invalid("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source");
	}
	const source = expand(word);
	const checksum = instruction.checksum === "" ? "" : expand(instruction.checksum);
	if (isHttpSource(source)) {
		return http(source, {
			filename: downloadName(source),
			...optional("checksum", checksum === "" ? undefined : parseChecksum(checksum)),
		});
	}
	const ref = parseGitRef(source);
	if (ref === undefined || ref.looksLocal) {
		throw invalid("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD");
	}
	return hostKeys.git(ref.remote, {
		ref: ref.ref,
		keepGitDir: instruction.keepGitDir === true || ref.keepGitDir === true,
		checksum: checksum || ref.checksum,
		subdir: ref.subdir,
		skipSubmodules: ref.submodules === false,
	});
}

function optional<K extends string, T>(name: K, value: T | undefined): { readonly [Key in K]?: T } {
	return value === undefined ? {} : ({ [name]: value } as { readonly [Key in K]?: T });
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
