import type * as pb from "../api/generated/ops.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type Digest, encodedOf, sha256 } from "../oci/digest.ts";
import { type GoJson, goJson } from "../oci/go-json.ts";
import type { Platform } from "../oci/platform.ts";
import { compareUtf8, sortUtf8 } from "../oci/utf8-order.ts";
import { basePath, joinPath } from "./go-path.ts";
import type { BuildOp, DiffOp, ExecOp, FileOp, MergeOp, Op, PassthroughOp } from "./op.ts";
import { chownJson, definitionJson, execJson, omitEmpty } from "./op-json.ts";
import { messageOfOp } from "./op-message.ts";

/**
 * What an op is known by in the cache: a digest of the operation itself (`…CacheDigest`), and for each input which
 * part of it matters (`…Dependencies`; merge, diff, passthrough and build depend on all of their inputs as they are
 * defined). The digests are BuildKit's own, made from the JSON of its Go structs, so that caches travel between the two.
 */
export interface InputDependency {
	/** Part of the key: which paths of the input are used. */
	readonly selector?: Digest;
	/** True if the key may depend on the content of the selected files instead of the input's definition. */
	readonly byContent: boolean;
	/** Empty: the whole input. The content's digest is `contentListDigest` of theirs, in this order. */
	readonly selectors: readonly ContentSelector[];
}

/** Which files of an input count. `path` is absolute, or relative to the root. */
export interface ContentSelector {
	readonly path: string;
	readonly wildcard: boolean;
	/** Symlinks at the end of the path are followed. */
	readonly followLinks: boolean;
	readonly includePatterns: readonly string[];
	readonly excludePatterns: readonly string[];
	readonly requiredPaths: readonly string[];
}

/** The op as it is on the wire. */
function wireOf<K extends Op["kind"]>(op: Op, kind: K): WireValue<K> {
	const wire = messageOfOp(op).op;
	if (wire?.$case !== kind) {
		throw new SlipwayError("internal", `a ${op.kind} op has the message of ${wire?.$case ?? "nothing"}`);
	}
	return wire.value as WireValue<K>;
}

type WireValue<K> = Extract<NonNullable<pb.Op["op"]>, { readonly $case: K }>["value"];

function typedDigest(kind: string, fields: object): Digest {
	return sha256(goJson({ Type: `buildkit.${kind}.v0`, ...fields }));
}

/**
 * The digest of a source by the key that it resolved to. Keys of a session are random: they match nothing but
 * themselves, and only the content can be found again.
 */
export function sourceCacheDigest(key: string): string {
	const digest = sha256(`buildkit.source.v0:${key}`);
	return key.startsWith("session:") ? `random:${encodedOf(digest)}` : digest;
}

/** The digest of an input's content from the digests of its selected parts. */
export function contentListDigest(digests: readonly string[]): Digest {
	return sha256(digests.join("\0"));
}

export function mergeCacheDigest(op: MergeOp): Digest {
	const inputs = wireOf(op, "merge").inputs.map(({ input }) => omitEmpty({ input }));
	return typedDigest("merge", { Merge: omitEmpty({ inputs }) });
}

export function diffCacheDigest(op: DiffOp): Digest {
	const { lower, upper } = wireOf(op, "diff");
	const side = (input: pb.LowerDiffInput | undefined) => input && omitEmpty({ input: input.input });
	return typedDigest("diff", { Diff: omitEmpty({ lower: side(lower), upper: side(upper) }) });
}

export function passthroughCacheDigest(op: PassthroughOp): Digest {
	const { id, outputs } = wireOf(op, "passthrough");
	return typedDigest("passthrough", { Passthrough: omitEmpty({ id, outputs }) });
}

export function buildCacheDigest(op: BuildOp): Digest {
	const { builder, inputs, def, attrs } = wireOf(op, "build");
	const named = new Map([...inputs].map(([name, { input }]) => [name, omitEmpty({ input })]));
	const Exec = omitEmpty({ builder, inputs: named, def: def && definitionJson(def), attrs });
	// BuildKit calls the field Exec here too.
	return typedDigest("build", { Exec });
}

/** Mounts whose options say nothing about the result are blanked, as are addresses of hosts and proxies. */
export function execCacheDigest(op: ExecOp, platform: Platform): Digest {
	const exec = wireOf(op, "exec");
	const { meta } = exec;
	const mounts = exec.mounts.map(
		(mount): pb.Mount => ({
			...mount,
			selector: "",
			...(mount.cacheOpt !== undefined && !isDefaultCache(mount, mount.cacheOpt)
				? { cacheOpt: { ID: "", sharing: 0 } }
				: {}),
		}),
	);
	const blanked: pb.ExecOp = {
		...exec,
		meta: meta && {
			...meta,
			proxyEnv: undefined,
			extraHosts: meta.extraHosts.map((host) => ({ ...host, IP: "" })),
		},
		mounts: isRootOnly(mounts) ? [] : mounts,
	};
	return typedDigest("exec", {
		Exec: execJson(blanked),
		OS: platform.os,
		Arch: platform.architecture,
		...omitEmpty({
			Variant: platform.variant,
			OSVersion: platform["os.version"],
			OSFeatures: platform["os.features"],
		}),
	});
}

