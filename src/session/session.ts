import type { CheckPolicyRequest, CheckPolicyResponse } from "../api/generated/policysession.ts";
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
	/** What the client holds ready under `http://buildkit-session/<name>`; each can be read once. */
	readonly uploads?: SessionUploads;
	/** Asks the client, when the build is done, which exporters to run besides those of the request. */
	readonly exporters?: SessionExporters;
	/** Asks the client about each source of the build. */
	readonly policy?: SessionPolicy;
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

/** A regular file without attributes, as it will be in the copy. */
export interface ArrivingFile {
	/** Permissions with setuid, setgid and sticky: 12 bits. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly size: number;
}

export interface SyncOptions {
	readonly signal: AbortSignal;
	/** Called now and then with what was written so far. */
	readonly onProgress?: (bytes: number) => void;
	/**
	 * What a file's content digest begins with, in front of its data. With it, large files of a client elsewhere are hashed while they
	 * arrive.
	 */
	readonly digestHeader?: (file: ArrivingFile) => Uint8Array;
}

export interface SyncSummary {
	/** Bytes written. */
	readonly bytes: number;
	/** Paths (relative, `/`) that were written, changed or removed; their content digests are no longer known. */
	readonly changed: readonly string[];
	/** SHA-256 in hex, header included, of those of the changed files that were hashed on the way. */
	readonly digests?: ReadonlyMap<string, string>;
	/** For `previous` of the next sync. */
	readonly state: Uint8Array;
}

export interface SessionAuth {
	/** Login for a registry host (`registry-1.docker.io` for Docker Hub); undefined is anonymous. */
	credentials(
		host: string,
		options: { readonly signal: AbortSignal },
	): Promise<RegistryCredentials | undefined>;
	/** The ability of a client to get tokens itself, so that its logins stay with it. */
	readonly tokens?: SessionTokens;
}

export interface SessionTokens {
	/**
	 * Gets a token for a host that asks for one. Undefined: the client does not do that for this host, its credentials
	 * are to be used.
	 */
	fetch(request: TokenRequest, options: { readonly signal: AbortSignal }): Promise<RegistryToken | undefined>;
	/**
	 * Which login the client has for the host, without saying it: sessions of the same authority have the same. 32 bytes; undefined if
	 * the client does not get tokens.
	 */
	authority(host: string, options: { readonly signal: AbortSignal }): Promise<Uint8Array | undefined>;
	/** True if the client proves that it has the login that the authority stands for. */
	verify(host: string, authority: Uint8Array, options: { readonly signal: AbortSignal }): Promise<boolean>;
}

export interface TokenRequest {
	readonly host: string;
	readonly realm: string;
	readonly service: string;
	readonly scopes: readonly string[];
}

export interface RegistryToken {
	readonly token: string;
	readonly expiresInSeconds: number;
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
	| { readonly kind: "store"; readonly store: OutputStore }
	/** A directory of a client elsewhere. */
	| TreeOutput
	/** A client elsewhere, who alone knows which of the forms it takes: the exporter uses the one that it needs. */
	| {
			readonly kind: "remote";
			readonly stream: Extract<SessionOutput, { kind: "stream" }>;
			readonly tree: TreeOutput;
			readonly store: Extract<SessionOutput, { kind: "store" }>;
	  };

export interface TreeOutput {
	readonly kind: "tree";
	/** Sends all trees as one; `mirror` removes what none of them has. The trees stay as they are until it has ended. */
	send(trees: readonly OutputTree[], options: TreeOutputOptions): Promise<void>;
}

export interface OutputTree {
	/** The platform, for errors. */
	readonly id: string;
	/** A directory of this host; undefined is empty. */
	readonly root: string | undefined;
	/** A folder of the output, one name, that it goes into; empty is the output itself. Trees without must not have the same files. */
	readonly prefix: string;
	/** Every file has this time, in seconds since 1970. Default: its own. */
	readonly modifiedSeconds?: number;
}

export interface TreeOutputOptions {
	readonly mirror: boolean;
	readonly signal: AbortSignal;
	/** Called with the bytes that were sent so far. */
	readonly onBytes?: (total: number) => void;
}

export interface SessionUploads {
	/** `path` and `host` of the URL. Throws if the client has nothing of this name. */
	pull(
		url: { readonly path: string; readonly host: string },
		options: { readonly signal: AbortSignal },
	): AsyncIterable<Uint8Array>;
}

export interface SessionExporters {
	find(
		result: {
			readonly metadata: Readonly<Record<string, Uint8Array>>;
			readonly refs: readonly string[];
		},
		options: { readonly signal: AbortSignal },
	): Promise<readonly { readonly type: string; readonly attrs: Readonly<Record<string, string>> }[]>;
	/** Tells the client what came of them. A client that does not want to know is no error. */
	finalize(
		response: Readonly<Record<string, string>>,
		options: { readonly signal: AbortSignal },
	): Promise<void>;
}

export interface SessionPolicy {
	check(request: CheckPolicyRequest, options: { readonly signal: AbortSignal }): Promise<CheckPolicyResponse>;
}

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
