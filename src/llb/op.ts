import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";

/**
 * An operation of the build graph as values: what `pb.Op` says, checked. Indexes that the wire writes as -1 are
 * undefined here; enums are words; defaults are filled in.
 */
export type Op = ExecOp | SourceOp | FileOp | MergeOp | DiffOp | PassthroughOp | BuildOp;

interface OpBase {
	readonly inputs: readonly Input[];
	/** Set on exec, on images and OCI layouts; absent where the result does not depend on it. */
	readonly platform?: Platform;
	/** Worker filters in containerd's syntax. */
	readonly filters: readonly string[];
}

/** An output of another op. */
export interface Input {
	readonly digest: Digest;
	readonly index: number;
}

/** Runs one process. The mount at `/` is its root; outputs are the mounts that have an `output` number. */
export interface ExecOp extends OpBase {
	readonly kind: "exec";
	readonly meta: ExecMeta;
	readonly mounts: readonly Mount[];
	readonly network: NetworkMode;
	readonly security: SecurityMode;
	readonly secretEnv: readonly SecretEnv[];
	/** Container Device Interface. */
	readonly devices: readonly Device[];
}

/** `sandbox` is a network of the worker's choice. */
export type NetworkMode = "sandbox" | "host" | "none";
export type SecurityMode = "sandbox" | "insecure";

export interface ExecMeta {
	readonly args: readonly string[];
	/** `KEY=value`, in the order in which the process gets them. */
	readonly env: readonly string[];
	readonly cwd: string;
	/** `user[:group]`, names or numbers; empty is root. */
	readonly user: string;
	/** Environment that is no part of the cache key. */
	readonly proxyEnv?: ProxyEnv;
	readonly extraHosts: readonly ExtraHost[];
	readonly hostname: string;
	readonly ulimits: readonly Ulimit[];
	readonly cgroupParent: string;
	/** Also parents of mount points that the runtime made are removed from the result when they are empty. */
	readonly removeMountStubsRecursive: boolean;
	/** Exit codes that mean success; empty: only 0. */
	readonly validExitCodes: readonly number[];
}

export interface ProxyEnv {
	readonly httpProxy: string;
	readonly httpsProxy: string;
	readonly ftpProxy: string;
	readonly noProxy: string;
	readonly allProxy: string;
}

export interface ExtraHost {
	readonly host: string;
	readonly ip: string;
}

/** -1 is no limit; bigint because the kernel's infinity is no safe number. */
export interface Ulimit {
	readonly name: string;
	readonly soft: bigint;
	readonly hard: bigint;
}

export interface SecretEnv {
	readonly id: string;
	readonly name: string;
	readonly optional: boolean;
}

export interface Device {
	readonly name: string;
	readonly optional: boolean;
}

export type Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount;

interface MountBase {
	/** Where it appears; relative to the working directory unless absolute. */
	readonly dest: string;
	/** Of the op's inputs; undefined is an empty directory. */
	readonly input?: number;
	/** The part of the input that is mounted; empty is all. */
	readonly selector: string;
	/** The number of the op's output that the mount becomes; undefined: what is written is lost. */
	readonly output?: number;
	readonly readonly: boolean;
	/** Whether the key of the op may depend on the content of the input instead of its definition. */
	readonly contentCache: ContentCache;
	readonly resultId: string;
}

export type ContentCache = "default" | "on" | "off";

export interface BindMount extends MountBase {
	readonly kind: "bind";
}

/** A directory that outlives the build; the input is its first content. An empty id is the destination. */
export interface CacheMount extends MountBase {
	readonly kind: "cache";
	readonly id: string;
	readonly sharing: CacheSharing;
}

/** `shared`: several writers at once; `private`: a new one if in use; `locked`: one writer after the other. */
export type CacheSharing = "shared" | "private" | "locked";

export interface TmpfsMount extends MountBase {
	readonly kind: "tmpfs";
	/** Bytes; 0 is the kernel's default. */
	readonly size: number;
}

export interface SecretMount extends MountBase {
	readonly kind: "secret";
	readonly id: string;
	readonly uid: number;
	readonly gid: number;
	readonly mode: number;
	readonly optional: boolean;
}

export interface SshMount extends MountBase {
	readonly kind: "ssh";
	readonly id: string;
	readonly uid: number;
	readonly gid: number;
	readonly mode: number;
	readonly optional: boolean;
}

