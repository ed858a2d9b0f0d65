import type { SourceFile, SourceRange } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";
import type { Op } from "./op.ts";
import type { Node } from "./ops.ts";

/**
 * LLB, the build graph's low-level language, in three forms:
 *
 * 1. a graph of `Node`s in memory, which `State` (state.ts) builds: immutable, nothing is checked or run;
 * 2. a `Definition`: each op as bytes, named by the digest of the bytes. `marshal` (marshal.ts) makes it; it travels
 *    over the wire. For the same calls the bytes equal those of BuildKit's Go client;
 * 3. a `LoadedDefinition`: read from bytes of any origin, checked, digests computed anew. `load` (load.ts) makes it;
 *    the solver's vertices come from it.
 *
 * Never true: an op's digest depends on its metadata; a definition that `load` accepted has a missing input.
 */
export interface Definition {
	/** Inputs before users, without repeats; the last one is the terminal op. Empty: scratch. */
	readonly ops: readonly MarshalledOp[];
	/** By op digest. */
	readonly metadata: ReadonlyMap<string, OpMetadata>;
	readonly source?: SourceMap;
}

/** A deterministic `pb.Op`. The terminal op has no kind and exactly one input: the output that is asked for. */
export interface MarshalledOp {
	readonly digest: Digest;
	readonly bytes: Uint8Array;
}

/** What may differ without changing what an op is. */
export interface OpMetadata {
	readonly ignoreCache: boolean;
	/** `llb.customname` replaces the name that is shown; other keys are the frontend's own. */
	readonly description: ReadonlyMap<string, string>;
	/** Whether cache exporters take the result; undefined leaves it to their mode. */
	readonly exportCache?: boolean;
	/** Capabilities that the server must have, see capabilities.ts. */
	readonly caps: ReadonlySet<string>;
	readonly progressGroup?: ProgressGroup;
	readonly linuxResources?: LinuxResources;
}

export const customNameKey = "llb.customname";

/** Several vertices that are shown as one. A weak member never starts the group by itself. */
export interface ProgressGroup {
	readonly id: string;
	readonly name: string;
	readonly weak: boolean;
}

/** Limits of an exec's control group; 0 and empty are none. */
export interface LinuxResources {
	/** Bytes. */
	readonly memory: number;
	/** Bytes, memory included; -1 is unlimited. */
	readonly memorySwap: number;
	readonly cpuShares: number;
	/** Microseconds. */
	readonly cpuPeriod: number;
	/** Microseconds. */
	readonly cpuQuota: number;
	readonly cpusetCpus: string;
	readonly cpusetMems: string;
}

/** Where ops come from in files that people wrote. */
export interface SourceMap {
	readonly files: readonly MappedFile[];
	/** By op digest. */
	readonly locations: ReadonlyMap<string, readonly MappedLocation[]>;
}

export interface MappedFile extends SourceFile {
	/** How the file itself was got. */
	readonly definition?: Definition;
}

export interface MappedLocation {
	/** Index into `files`. */
	readonly file: number;
	readonly ranges: readonly SourceRange[];
}

/** One output of a node. Two outputs are the same only if they are the same object. */
export type Output = NodeOutput | DeferredOutput;

export interface NodeOutput {
	readonly kind: "node";
	readonly node: Node;
	readonly index: number;
	/** The platform that a state of this output takes on. */
	readonly platform?: Platform;
}

/**
 * An output that is known when the graph is marshalled: a frontend reads from the build context before it knows which
 * of its paths it needs. `resolve` is called once per marshal, and may not return scratch.
 */
export interface DeferredOutput {
	readonly kind: "deferred";
	readonly resolve: () => Output;
}

export function deferredOutput(resolve: () => Output): DeferredOutput {
	return { kind: "deferred", resolve };
}

/** What every op can be given. Except `platform` and `filters` it does not change the op's digest. */
export interface Constraints {
	readonly platform?: Platform;
	/** Worker filters in containerd's syntax. */
	readonly filters?: readonly string[];
	readonly ignoreCache?: boolean;
	/** Shown in place of the generated name. */
	readonly name?: string;
	readonly description?: Readonly<Record<string, string>>;
	/** Whether cache exporters take the result; absent leaves it to their mode. */
	readonly exportCache?: boolean;
	readonly progressGroup?: ProgressGroup;
	readonly linuxResources?: LinuxResources;
	readonly locations?: readonly SourceLocation[];
}

/** A place in a file that led to an op. */
export interface SourceLocation {
	readonly file: LocatedFile;
	readonly ranges: readonly SourceRange[];
}

export interface LocatedFile extends SourceFile {
	/** How the file itself was got. */
	readonly output?: Output;
}

/** The result of `load`. */
export interface LoadedDefinition {
	/** All that the root needs, inputs before users. */
	readonly ops: ReadonlyMap<Digest, LoadedOp>;
	readonly root: { readonly digest: Digest; readonly index: number };
}

export interface LoadedOp {
	/** Of the op's deterministic bytes with recomputed inputs; clients that marshal otherwise know it by `originalDigest`. */
	readonly digest: Digest;
	readonly originalDigest: Digest;
	readonly op: Op;
	/** What people see: the custom name, else one made from the op. */
	readonly name: string;
	readonly metadata?: OpMetadata;
	readonly sources: readonly LoadedSource[];
}

export interface LoadedSource {
	readonly file: SourceFile;
	readonly ranges: readonly SourceRange[];
}
