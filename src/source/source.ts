import type { ImmutableRef } from "../cache/cache.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { Session } from "../session/session.ts";

/**
 * Where trees come from: images, OCI layouts, directories of the client, git, http. A source is asked for an instance of one
 * identifier, the instance for its cache keys (cheap, resolves names to digests) and, only if nothing is known under them, for
 * its files.
 */
export interface Source {
	/** `docker-image`, `oci-layout`, `docker-image+blob`, `oci-layout+blob`, `local`, `git`, `http`, `https`. */
	readonly schemes: readonly string[];
	/** Parses the identifier and attributes; throws `invalid-argument` naming what is wrong. */
	open(request: SourceRequest): SourceInstance;
}

export interface SourceRequest {
	/** With the scheme, as in LLB: `docker-image://docker.io/library/busybox:latest`. */
	readonly identifier: string;
	readonly attrs: Readonly<Record<string, string>>;
	readonly platform: Platform | undefined;
	/** Sessions of the jobs that want this source, the job that asked first in front. */
	readonly sessions: () => readonly Session[];
}

export interface SourceInstance {
	/**
	 * Keys under which the result is known, asked one after the other. A key that begins with `session:` matches
	 * nothing but itself by definition.
	 */
	cacheKey(index: number, options: SourceOptions): Promise<{ readonly key: string; readonly last: boolean }>;
	/** The tree; undefined is the empty one. The caller owns the ref. */
	snapshot(options: SourceOptions): Promise<ImmutableRef | undefined>;
	/**
	 * When it was last changed, in whole seconds since 1970: the time of the commit, the server's Last-Modified. Undefined if the
	 * server does not say; a kind of source that never knows has no such method.
	 */
	modified?(options: SourceOptions): Promise<number | undefined>;
	/** What a git or http source is now, without its files as far as that goes; others have no such method. */
	describe?(options: DescribeSourceOptions): Promise<SourceDescription>;
}

export interface DescribeSourceOptions extends SourceOptions {
	/** The commit and tag themselves are wanted. */
	readonly gitObject: boolean;
	/** Another checksum of a download is wanted: of its bytes and `suffix`. */
	readonly httpChecksum?: {
		readonly algorithm: "sha256" | "sha384" | "sha512";
		readonly suffix: Uint8Array;
	};
}

export interface SourceDescription {
	readonly git?: {
		readonly checksum: string;
		readonly ref: string;
		/** Of the commit that an annotated tag stands for; else empty. */
		readonly commitChecksum: string;
		readonly commitObject?: Uint8Array;
		readonly tagObject?: Uint8Array;
	};
	readonly http?: {
		readonly digest: Digest;
		readonly filename: string;
		/** Seconds since 1970. */
		readonly lastModified: number | undefined;
		readonly checksum?: { readonly digest: string; readonly suffix: Uint8Array };
	};
}

export interface SourceOptions {
	readonly signal: AbortSignal;
	readonly progress: ProgressSink;
	readonly vertex: Digest;
}

/** What an image name stands for, without its layers. */
export interface ResolvedImage {
	/** The name, normalised, with the digest it was resolved to. */
	readonly ref: string;
	/** Digest of the manifest or index that the name points to. */
	readonly digest: Digest;
	/** The image config document of the wanted platform. */
	readonly config: Uint8Array;
}

export type ResolveMode = "default" | "pull" | "local";

/** Resolves image names and configs; results are shared by all that ask at the same time, and kept by digest. */
export interface ImageResolver {
	resolve(
		request: {
			readonly ref: string;
			readonly platform: Platform | undefined;
			readonly mode: ResolveMode;
			readonly sessions: () => readonly Session[];
			/** For `oci-layout`: the client's content store. */
			readonly store?: { readonly sessionId: string | undefined; readonly storeId: string };
		},
		options: { readonly signal: AbortSignal; readonly progress?: ProgressSink; readonly vertex?: Digest },
	): Promise<ResolvedImage>;
}