/** The cache mount that a Dockerfile makes when it names none: the id is the destination, maybe in a namespace. */
function isDefaultCache({ dest }: pb.Mount, { ID, sharing }: pb.CacheOpt): boolean {
	const slash = ID.indexOf("/");
	return sharing === 0 && (ID === dest || (slash !== -1 && ID.slice(slash + 1) === dest));
}

/** The plain RUN, whose mounts early versions of BuildKit left out by mistake. */
function isRootOnly(mounts: readonly pb.Mount[]): boolean {
	const [mount] = mounts;
	return (
		mount !== undefined &&
		mounts.length === 1 &&
		mount.dest === "/" &&
		!mount.readonly &&
		mount.mountType === 0 &&
		mount.cacheOpt === undefined &&
		mount.SSHOpt === undefined &&
		mount.secretOpt === undefined &&
		mount.resultID === ""
	);
}

const skipOutput = -1;
const emptyInput = -1;

/** Throws `invalid-argument` if content is asked for where it would not be safe. */
export function execDependencies(op: ExecOp): readonly InputDependency[] {
	const inputs = op.inputs.map(() => ({ paths: [] as string[], byContent: false }));
	for (const mount of wireOf(op, "exec").mounts) {
		// Only what is mounted from an input: bind and cache.
		if ((mount.mountType !== 0 && mount.mountType !== 3) || mount.input === emptyInput) {
			continue;
		}
		const input = inputs[mount.input];
		if (input === undefined) {
			throw new SlipwayError("invalid-argument", `invalid mountinput ${mount.input} of ${mount.dest}`);
		}
		const path = joinPath("/", mount.selector);
		input.paths.push(path);
		input.byContent = isByContent(mount, path);
	}
	return inputs.map(({ paths, byContent }) => ({
		...(paths.length === 0 ? {} : { selector: sha256(paths.join("\0")) }),
		byContent,
		selectors: execSelectors(paths),
	}));
}

/**
 * A part of an input may stand for the input only if nothing can be built on the whole of it: else a cached result
 * could hold files of another input that the part does not show.
 */
function isByContent(mount: pb.Mount, path: string): boolean {
	const isSafe = mount.output === skipOutput || mount.readonly || path === "/";
	switch (mount.contentCache) {
		case 1:
			if (!isSafe) {
				throw new SlipwayError("invalid-argument", `invalid mount cache content of ${mount.dest}`);
			}
			return true;
		case 2:
			return false;
		default:
			// A root file system is big, and its content rarely equals that of another.
			return isSafe && mount.dest !== "/";
	}
}

function execSelectors(paths: readonly string[]): readonly ContentSelector[] {
	const distinct = dedupePaths(paths);
	return distinct.includes("/") ? [] : distinct.map((path) => selectorOf(path, true));
}

function selectorOf(path: string, followLinks: boolean): ContentSelector {
	return { path, wildcard: false, followLinks, includePatterns: [], excludePatterns: [], requiredPaths: [] };
}

/** Sorted, without repeats and without what lies below another of the paths. */
export function dedupePaths(paths: readonly string[]): readonly string[] {
	if (paths.length <= 1) {
		return paths;
	}
	const all = new Set(paths);
	const isBelow = (path: string) => {
		for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1)) {
			const parent = path.slice(0, slash + 1);
			if (all.has(path.slice(0, slash)) || (parent !== path && all.has(parent))) {
				return true;
			}
		}
		return false;
	};
	return sortUtf8([...all].filter((path) => !isBelow(path)));
}

/** A copied file counts by its content; of its path only the name, unless the copy takes from the op's own results. */
export function fileCacheDigest(op: FileOp): Digest {
	const { actions } = wireOf(op, "file");
	const count = op.inputs.length;
	const indexes = actions.map(
		({ input, secondaryInput, output }) => [input, secondaryInput, output] as const,
	);
	return typedDigest("file", {
		Actions: actions.map((each) =>
			each.action === undefined
				? null
				: Buffer.from(goJson(actionJson(each.action, isCopyOfInput(each, count)))),
		),
		...(isLinear(indexes) ? {} : { indexes }),
	});
}

function isCopyOfInput({ secondaryInput, action }: pb.FileAction, count: number): boolean {
	return action?.$case === "copy" && secondaryInput !== emptyInput && secondaryInput < count;
}

