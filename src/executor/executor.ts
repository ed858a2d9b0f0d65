import type { Platform } from "../oci/platform.ts";
import type { MountSpec } from "../sys/sys.ts";

/**
 * Runs one process in a container and waits for its end. The executor owns what it makes for it (bundle, cgroup,
 * network namespace, files of /etc, the mounted root); all of it is gone when `run` returns or throws, and what a killed
 * builder left is swept by `sweep` at the next start.
 */
export interface Executor {
	/** Resolves with the status of the process, also if it is not 0. Rejects when the container could not be started. */
	run(options: RunOptions): Promise<ExitStatus>;
	/**
	 * Runs another process in a container that runs, with that container's limits. Rejects with `not-found` when there is none of
	 * this id. Aborting kills this process only; the end of the container ends it too.
	 */
	exec(options: ExecOptions): Promise<ExitStatus>;
	/** Ends and removes what an earlier, killed builder left behind in the executor's directory. */
	sweep(): Promise<void>;
}

export interface RunOptions {
	/** Unique among running containers; letters and digits. */
	readonly id: string;
	readonly root: RootMount;
	/** In the order in which they are mounted. */
	readonly mounts: readonly ContainerMount[];
	readonly process: ProcessOptions;
	readonly network: NetworkMode;
	readonly security: SecurityMode;
	/** Default `buildkitsandbox`. */
	readonly hostname?: string;
	readonly extraHosts: readonly { readonly host: string; readonly ip: string }[];
	/** -1 is no limit. */
	readonly ulimits: readonly { readonly name: string; readonly soft: bigint; readonly hard: bigint }[];
	readonly cgroupParent?: string;
	readonly resources?: Resources;
	/** What devices of the machine need that the process may use. */
	readonly devices?: readonly DeviceEdits[];
	readonly platform: Platform;
	/** Path of a user namespace to run in, one in which ids are those of the machine. */
	readonly userNamespace?: string;
	/** Stub files and directories that were made for mounts are removed afterwards, parents too if this is set. */
	readonly removeMountStubsRecursive: boolean;
	/** A promise that it gives is waited for before more is read. */
	readonly onOutput: OutputListener;
	/** Default: nothing to read and no terminal. */
	readonly io?: ProcessIo;
	/** Called once, when the process runs. */
	readonly onStarted?: (process: RunningProcess) => void;
	/** Aborting kills all processes of the container at once; `run` then rejects with `canceled`. */
	readonly signal: AbortSignal;
}

export interface ExecOptions {
	/** Of the container. */
	readonly id: string;
	readonly process: ProcessOptions;
	readonly security: SecurityMode;
	readonly onOutput: OutputListener;
	readonly io?: ProcessIo;
	readonly onStarted?: (process: RunningProcess) => void;
	readonly signal: AbortSignal;
}

export type OutputListener = (stream: 1 | 2, chunk: Uint8Array) => Promise<void> | undefined | void;

export interface ProcessIo {
	/** Read until its end, or until the process has ended. */
	readonly stdin?: AsyncIterable<Uint8Array>;
	/** The process has a terminal for all three streams; its output is stream 1. */
	readonly terminal?: boolean;
}

export interface RunningProcess {
	/** Of its terminal; without one it does nothing. */
	resize(size: { readonly rows: number; readonly columns: number }): void;
	/** After the end it does nothing. */
	signal(signal: NodeJS.Signals): void;
}

/** Changes of a container that give it a device, in the words of the Container Device Interface. */
export interface DeviceEdits {
	/** `NAME=value`; takes the place of one of the same name. */
	readonly env: readonly string[];
	readonly deviceNodes: readonly DeviceNode[];
	readonly mounts: readonly DeviceMount[];
	readonly hooks: readonly DeviceHook[];
	readonly additionalGids: readonly number[];
}

/** What is not set is that of the device at `hostPath`; owners are the process's user. */
export interface DeviceNode {
	readonly path: string;
	readonly hostPath: string;
	readonly type?: "b" | "c" | "u" | "p";
	readonly major?: number;
	readonly minor?: number;
	/** Mode bits. */
	readonly fileMode?: number;
	/** Letters of `rwm`. */
	readonly permissions: string;
	readonly uid?: number;
	readonly gid?: number;
}

export interface DeviceMount {
	readonly hostPath: string;
	readonly containerPath: string;
	/** Empty is a bind mount. */
	readonly type: string;
	readonly options: readonly string[];
}

export interface DeviceHook {
	readonly name:
		| "prestart"
		| "createRuntime"
		| "createContainer"
		| "startContainer"
		| "poststart"
		| "poststop";
	readonly path: string;
	readonly args: readonly string[];
	readonly env: readonly string[];
	/** Seconds. */
	readonly timeout?: number;
}

export interface RootMount {
	/** How to mount the root file system. */
	readonly mounts: readonly MountSpec[];
	readonly readonly: boolean;
}

export interface ContainerMount {
	/** Absolute path in the container. */
	readonly target: string;
	readonly readonly: boolean;
	readonly source: ContainerMountSource;
}

export type ContainerMountSource =
	/** A tree, mounted by these; `selector` is a path in it (resolved inside of the tree, never out of it). */
	| { readonly kind: "tree"; readonly mounts: readonly MountSpec[]; readonly selector: string }
	| { readonly kind: "tmpfs"; readonly sizeBytes?: number }
	/** A file or socket of the host. */
	| { readonly kind: "host"; readonly path: string; readonly options: readonly string[] };

export interface ProcessOptions {
	readonly args: readonly string[];
	readonly env: readonly string[];
	readonly cwd: string;
	/** `user[:group]`, names or ids, looked up in the container's /etc/passwd and /etc/group; empty is root. */
	readonly user: string;
}

/** `sandbox`: a network of its own with a way out where the machine allows it; `none`: loopback only. */
export type NetworkMode = "sandbox" | "host" | "none";
export type SecurityMode = "sandbox" | "insecure";

/** Bytes, shares and microseconds as in the OCI runtime spec. */
export interface Resources {
	readonly memory?: number;
	readonly memorySwap?: number;
	readonly cpuShares?: number;
	readonly cpuPeriod?: number;
	readonly cpuQuota?: number;
	readonly cpusetCpus?: string;
	readonly cpusetMems?: string;
}

export interface ExitStatus {
	/** 128 + signal when the process was killed by one. */
	readonly code: number;
	/** True if the kernel killed it for want of memory. */
	readonly outOfMemory: boolean;
}
