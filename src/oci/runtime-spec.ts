/**
 * The container configuration that an OCI runtime reads from `config.json`: OCI runtime spec 1.0.2, config.md and
 * config-linux.md, as far as a build's executor uses it. Versions above 1.0.2 are refused by older crun.
 */
export interface RuntimeSpec {
	readonly ociVersion: "1.0.2";
	readonly process: RuntimeProcess;
	readonly root: RuntimeRoot;
	readonly hostname?: string;
	readonly mounts?: readonly RuntimeMount[];
	readonly hooks?: RuntimeHooks;
	readonly annotations?: Readonly<Record<string, string>>;
	readonly linux: RuntimeLinux;
}

export interface RuntimeProcess {
	readonly terminal?: boolean;
	readonly consoleSize?: { readonly height: number; readonly width: number };
	readonly user: RuntimeUser;
	readonly args: readonly string[];
	readonly env?: readonly string[];
	/** Absolute path in the container. */
	readonly cwd: string;
	readonly capabilities?: RuntimeCapabilities;
	readonly rlimits?: readonly RuntimeRlimit[];
	readonly noNewPrivileges?: boolean;
	readonly apparmorProfile?: string;
	readonly selinuxLabel?: string;
	readonly oomScoreAdj?: number;
}

export interface RuntimeUser {
	readonly uid: number;
	readonly gid: number;
	/** Mode bits, as a decimal number in JSON. */
	readonly umask?: number;
	readonly additionalGids?: readonly number[];
}

/** Names with the prefix: `CAP_CHOWN`. */
export interface RuntimeCapabilities {
	readonly bounding?: readonly string[];
	readonly effective?: readonly string[];
	readonly inheritable?: readonly string[];
	readonly permitted?: readonly string[];
	readonly ambient?: readonly string[];
}

export interface RuntimeRlimit {
	/** Name with the prefix: `RLIMIT_NOFILE`. */
	readonly type: string;
	/** Unsigned 64 bits; all ones is no limit. */
	readonly hard: bigint;
	readonly soft: bigint;
}

export interface RuntimeRoot {
	/** Absolute, or relative to the bundle. */
	readonly path: string;
	readonly readonly?: boolean;
}

export interface RuntimeMount {
	readonly destination: string;
	/** A file system type, or `bind`. */
	readonly type?: string;
	readonly source?: string;
	/** Options of mount(8): `rbind`, `ro`, `nosuid`, `size=64m`. */
	readonly options?: readonly string[];
	/** For an idmapped mount. */
	readonly uidMappings?: readonly RuntimeIdMapping[];
	readonly gidMappings?: readonly RuntimeIdMapping[];
}

export interface RuntimeHooks {
	readonly prestart?: readonly RuntimeHook[];
	readonly createRuntime?: readonly RuntimeHook[];
	readonly createContainer?: readonly RuntimeHook[];
	readonly startContainer?: readonly RuntimeHook[];
	readonly poststart?: readonly RuntimeHook[];
	readonly poststop?: readonly RuntimeHook[];
}

export interface RuntimeHook {
	readonly path: string;
	readonly args?: readonly string[];
	readonly env?: readonly string[];
	/** Seconds. */
	readonly timeout?: number;
}

export interface RuntimeLinux {
	readonly uidMappings?: readonly RuntimeIdMapping[];
	readonly gidMappings?: readonly RuntimeIdMapping[];
	readonly sysctl?: Readonly<Record<string, string>>;
	readonly resources?: RuntimeResources;
	/** Absolute: from the cgroup mount; relative: where the runtime likes. */
	readonly cgroupsPath?: string;
	readonly namespaces?: readonly RuntimeNamespace[];
	readonly devices?: readonly RuntimeDevice[];
	readonly seccomp?: RuntimeSeccomp;
	readonly rootfsPropagation?:
		| "private"
		| "rprivate"
		| "slave"
		| "rslave"
		| "shared"
		| "rshared"
		| "unbindable";
	/** Paths hidden from the container. */
	readonly maskedPaths?: readonly string[];
	readonly readonlyPaths?: readonly string[];
	readonly mountLabel?: string;
}

export interface RuntimeIdMapping {
	readonly containerID: number;
	readonly hostID: number;
	readonly size: number;
}

export interface RuntimeNamespace {
	readonly type: "pid" | "network" | "mount" | "ipc" | "uts" | "user" | "cgroup";
	/** Joins this namespace instead of making one. */
	readonly path?: string;
}

export interface RuntimeDevice {
	readonly path: string;
	/** Block, character, character unbuffered, FIFO. */
	readonly type: "b" | "c" | "u" | "p";
	readonly major?: number;
	readonly minor?: number;
	/** Mode bits, as a decimal number in JSON. */
	readonly fileMode?: number;
	readonly uid?: number;
	readonly gid?: number;
}

export interface RuntimeDeviceRule {
	readonly allow: boolean;
	/** Default: all. */
	readonly type?: "a" | "b" | "c";
	/** Absent: all. */
	readonly major?: number;
	readonly minor?: number;
	/** Letters of `rwm`. */
	readonly access?: string;
}

export interface RuntimeResources {
	readonly devices?: readonly RuntimeDeviceRule[];
	readonly memory?: {
		/** Bytes; -1 for no limit. */
		readonly limit?: number;
		readonly reservation?: number;
		/** Memory and swap together, bytes; -1 for no limit. */
		readonly swap?: number;
		readonly swappiness?: number;
		readonly disableOOMKiller?: boolean;
	};
	readonly cpu?: {
		readonly shares?: number;
		/** Microseconds per period. */
		readonly quota?: number;
		readonly period?: number;
		/** Lists of CPUs and memory nodes: `0-3,7`. */
		readonly cpus?: string;
		readonly mems?: string;
	};
	readonly pids?: { readonly limit: number };
	/** Keys and values of cgroup v2 files. */
	readonly unified?: Readonly<Record<string, string>>;
}

export type RuntimeSeccompAction =
	| "SCMP_ACT_KILL"
	| "SCMP_ACT_KILL_PROCESS"
	| "SCMP_ACT_KILL_THREAD"
	| "SCMP_ACT_TRAP"
	| "SCMP_ACT_ERRNO"
	| "SCMP_ACT_TRACE"
	| "SCMP_ACT_ALLOW"
	| "SCMP_ACT_LOG"
	| "SCMP_ACT_NOTIFY";

export type RuntimeSeccompOperator =
	| "SCMP_CMP_NE"
	| "SCMP_CMP_LT"
	| "SCMP_CMP_LE"
	| "SCMP_CMP_EQ"
	| "SCMP_CMP_GE"
	| "SCMP_CMP_GT"
	| "SCMP_CMP_MASKED_EQ";

export interface RuntimeSeccomp {
	readonly defaultAction: RuntimeSeccompAction;
	readonly defaultErrnoRet?: number;
	/** `SCMP_ARCH_X86_64` and the like. */
	readonly architectures?: readonly string[];
	readonly flags?: readonly string[];
	readonly syscalls?: readonly RuntimeSyscallRule[];
}

export interface RuntimeSyscallRule {
	readonly names: readonly string[];
	readonly action: RuntimeSeccompAction;
	readonly errnoRet?: number;
	readonly args?: readonly RuntimeSyscallArg[];
}

export interface RuntimeSyscallArg {
	readonly index: number;
	readonly value: number;
	/** The second operand of `SCMP_CMP_MASKED_EQ`. */
	readonly valueTwo?: number;
	readonly op: RuntimeSeccompOperator;
}
