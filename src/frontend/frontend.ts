import type { SourceFile, SourceRange } from "../errors/errors.ts";
import type { Definition } from "../llb/llb.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";

/**
 * A frontend turns what a person wrote into build graphs. It is a function of its options; all that it needs of the world
 * it asks of the bridge: it reads files by solving small graphs, and resolves image names. What it gives back are graphs
 * that need not have been solved, one per platform, with the image config that goes with each.
 */
export interface Frontend {
	solve(request: FrontendRequest, bridge: FrontendBridge): Promise<FrontendResult>;
}

export interface FrontendRequest {
	/** Such as `filename`, `target`, `build-arg:X`, `platform`, `context:name` (spec/dockerfile.md, section 6). */
	readonly options: Readonly<Record<string, string>>;
	/** Graphs that the client gives in place of named local sources. */
	readonly inputs: ReadonlyMap<string, Definition>;
	/** The session that local sources are taken from. */
	readonly sessionId: string;
	readonly signal: AbortSignal;
}

export interface FrontendBridge {
	/** Solves a graph. The result is computed lazily unless `evaluate` is set; its methods do what is needed. */
	solve(
		definition: Definition,
		options: { readonly evaluate: boolean; readonly signal: AbortSignal },
	): Promise<FrontendRef>;
	/**
	 * Shown as a step named `logName`. Throws `not-found` and the like with BuildKit's messages, but without its
	 * `failed to resolve source metadata for <ref>`, which the frontend puts in front.
	 */
	resolveImage(
		request: ResolveImageRequest,
		options: { readonly signal: AbortSignal },
	): Promise<ResolvedImageConfig>;
	/**
	 * When a git or http source was last changed, in seconds since 1970: the time of the commit, the Last-Modified header.
	 * Undefined if the source does not say. A bridge that can't ask has no such method.
	 */
	sourceTime?(
		source: SourceIdentity & { readonly logName: string },
		options: { readonly signal: AbortSignal },
	): Promise<number | undefined>;
	warn(warning: FrontendWarning): void;
	/** What the builder runs; natively first. */
	readonly platforms: readonly Platform[];
}

/** A source as its op has it. */
export interface SourceIdentity {
	readonly identifier: string;
	readonly attrs: ReadonlyMap<string, string>;
}

/** The file system that a graph's output is. */
export interface FrontendRef {
	/**
	 * Throws `not-found` naming the path. At most 16 MiB are read; with `maxBytes` only the file's beginning, whatever
	 * its size (more may be given than was asked for).
	 */
	readFile(
		path: string,
		options: { readonly signal: AbortSignal; readonly maxBytes?: number },
	): Promise<Uint8Array>;
	/** Entries of a directory, sorted by name. */
	readDirectory(path: string, options: { readonly signal: AbortSignal }): Promise<readonly FrontendEntry[]>;
	stat(path: string, options: { readonly signal: AbortSignal }): Promise<FrontendEntry>;
}

export interface FrontendEntry {
	readonly name: string;
	readonly kind: "file" | "directory" | "symlink" | "other";
	readonly size: number;
	/** Milliseconds since the epoch. */
	readonly modifiedMs: number;
}

export interface ResolveImageRequest {
	/** Normalised, as in `docker.io/library/alpine:latest`. */
	readonly ref: string;
	readonly platform: Platform | undefined;
	readonly mode: "default" | "pull" | "local";
	/** As in `[internal] load metadata for docker.io/library/alpine:latest`. */
	readonly logName: string;
	/** The image lies in a content store of the client, as an OCI layout. */
	readonly ociLayout?: { readonly sessionId: string | undefined; readonly storeId: string };
}

export interface ResolvedImageConfig {
	/** May differ from what was asked for, when a policy has replaced it. */
	readonly ref: string;
	/** Of the manifest or index that the name points to. */
	readonly digest: Digest;
	readonly config: Uint8Array;
}

export interface FrontendWarning {
	/** A digest of the step that the warning is shown under. */
	readonly vertex: Digest;
	readonly level: number;
	readonly short: string;
	readonly detail: readonly string[];
	readonly url?: string;
	readonly source?: SourceFile;
	readonly ranges?: readonly SourceRange[];
}

export interface FrontendResult {
	/** In the order of the platforms that were asked for. Empty for a request that has an answer in `metadata` only. */
	readonly platforms: readonly FrontendPlatform[];
	/** The result is one per platform even if there is only one. */
	readonly multiPlatform: boolean;
	/** `result.json`, `result.txt`, `source.date.epoch/…`, …. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
	/** Caches that the client wants to be looked into. */
	readonly cacheImports?: readonly FrontendCacheImport[];
}

export interface FrontendCacheImport {
	/** `registry`, `local`, `gha`, …. */
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

export interface FrontendPlatform {
	/** `linux/amd64`, with the OS version where there is one. */
	readonly id: string;
	readonly platform: Platform;
	/** Undefined for the empty file system. */
	readonly definition: Definition | undefined;
	/** JSON; undefined where there is no image, only files. */
	readonly imageConfig: Uint8Array | undefined;
	/** JSON; undefined for `FROM scratch`. */
	readonly baseImageConfig: Uint8Array | undefined;
}