export function fileDependencies(op: FileOp): readonly InputDependency[] {
	const selectors = op.inputs.map((): ContentSelector[] => []);
	/** What is changed counts as a whole, by its definition. */
	const changed = new Set<number>();
	for (const each of wireOf(op, "file").actions) {
		const { input, secondaryInput, action } = each;
		changed.add(input);
		if (action !== undefined && action.$case !== "symlink" && action.$case !== "rm") {
			for (const { number, path } of ownerFiles(action.value.owner)) {
				selectors[number]?.push(selectorOf(path, true));
			}
		}
		if (action?.$case === "copy" && isCopyOfInput(each, op.inputs.length)) {
			selectors[secondaryInput]?.push(copySelector(action.value));
		}
	}
	return selectors.map((own, number) => {
		if (own.length === 0 || changed.has(number)) {
			return { byContent: false, selectors: [] };
		}
		// Sorted backwards, as it has always been.
		const paths = sortUtf8(own.map(({ path }) => path)).reverse();
		return { selector: sha256(paths.join("\0")), byContent: true, selectors: dedupeSelectors(own) };
	});
}

/** Where names of owners are looked up. */
function ownerFiles(
	owner: pb.ChownOpt | undefined,
): readonly { readonly number: number; readonly path: string }[] {
	const files: { number: number; path: string }[] = [];
	const users = [
		[owner?.user?.user, "/etc/passwd"],
		[owner?.group?.user, "/etc/group"],
	] as const;
	for (const [user, path] of users) {
		if (user?.$case === "byName") {
			if (user.value.input < 0) {
				// The op will fail when it is executed; BuildKit looks at nothing more here.
				break;
			}
			files.push({ number: user.value.input, path });
		}
	}
	return files;
}

function copySelector(copy: pb.FileActionCopy): ContentSelector {
	return {
		path: copy.src,
		wildcard: copy.allowWildcard && hasWildcards(copy.src),
		followLinks: copy.followSymlink,
		includePatterns: copy.includePatterns,
		excludePatterns: copy.excludePatterns,
		requiredPaths: copy.requiredPaths,
	};
}

function hasWildcards(path: string): boolean {
	return /[*?[]/.test(path.replace(/\\[\s\S]/g, ""));
}

function hasFilters({ wildcard, includePatterns, excludePatterns }: ContentSelector): boolean {
	return wildcard || includePatterns.length > 0 || excludePatterns.length > 0;
}

/** Plain paths without those below others; what has patterns stays as it is. By path. */
export function dedupeSelectors(selectors: readonly ContentSelector[]): readonly ContentSelector[] {
	const plain = (followLinks: boolean) =>
		dedupePaths(
			selectors
				.filter((each) => !hasFilters(each) && each.followLinks === followLinks)
				.map(({ path }) => path),
		).map((path) => selectorOf(path, followLinks));
	return [...plain(false), ...plain(true), ...selectors.filter(hasFilters)].sort((a, b) =>
		compareUtf8(a.path, b.path),
	);
}

/** One input changed by one action after the other, with a second input at most: then the numbers are left out. */
function isLinear(indexes: readonly (readonly [number, number, number])[]): boolean {
	const last = indexes.length - 1;
	return indexes.every(([input, secondary, output], index) => {
		const expected = index === 0 ? 0 : indexes.length + index - 1;
		return (
			input === expected &&
			(secondary === -1 || secondary === 1) &&
			output === (index === last ? 0 : skipOutput)
		);
	});
}

function actionJson(action: NonNullable<pb.FileAction["action"]>, nameOnly: boolean): GoJson {
	switch (action.$case) {
		case "copy": {
			const { value } = action;
			return omitEmpty({
				src: nameOnly ? basePath(value.src) : value.src,
				dest: value.dest,
				owner: value.owner && chownJson(value.owner),
				mode: value.mode,
				followSymlink: value.followSymlink,
				dirCopyContents: value.dirCopyContents,
				attemptUnpackDockerCompatibility: value.attemptUnpackDockerCompatibility,
				createDestPath: value.createDestPath,
				allowWildcard: value.allowWildcard,
				allowEmptyWildcard: value.allowEmptyWildcard,
				timestamp: BigInt(value.timestamp),
				include_patterns: value.includePatterns,
				exclude_patterns: value.excludePatterns,
				alwaysReplaceExistingDestPaths: value.alwaysReplaceExistingDestPaths,
				modeStr: value.modeStr,
				required_paths: value.requiredPaths,
			});
		}
		case "mkfile": {
			const { path, mode, data, owner, timestamp } = action.value;
			return omitEmpty({ path, mode, data, owner: owner && chownJson(owner), timestamp: BigInt(timestamp) });
		}
		case "mkdir": {
			const { path, mode, makeParents, owner, timestamp } = action.value;
			return omitEmpty({
				path,
				mode,
				makeParents,
				owner: owner && chownJson(owner),
				timestamp: BigInt(timestamp),
			});
		}
		case "symlink": {
			const { oldpath, newpath, owner, timestamp } = action.value;
			return omitEmpty({ oldpath, newpath, owner: owner && chownJson(owner), timestamp: BigInt(timestamp) });
		}
		case "rm": {
			const { path, allowNotFound, allowWildcard } = action.value;
			return omitEmpty({ path, allowNotFound, allowWildcard });
		}
	}
}
