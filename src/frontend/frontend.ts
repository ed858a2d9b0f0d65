import type { SourceFile, SourceRange } from "../errors/errors.ts";
import type { Definition } from "../llb/llb.ts";
import type { ExtraHost, Mount, NetworkMode, SecretEnv, SecurityMode } from "../llb/op.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";

/**
 * A frontend turns what a person wrote into build graphs. It is a function of its options; all that it needs of the world
 * it asks of the bridge: it solves graphs and reads their files, resolves names, asks other frontends, runs containers. What it
 * gives back is a result as BuildKit has it: trees, which need not have been computed, and metadata that says what they are.
 */
export interface Frontend {
	/** An error is the frontend's answer too; the bridge adds to it which frontend it was. */
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

/** All that is made by it lives until the build ends. */
export interface FrontendBridge {
	/** Solves a graph. The tree is computed when somebody needs it, or now with `evaluate`. */
	solve(definition: Definition, options: SolveOptions): Promise<FrontendRef>;
	/** Asks another frontend: `dockerfile.v0`, `gateway.v0`. Throws `frontend` details with whatever it throws. */
	solveFrontend(request: SolveFrontendRequest, options: SignalOption): Promise<FrontendResult>;
	/**
	 * Shown as a step named `logName`. Throws `not-found` and the like with BuildKit's messages, but without its
	 * `failed to resolve source metadata for <ref>`, which the frontend puts in front.
	 */
	resolveImage(request: ResolveImageRequest, options: SignalOption): Promise<ResolvedImageConfig>;
	/** What a source is now, after policies: the name with its digest, the commit behind a branch, the checksum of a file. */
	resolveSource(request: ResolveSourceRequest, options: SignalOption): Promise<ResolvedSource>;
	/**
	 * When a git or http source was last changed, in seconds since 1970: the time of the commit, the Last-Modified header.
	 * Undefined if the source does not say. A bridge that can't ask has no such method.
	 */
	sourceTime?(
		source: SourceIdentity & { readonly logName: string },
		options: SignalOption,
	): Promise<number | undefined>;
	/**
	 * The key of an ssh server, as a line of known_hosts. Undefined if it can't be had, which takes a few seconds at most.
	 * A bridge that can't ask has no such method.
	 */
	hostKey?(host: string, options: SignalOption): Promise<string | undefined>;
	warn(warning: FrontendWarning): void;
	/** Prepares a container; nothing runs yet. */
	newContainer(request: NewContainerRequest, options: SignalOption): Promise<FrontendContainer>;
	/** What is left of the step that an error of `solve` is about, for a look into it. Undefined if nothing is. */
	failedStep(error: unknown): FailedStep | undefined;
	/** What the builder runs; natively first. */
	readonly platforms: readonly Platform[];
	readonly worker: WorkerIdentity;
}

export interface SignalOption {
	readonly signal: AbortSignal;
}

export interface SolveOptions extends SignalOption {
	readonly evaluate: boolean;
	/** Caches to look into, besides those of the build. */
	readonly cacheImports?: readonly FrontendCacheImport[];
	/** Applied after those of the build. */
	readonly sourcePolicies?: readonly SourcePolicy[];
}

export interface SolveFrontendRequest {
	readonly frontend: string;
	readonly options: Readonly<Record<string, string>>;
	readonly inputs: ReadonlyMap<string, Definition>;
	readonly evaluate: boolean;
}

export interface WorkerIdentity {
	readonly id: string;
	readonly labels: ReadonlyMap<string, string>;
}

/** Trees of a step that failed, as far as they are known; by number of its inputs and mounts, or actions. */
export interface FailedStep {
	/** `pb.Op` of the step. */
	readonly op: Uint8Array | undefined;
	readonly description: ReadonlyMap<string, string>;
	/** Undefined: the step's process. */
	readonly subject?: FailedPart;
	readonly inputs: readonly (FrontendRef | undefined)[];
	/** What the step's mounts were when it ended; of file actions, what the one that failed has made so far, at its number. */
	readonly mounts: readonly (FrontendRef | undefined)[];
}

/** A file action by its number, or the digest of the content of an input. */
export interface FailedPart {
	readonly kind: "action" | "content";
	readonly index: number;
}

/** Which sources a build may use, and what is taken in their place (spec/llb.md, section 9). */
export interface SourcePolicy {
	readonly rules: readonly SourcePolicyRule[];
}

export interface SourcePolicyRule {
	readonly action: "allow" | "deny" | "convert";
	readonly identifier: string;
	readonly match: "wildcard" | "exact" | "regex";
	readonly constraints: readonly SourcePolicyConstraint[];
	/** For `convert`; an empty identifier keeps the selector's. */
	readonly updates?: SourceIdentity;
}

export interface SourcePolicyConstraint {
	readonly key: string;
	readonly value: string;
	readonly condition: "equal" | "not-equal" | "matches";
}

/** A source as its op has it. */
export interface SourceIdentity {
	readonly identifier: string;
	readonly attrs: ReadonlyMap<string, string>;
}

/** The file system that a graph's output is. */
export interface FrontendRef {
	/** What makes it. */
	readonly definition: Definition;
	/** Computes it now. Rejects with the error of the step that failed. */
	evaluate(options: SignalOption): Promise<void>;
	/**
	 * Throws `not-found` naming the path. At most 16 MiB are read; with `maxBytes` only the file's beginning, whatever
	 * its size (more may be given than was asked for).
	 */
	readFile(
		path: string,
		options: { readonly signal: AbortSignal; readonly maxBytes?: number; readonly offset?: number },
	): Promise<Uint8Array>;
	/** Entries of a directory, sorted by name; of those that match the pattern, if there is one. */
	readDirectory(
		path: string,
		options: { readonly signal: AbortSignal; readonly includePattern?: string },
	): Promise<readonly FrontendEntry[]>;
	/** Links are followed, inside of the tree. */
	stat(path: string, options: SignalOption): Promise<FrontendEntry>;
}

export interface FrontendEntry {
	readonly name: string;
	readonly kind: "file" | "directory" | "symlink" | "other";
	readonly size: number;
	/** Milliseconds since the epoch. */
	readonly modifiedMs: number;
	readonly modifiedNs: bigint;
	/** `st_mode`. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly linkTarget: string;
	/** 0 but for devices. */
	readonly deviceMajor: number;
	readonly deviceMinor: number;
	readonly xattrs: ReadonlyMap<string, Uint8Array>;
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
	readonly sourcePolicies?: readonly SourcePolicy[];
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

/** In the form of BuildKit's gateway; `resultKeys` names the metadata that exporters read. */
export interface FrontendResult {
	/** The tree of a result without keys; undefined is the empty one, and that of an answer in `metadata` only. */
	readonly ref: FrontendRef | undefined;
	/** Trees by platform ID; empty for a result without keys. */
	readonly refs: ReadonlyMap<string, FrontendRef | undefined>;
	/** `result.json`, `result.txt`, `source.date.epoch/…`, `containerimage.config`, …. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
	/** By platform ID. */
	readonly attestations: ReadonlyMap<string, readonly FrontendAttestation[]>;
}

export const resultKeys = {
	/** JSON: `{"Platforms":[{"ID":"linux/amd64","Platform":{…}}]}`, which tree is for what. */
	platforms: "refs.platforms",
	/** JSON of the image config; `/<platform ID>` behind it in a result with keys. The same for the others. */
	imageConfig: "containerimage.config",
	baseImageConfig: "containerimage.base.config",
	epoch: "source.date.epoch",
} as const;

/** A statement about a result: where its predicate is, and what it is about. */
export interface FrontendAttestation {
	readonly kind: "in-toto" | "bundle";
	readonly metadata: Readonly<Record<string, Uint8Array>>;
	readonly ref: FrontendRef | undefined;
	readonly path: string;
	readonly predicateType: string;
	readonly subjects: readonly {
		readonly kind: "self" | "raw";
		readonly digests: readonly string[];
		readonly name: string;
	}[];
}

export interface FrontendCacheImport {
	/** `registry`, `local`, `gha`, …. */
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

export interface ResolveSourceRequest {
	readonly source: SourceIdentity;
	readonly platform: Platform | undefined;
	/** Default: a name made from the source. */
	readonly logName?: string;
	readonly mode: "default" | "pull" | "local";
	readonly sourcePolicies?: readonly SourcePolicy[];
	/** An image's config is not wanted. */
	readonly noConfig?: boolean;
	/** A git source's commit and tag as objects. */
	readonly gitObject?: boolean;
	/** Another checksum of an http source: of its bytes and `suffix`. */
	readonly httpChecksum?: { readonly algorithm: "sha256" | "sha384" | "sha512"; readonly suffix: Uint8Array };
}

export interface ResolvedSource {
	/** What it is after policies. */
	readonly source: SourceIdentity;
	readonly image?: { readonly digest: Digest; readonly config: Uint8Array | undefined };
	readonly git?: ResolvedGit;
	readonly http?: ResolvedHttp;
}

export interface ResolvedGit {
	readonly checksum: string;
	readonly ref: string;
	/** Of the commit that an annotated tag stands for; else empty. */
	readonly commitChecksum: string;
	readonly commitObject?: Uint8Array;
	readonly tagObject?: Uint8Array;
}

export interface ResolvedHttp {
	readonly digest: Digest;
	readonly filename: string;
	/** Seconds since 1970. */
	readonly lastModified: number | undefined;
	readonly checksum?: { readonly digest: string; readonly suffix: Uint8Array };
}

export interface NewContainerRequest {
	readonly mounts: readonly FrontendMount[];
	/** Directories with these files, by name; nobody can change them. */
	readonly directories?: readonly {
		readonly dest: string;
		readonly files: ReadonlyMap<string, Uint8Array>;
	}[];
	readonly network: NetworkMode;
	readonly platform: Platform | undefined;
	readonly extraHosts: readonly ExtraHost[];
	readonly hostname: string;
}

/** The one at `/` is the root. Trees are mounted as writable copies unless they are read-only. */
export interface FrontendMount {
	/** Its numbers of input and output say nothing. */
	readonly mount: Mount;
	/** Undefined is an empty directory. */
	readonly ref: FrontendRef | undefined;
}

/** Disposing ends its processes and gives its trees free. */
export interface FrontendContainer extends AsyncDisposable {
	/** The first process is the container's own: when it ends, all end. Resolves when it runs. */
	start(process: ContainerProcessRequest): Promise<ContainerProcess>;
	/** Files of the mount with this number in the request, as they are now. */
	mount(index: number): Promise<Pick<FrontendRef, "readFile" | "readDirectory" | "stat">>;
}

export interface ContainerProcessRequest {
	readonly args: readonly string[];
	readonly env: readonly string[];
	readonly secretEnv: readonly SecretEnv[];
	readonly cwd: string;
	readonly user: string;
	readonly security: SecurityMode;
	/** All streams are one, the terminal's. */
	readonly terminal: boolean;
	/** Undefined: nothing can be read. */
	readonly stdin: AsyncIterable<Uint8Array> | undefined;
	/** Waited for, so that a reader who is slow holds the process back. Undefined: output of that kind is dropped. */
	readonly onStdout: ((chunk: Uint8Array) => Promise<void> | undefined) | undefined;
	readonly onStderr: ((chunk: Uint8Array) => Promise<void> | undefined) | undefined;
	readonly removeMountStubsRecursive: boolean;
}

export interface ContainerProcess {
	/** Resolves with the exit code when the process has ended and its output was taken; rejects if it could not be run. */
	readonly exited: Promise<number>;
	resize(size: { readonly rows: number; readonly columns: number }): void;
	/** After the end it does nothing. */
	signal(signal: NodeJS.Signals): void;
}
