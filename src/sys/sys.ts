/**
 * The kernel. Everything that Node's own `fs`, `process` and `child_process` lack or do badly, called through FFI;
 * no other room calls the kernel by FFI. This file is the contract: the data that goes in and out. The calls are in
 *
 * - `mount.ts`      mount, bind, overlay of any number of layers, remount, propagation, unmount, the mount table
 * - `xattr.ts`      get, set, list, remove extended attributes; a symbolic link is never followed
 * - `node.ts`       device nodes, fifos, device numbers, nanosecond times, rename with exchange or no-replace, free space
 * - `copy.ts`       reflink, copy_file_range and holes: one file's bytes into another the cheapest way
 * - `unnamed-file.ts` a file that has no name until it is whole
 * - `lock.ts`       flock on a descriptor, a lock file with an owner
 * - `spawn.ts`      processes by posix_spawn, whose cost does not grow with this process's memory
 * - `namespace.ts`  unshare, setns, subreaper, user namespaces, what this process may do
 * - `terminal.ts`   a pseudo terminal and its size
 *
 * Calls are synchronous: each takes microseconds, a hop to another thread takes more. They load the FFI library on
 * first use and never at import, so that a program that makes no such call starts as fast as if the room were absent.
 *
 * Every failure is a `SlipwayError` with an `errno` detail and a message that names call and path, as in
 * `mount overlay on /x: EPERM: operation not permitted`. Paths are text in UTF-8 or the raw bytes of the name: file
 * names need not be UTF-8.
 */

/** A path as text, or as raw bytes without the closing NUL. */
export type SysPath = string | Uint8Array;

/** One mount, in the words of fstab, containerd and the OCI runtime: `{ type: "bind", source, options: ["rbind", "ro"] }`. */
export interface MountSpec {
	/** File system type. `bind` (or the option `bind` or `rbind`) mounts a directory or file that exists. */
	readonly type: string;
	readonly source: string;
	/** Flags by name (`ro`, `nosuid`, `rprivate`, …); what is no flag goes to the file system as data. */
	readonly options: readonly string[];
}

/** A line of /proc/self/mountinfo, proc(5). Octal escapes are decoded. */
export interface MountEntry {
	readonly id: number;
	readonly parent: number;
	/** `major:minor`. */
	readonly device: string;
	/** The directory in the file system that is seen at `target`. */
	readonly root: string;
	readonly target: string;
	readonly options: readonly string[];
	/** Such as `shared:1` or `master:2`; empty if private. */
	readonly propagation: readonly string[];
	readonly type: string;
	readonly source: string;
	readonly superOptions: readonly string[];
}

export interface UnmountOptions {
	/** Hide the mount now and release it when its last user is gone (MNT_DETACH). Default false: a busy mount fails. */
	readonly detach?: boolean;
}

/** A point in time since 1970; two numbers because a bigint for every file is slow. */
export interface Timestamp {
	readonly seconds: number;
	/** 0 to 999,999,999. */
	readonly nanoseconds: number;
}

/** How `renameWith` treats a target that exists. */
export type RenameMode = "exchange" | "no-replace";

/** How the bytes got into the copy: shared blocks, copied in the kernel, or through this process. */
export type CopyKind = "reflink" | "kernel" | "bytes";

/** Free space of a file system, in bytes. */
export interface Space {
	readonly total: number;
	/** Free for root. */
	readonly free: number;
	/** Free for everybody. */
	readonly available: number;
}

/** A descriptor's lock, held until disposed. Disposing twice is harmless. */
export interface FileLock extends Disposable {
	readonly path: string;
}

export type Namespace = "mount" | "user" | "pid" | "net" | "ipc" | "uts" | "cgroup";

/**
 * Where a descriptor of the child comes from: a pipe to us, nothing (/dev/null), ours of the same number, a descriptor
 * of this process (which stays open here), or a path that the child opens for itself (for a terminal).
 */
export type Stdio = "pipe" | "null" | "inherit" | number | { readonly path: string; readonly flags: number };

export interface SpawnOptions {
	/** Program and arguments. A program without a slash is looked up in the `PATH` of `env`. */
	readonly argv: readonly [string, ...string[]];
	/** The whole environment of the child; nothing is inherited. */
	readonly env: Readonly<Record<string, string>>;
	readonly cwd?: string;
	/** Default `null` for input, `pipe` for both outputs. */
	readonly stdin?: Stdio;
	readonly stdout?: Stdio;
	readonly stderr?: Stdio;
	/** Descriptors of this process that the child gets as 3, 4, … All others are closed in the child. */
	readonly extraFds?: readonly number[];
	/** `own`: leader of a new process group; `session`: of a new session (a first terminal opened becomes its own). */
	readonly group?: "same" | "own" | "session";
}

export interface ExitStatus {
	/** The exit code, or 128 plus the signal's number if a signal ended it. */
	readonly code: number;
	readonly signal?: NodeJS.Signals;
}

/**
 * A running child. It is reaped by its own process id only, so that neither Node's children nor another library's are
 * stolen, and its id is never signalled after it was reaped.
 */
export interface ChildProcess {
	readonly pid: number;
	/** Set where the option was `pipe`. Whoever asked for a pipe must read it to its end, or destroy it. */
	readonly stdin: import("node:net").Socket | undefined;
	readonly stdout: import("node:net").Socket | undefined;
	readonly stderr: import("node:net").Socket | undefined;
	/** Resolves once, after the child ended; never rejects. Output may still be in the pipes. */
	readonly exited: Promise<ExitStatus>;
	/** False if the child has ended. With `group`, signals all of its process group (option `group` must not be `same`). */
	kill(signal: NodeJS.Signals, options?: { readonly group?: boolean }): boolean;
}

/** Both ends of a pseudo terminal: the master descriptor is ours, the path is what the child opens. */
export interface Terminal extends Disposable {
	readonly fd: number;
	readonly path: string;
}

export interface TerminalSize {
	readonly rows: number;
	readonly columns: number;
}