/** Files from outside. `identifier` is `scheme://rest`; attributes are named in `sources.ts`. */
export interface SourceOp extends OpBase {
	readonly kind: "source";
	readonly identifier: string;
	readonly attrs: ReadonlyMap<string, string>;
}

/**
 * Changes to a file system, one after the other. Indexes in actions number first the op's inputs, then the results of
 * its actions; an undefined one is an empty file system.
 */
export interface FileOp extends OpBase {
	readonly kind: "file";
	readonly actions: readonly FileAction[];
}

export type FileAction = CopyAction | MkfileAction | MkdirAction | RemoveAction | SymlinkAction;

interface FileActionBase {
	/** What is changed. */
	readonly input?: number;
	/** What is copied from. */
	readonly secondaryInput?: number;
	/** The number of the op's output that the action's result becomes. */
	readonly output?: number;
}

export interface CopyAction extends FileActionBase {
	readonly kind: "copy";
	readonly src: string;
	/** A trailing slash means into the directory. */
	readonly dest: string;
	readonly owner?: Owner;
	/** Permission bits for all that is copied; undefined keeps them. */
	readonly mode?: number;
	/** As chmod reads it (`u+x,go-w`), in place of `mode`; empty: none. */
	readonly modeText: string;
	readonly followSymlink: boolean;
	/** A source directory itself is not copied, only what is in it. */
	readonly dirCopyContents: boolean;
	/** Tar archives are unpacked, as Dockerfile's ADD does. */
	readonly attemptUnpack: boolean;
	readonly createDestPath: boolean;
	readonly allowWildcard: boolean;
	readonly allowEmptyWildcard: boolean;
	/** Nanoseconds since the epoch; undefined keeps the times. */
	readonly createdNs?: bigint;
	readonly includePatterns: readonly string[];
	readonly excludePatterns: readonly string[];
	/** What must be among the included ones. */
	readonly requiredPaths: readonly string[];
	/** A destination of another type is replaced; otherwise it is an error. */
	readonly alwaysReplaceExistingDestPaths: boolean;
}

export interface MkfileAction extends FileActionBase {
	readonly kind: "mkfile";
	readonly path: string;
	readonly mode: number;
	readonly data: Uint8Array;
	readonly owner?: Owner;
	readonly createdNs?: bigint;
}

export interface MkdirAction extends FileActionBase {
	readonly kind: "mkdir";
	readonly path: string;
	readonly mode: number;
	readonly makeParents: boolean;
	readonly owner?: Owner;
	readonly createdNs?: bigint;
}

export interface RemoveAction extends FileActionBase {
	readonly kind: "rm";
	readonly path: string;
	readonly allowNotFound: boolean;
	readonly allowWildcard: boolean;
}

export interface SymlinkAction extends FileActionBase {
	readonly kind: "symlink";
	/** What the link says. */
	readonly oldPath: string;
	/** Where the link is. */
	readonly newPath: string;
	readonly owner?: Owner;
	readonly createdNs?: bigint;
}

export interface Owner {
	readonly user?: UserRef;
	readonly group?: UserRef;
}

/** A name is looked up in /etc/passwd or /etc/group of the input; without one there is nothing to look in. */
export type UserRef =
	| { readonly kind: "id"; readonly id: number }
	| { readonly kind: "name"; readonly name: string; readonly input?: number };

/** Layers on top of each other, lowest first; numbers of inputs. */
export interface MergeOp extends OpBase {
	readonly kind: "merge";
	readonly layers: readonly number[];
}

/** What leads from `lower` to `upper`; undefined is scratch. */
export interface DiffOp extends OpBase {
	readonly kind: "diff";
	readonly lower?: number;
	readonly upper?: number;
}

/** Hands inputs on: output i is input `outputs[i]`. The other inputs must only succeed. */
export interface PassthroughOp extends OpBase {
	readonly kind: "passthrough";
	readonly id: string;
	readonly outputs: readonly number[];
}

/** A definition that lies as a file in an input, built in place. `builder` undefined is the LLB builder. */
export interface BuildOp extends OpBase {
	readonly kind: "build";
	readonly builder?: number;
	/** Numbers of inputs by name. */
	readonly builderInputs: ReadonlyMap<string, number>;
	readonly attrs: ReadonlyMap<string, string>;
}

/** The input of a build op that holds the definition, and the default name of the file in it. */
export const buildDefinitionInput = "buildkit.llb.definition";
/** Attribute of a build op: the file's name. */
export const buildFilenameAttr = "llbbuild.filename";
