import type { ReadOptions } from "../content/content.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { Reference } from "../oci/reference.ts";
import type { RegistryAuth } from "./auth.ts";

/**
 * A client of registries: the OCI distribution spec, and Docker's token authentication. One client serves all registries
 * and all builds, so that connections and limits are shared; whose logins are used is said per repository.
 *
 * What makes sense to try again is tried again with growing pauses: 408, 429 (after `Retry-After`), 5xx, time-outs, broken
 * connections, and a blob is resumed where it broke. What fails in the end says host, repository and what to do.
 *
 * A registry is not trusted: manifests are verified against their digest, sizes are bounded before the first byte,
 * redirects and logins are counted, and a login is sent to the host it is for and to the token service which that host
 * names, never to where either of them redirects.
 */
export interface RegistryClient extends AsyncDisposable {
	repository(name: Reference, options: RepositoryOptions): Repository;
}

export interface RepositoryOptions {
	readonly auth: RegistryAuth;
	/** Accept any certificate, and plain http where the host does not speak TLS; in place of what the configuration says. */
	readonly insecure?: boolean;
}

/** One repository at its registry, with that registry's mirrors for reading. */
export interface Repository extends RepositoryReader {
	/** Sends a blob unless it is there. `open` is called again from the start if the transfer broke. */
	pushBlob(
		descriptor: Pick<Descriptor, "digest" | "size">,
		open: () => AsyncIterable<Uint8Array>,
		options: PushBlobOptions,
	): Promise<PushedBlob>;
	/** Sends a manifest or index under its digest, and under each tag. */
	pushManifest(
		manifest: { readonly bytes: Uint8Array; readonly mediaType: string },
		tags: readonly string[],
		options: { readonly signal: AbortSignal },
	): Promise<Descriptor>;
}

export interface RepositoryReader {
	/**
	 * What the tag or digest stands for now. Throws `not-found` with BuildKit's `<ref>: not found`. The manifest's bytes are
	 * given where the registry had to be asked for them.
	 */
	resolve(
		target: string,
		options: {
			readonly signal: AbortSignal;
			/** The caller will want the bytes: they are asked for at once. Default false. */
			readonly withBytes?: boolean;
		},
	): Promise<{ readonly descriptor: Descriptor; readonly bytes?: Uint8Array }>;
	/** A manifest or index by digest, verified. */
	manifest(
		digest: Digest,
		options: { readonly signal: AbortSignal },
	): Promise<{ readonly descriptor: Descriptor; readonly bytes: Uint8Array }>;
	/**
	 * The bytes of a blob; exactly as many as its size says, or an error. The digest is left to the reader, who hashes
	 * what he writes or unpacks anyway. While it is read it holds one of the registry's few connections: a reader
	 * must not wait for another blob of the same registry before he goes on.
	 */
	blob(descriptor: Pick<Descriptor, "digest" | "size">, options: ReadOptions): AsyncIterable<Uint8Array>;
	/** Throws `not-found` if none of the servers has it. */
	blobSize(digest: Digest, options: { readonly signal: AbortSignal }): Promise<number>;
	hasBlob(digest: Digest, options: { readonly signal: AbortSignal }): Promise<boolean>;
}

export interface PushBlobOptions {
	readonly signal: AbortSignal;
	/** Paths of repositories of the same registry that may have the blob already; tried in order, a few at most. */
	readonly mountFrom?: readonly string[];
	/** Send in PATCH requests of this many bytes instead of one PUT, for registries that limit a request's size. */
	readonly chunkBytes?: number;
	/** Bytes handed over so far; falls back when a transfer starts again. */
	readonly onProgress?: (bytes: number) => void;
}

export interface PushedBlob {
	readonly outcome: "exists" | "mounted" | "uploaded";
	/** The repository it was mounted from. */
	readonly mountedFrom?: string;
}

/** What is configured for one host, as in `[registry."host"]` of buildkitd.toml. Absent is the default. */
export interface RegistryHostConfig {
	/** `host[:port][/path]`, asked in order before the host itself; for reading only. */
	readonly mirrors?: readonly string[];
	/** Plain http. Default: only for this machine's own addresses. */
	readonly http?: boolean;
	/** Accept any certificate; together with `http`, plain http where the host does not speak TLS. */
	readonly insecure?: boolean;
	/** PEM certificates that are trusted beside the system's. */
	readonly ca?: readonly string[];
	/** PEM client certificates with their keys. */
	readonly keyPairs?: readonly { readonly key: string; readonly certificate: string }[];
}

export interface RegistryClientOptions {
	readonly hosts?: Readonly<Record<string, RegistryHostConfig>>;
	readonly userAgent?: string;
	/** As the environment of the builder has them. */
	readonly proxy?: { readonly http?: string; readonly https?: string; readonly none?: string };
	/**
	 * Transfers at the same time per registry; manifests have one more. As many uploads besides may be asked for or stored meanwhile,
	 * without bytes under way. Default 4.
	 */
	readonly maxConcurrency?: number;
	readonly retry?: Partial<RetryPolicy>;
	readonly timeouts?: Partial<Timeouts>;
}

export interface RetryPolicy {
	/** Including the first. */
	readonly attempts: number;
	/** Doubled each time; a random part of up to half of it is taken off. */
	readonly delayMs: number;
	/** Also the longest that a `Retry-After` is obeyed. */
	readonly maxDelayMs: number;
}

export const defaultRetry: RetryPolicy = { attempts: 5, delayMs: 500, maxDelayMs: 30_000 };

export interface Timeouts {
	readonly connectMs: number;
	/** Until the first byte of an answer to a read. */
	readonly answerMs: number;
	/** The same for a write: a registry may hash a large upload before it answers. */
	readonly commitMs: number;
	/** Without a byte while a body is read. */
	readonly stallMs: number;
}

export const defaultTimeouts: Timeouts = {
	connectMs: 30_000,
	answerMs: 60_000,
	commitMs: 300_000,
	stallMs: 60_000,
};
