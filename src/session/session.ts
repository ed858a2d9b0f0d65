import type { ContentReader } from "../content/content.ts";

/**
 * What a client lends the builder while its build runs: files, registry logins, secrets, ssh agents, content stores, places
 * for results. The builder sees only this port. The local form calls functions in the same process; the tunnelled form
 * asks the client over gRPC. What a client does not offer throws `not-found` naming it.
 */
export interface Session {
	readonly id: string;
	/** Stable across builds of the same client and project: names the builder's copy of a context. */
	readonly sharedKey: string;
	readonly files: SessionFiles;
	readonly auth: SessionAuth;
	readonly secrets: SessionSecrets;
	readonly ssh: SessionSsh;
	/** A content store of the client by its id, for `oci-layout://`. */
	contentStore(id: string): ContentReader | undefined;
	/** A content store of the client by its id, to put blobs into: the directory of a local cache (`local:<directory>`). */
	readonly contentWriter?: (id: string) => BlobWriter | undefined;
	/** Where the result of the exporter with this index goes. */
	output(index: number): SessionOutput | undefined;
	/** Aborted when the client is gone. */
	readonly closed: AbortSignal;
}

export interface SessionFiles {
	/**
	 * Makes `target` (an existing directory) a copy of what the filter shows of the client's directory `name`: changed and
	 * new files are written, others are removed, equal ones (same metadata) are kept. Owners become 0:0.
	 * Nothing is written outside of `target`, whatever the client sends.
	 */
	sync(request: SyncRequest, options: SyncOptions): Promise<SyncSummary>;
}

export interface SyncRequest {
	readonly name: string;
	/** `.dockerignore` syntax; empty is everything. */
	readonly includePatterns: readonly string[];
	readonly excludePatterns: readonly string[];
	/** Paths that are needed, with what they point to if they are symbolic links; wildcards allowed. Empty is everything. */
	readonly followPaths: readonly string[];
	readonly target: string;
	/**
	 * `metadata`: files of equal metadata are equal; `none`: everything is written again, unless it is known
	 * to be the very file that was copied before.
	 */
	readonly differ: "metadata" | "none";
	/**
	 * What `target` holds, from the summary of the last sync into it, so that it need not be walked. Undefined: it is walked.
	 * Opaque to the caller, who keeps it.
	 */
	readonly previous?: Uint8Array;
}

export interface SyncOptions {
	readonly signal: AbortSignal;
	/** Called now and then with what was written so far. */
	readonly onProgress?: (bytes: number) => void;
}

export interface SyncSummary {
	/** Bytes written. */
	readonly bytes: number;
	/** Paths (relative, `/`) that were written, changed or removed; their content digests are no longer known. */
	readonly changed: readonly string[];
	/** For `previous` of the next sync. */
	readonly state: Uint8Array;
}

export interface SessionAuth {
	/** Login for a registry host (`registry-1.docker.io` for Docker Hub); undefined is anonymous. */
	credentials(
		host: string,
		options: { readonly signal: AbortSignal },
	): Promise<RegistryCredentials | undefined>;
}

export type RegistryCredentials =
	| { readonly kind: "basic"; readonly username: string; readonly password: string }
	| { readonly kind: "identity-token"; readonly token: string };

export interface SessionSecrets {
	/** The secret's bytes (at most 500 KiB); undefined if the client has none of this id. */
	secret(id: string, options: { readonly signal: AbortSignal }): Promise<Uint8Array | undefined>;
}

export interface SessionSsh {
	/** Path of a socket on this host that speaks to the client's agent, until disposed; undefined if there is none of this id. */
	agent(
		id: string,
		options: SshAgentOptions,
	): Promise<(AsyncDisposable & { readonly socketPath: string }) | undefined>;
}

/** Whom the socket belongs to: the user of the step that it is mounted into. */
export interface SshAgentOptions {
	readonly uid: number;
	readonly gid: number;
	readonly mode: number;
	readonly signal: AbortSignal;
}

export type SessionOutput =
	/** A file or pipe: the builder writes one stream to it. `open` is called once, when the first byte is ready. */
	| {
			readonly kind: "stream";
			readonly open: (metadata: Readonly<Record<string, string>>) => Promise<OutputStream>;
			/** The ability of a container engine, which may have some of the layers: it is offered the image in place of `open`. */
			readonly takeImage?: (offer: ImageOffer, options: { readonly signal: AbortSignal }) => Promise<void>;
	  }
	/** A directory of this host that the builder's own threads write to. */
	| { readonly kind: "directory"; readonly path: string; readonly mode: "copy" | "delete" }
	/** A content store that takes blobs (OCI layout directory); `setRoot` names the result in its index. */
	| { readonly kind: "store"; readonly store: OutputStore };

export interface ImageOffer {
	/** Full references. */
	readonly names: readonly string[];
	/** One for each platform. */
	readonly images: readonly {
		readonly configDigest: string;
		/** Base first. */
		readonly layers: readonly { readonly digest: string; readonly diffId: string }[];
	}[];
	/** The image's archive, without the blobs of the layers that are left out. May be called again. */
	archive(leftOut: ReadonlySet<string>): AsyncIterable<Uint8Array>;
}

export interface OutputStream {
	/** A file descriptor that worker threads may write to directly (sequentially, until `close`), where there is one. */
	readonly fd: number | undefined;
	write(chunk: Uint8Array): Promise<void>;
	/** Everything was written: the result becomes visible. */
	close(): Promise<void>;
	/** The result is not wanted: nothing of it stays. */
	abort(): Promise<void>;
}

export interface BlobWriter {
	has(digest: string): Promise<boolean>;
	write(
		descriptor: { readonly digest: string; readonly size: number },
		chunks: AsyncIterable<Uint8Array>,
		options: { readonly signal: AbortSignal },
	): Promise<void>;
}

export interface OutputStore extends BlobWriter {
	/** Adds the descriptor (JSON of an OCI descriptor) to the layout's index under the names; without any under the tag, default `latest`. */
	setRoot(descriptor: string, names: readonly string[], options?: { readonly tag?: string }): Promise<void>;
}
