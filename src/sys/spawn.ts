import { constants as fsConstants } from "node:fs";
import { Socket } from "node:net";
import { SlipwayError, toError } from "../errors/errors.ts";
import { cFunction, check, closeDescriptor, cPath, errnoNumber, hasFunction, sysError } from "./ffi.ts";
import { findProgram as findInPath } from "./find-program.ts";
import { whenEnded } from "./reap.ts";
import type { ChildProcess, ExitStatus, SpawnOptions, Stdio } from "./sys.ts";

type Bytes = Uint8Array;

const pipe2 = cFunction<[Int32Array, number]>("pipe2", "int", ["void *", "int"]);
const fcntl = cFunction<[number, number, number]>("fcntl", "int", ["int", "int", "long"]);
const actionsInit = cFunction<[Bytes]>("posix_spawn_file_actions_init", "int", ["void *"]);
const actionsDestroy = cFunction<[Bytes]>("posix_spawn_file_actions_destroy", "int", ["void *"]);
const addDup2 = cFunction<[Bytes, number, number]>("posix_spawn_file_actions_adddup2", "int", [
	"void *",
	"int",
	"int",
]);
const addOpen = cFunction<[Bytes, number, string, number, number]>(
	"posix_spawn_file_actions_addopen",
	"int",
	["void *", "int", "const char *", "int", "uint"],
);
const addChdir = cFunction<[Bytes, string | Uint8Array]>("posix_spawn_file_actions_addchdir_np", "int", [
	"void *",
	"const char *",
]);
const addCloseFrom = cFunction<[Bytes, number]>("posix_spawn_file_actions_addclosefrom_np", "int", [
	"void *",
	"int",
]);
const attributesInit = cFunction<[Bytes]>("posix_spawnattr_init", "int", ["void *"]);
const attributesDestroy = cFunction<[Bytes]>("posix_spawnattr_destroy", "int", ["void *"]);
const setFlags = cFunction<[Bytes, number]>("posix_spawnattr_setflags", "int", ["void *", "int"]);
const setDefaultSignals = cFunction<[Bytes, Bytes]>("posix_spawnattr_setsigdefault", "int", [
	"void *",
	"void *",
]);
const setSignalMask = cFunction<[Bytes, Bytes]>("posix_spawnattr_setsigmask", "int", ["void *", "void *"]);
const posixSpawn = cFunction<[Int32Array, string, Bytes, Bytes, (string | null)[], (string | null)[]]>(
	"posix_spawn",
	"int",
	["void *", "const char *", "void *", "void *", "const char **", "const char **"],
);

/** Larger than the structures of glibc (80 and 336 bytes) and musl, which have no size that could be asked for. */
const actionsBytes = 512;
const attributesBytes = 1024;
/** `sigset_t` of both libraries. */
const signalSetBytes = 128;

const SETPGROUP = 0x02;
const SETSIGDEF = 0x04;
const SETSIGMASK = 0x08;
const SETSID = 0x80;
const F_DUPFD_CLOEXEC = 1030;

let closeFrom: boolean | undefined;

/**
 * Starts a program by posix_spawn, which shares this process's memory until the program is loaded: 0.7 ms whatever the size of
 * this process, where fork copies page tables for up to a quarter of a second. Signals are back at their
 * defaults in the child. A program that cannot be run throws here: `spawn crun: ENOENT: no such file or directory`.
 */
export function spawn(options: SpawnOptions): ChildProcess {
	const [program] = options.argv;
	for (const text of [...options.argv, ...Object.entries(options.env).flat()]) {
		cPath(text);
	}
	using descriptors = new Descriptors();
	const stdio = [options.stdin ?? "null", options.stdout ?? "pipe", options.stderr ?? "pipe"] as const;
	const actions = new Uint8Array(actionsBytes);
	const attributes = new Uint8Array(attributesBytes);
	const pid = new Int32Array(1);
	const ours: (number | undefined)[] = [];
	const path = findProgram(program, options.env["PATH"]);

	done(actionsInit(actions), "posix_spawn_file_actions_init");
	done(attributesInit(attributes), "posix_spawnattr_init");
	try {
		const first = 3 + (options.extraFds?.length ?? 0);
		const sources = [
			...stdio.map((each, at) => descriptors.childEnd(each, at, first, ours)),
			...(options.extraFds ?? []).map((fd) => descriptors.above(fd, first)),
		];
		for (const [target, source] of sources.entries()) {
			if (typeof source === "number") {
				done(addDup2(actions, source, target), "posix_spawn_file_actions_adddup2");
			} else {
				done(addOpen(actions, target, source.path, source.flags, 0), "posix_spawn_file_actions_addopen");
			}
		}
		closeFrom ??= hasFunction("posix_spawn_file_actions_addclosefrom_np");
		if (closeFrom) {
			done(addCloseFrom(actions, first), "posix_spawn_file_actions_addclosefrom_np");
		}
		if (options.cwd !== undefined) {
			done(addChdir(actions, cPath(options.cwd)), "posix_spawn_file_actions_addchdir_np");
		}
		const group = options.group ?? "same";
		done(
			setDefaultSignals(attributes, new Uint8Array(signalSetBytes).fill(0xff)),
			"posix_spawnattr_setsigdefault",
		);
		done(setSignalMask(attributes, new Uint8Array(signalSetBytes)), "posix_spawnattr_setsigmask");
		done(
			setFlags(
				attributes,
				SETSIGDEF | SETSIGMASK | (group === "own" ? SETPGROUP : 0) | (group === "session" ? SETSID : 0),
			),
			"posix_spawnattr_setflags",
		);
		const failed = posixSpawn(
			pid,
			path,
			actions,
			attributes,
			[...options.argv, null],
			[...Object.entries(options.env).map(([name, value]) => `${name}=${value}`), null],
		);
		if (failed !== 0) {
			const where = options.cwd === undefined ? "" : ` in ${options.cwd}`;
			throw sysError(`spawn ${program}${where}`, failed);
		}
	} finally {
		actionsDestroy(actions);
		attributesDestroy(attributes);
	}
	descriptors.keep(ours);
	return new Child(pid[0] ?? 0, ours, options);
}

class Child implements ChildProcess {
	readonly pid: number;
	readonly stdin: Socket | undefined;
	readonly stdout: Socket | undefined;
	readonly stderr: Socket | undefined;
	readonly exited: Promise<ExitStatus>;
	readonly #group: boolean;
	#running = true;

	constructor(pid: number, ours: readonly (number | undefined)[], options: SpawnOptions) {
		this.pid = pid;
		this.#group = (options.group ?? "same") !== "same";
		const [input, output, errors] = ours;
		this.stdin = input === undefined ? undefined : new Socket({ fd: input, readable: false, writable: true });
		this.stdout =
			output === undefined ? undefined : new Socket({ fd: output, readable: true, writable: false });
		this.stderr =
			errors === undefined ? undefined : new Socket({ fd: errors, readable: true, writable: false });
		this.exited = new Promise((resolve) => {
			whenEnded(pid, (status) => {
				this.#running = false;
				resolve(status);
			});
		});
	}

	kill(signal: NodeJS.Signals, options: { readonly group?: boolean } = {}): boolean {
		const group = options.group === true;
		if (group && !this.#group) {
			throw new SlipwayError("invalid-argument", `process ${this.pid} has no process group of its own`);
		}
		// A group may outlive its leader; a single process that was reaped has lost its number to somebody else.
		if (!this.#running && !group) {
			return false;
		}
		return killProcess(group ? -this.pid : this.pid, signal);
	}
}

/** Signals a process, or a process group by its negative number. False if there is none. */
export function killProcess(pid: number, signal: NodeJS.Signals): boolean {
	try {
		process.kill(pid, signal);
		return true;
	} catch (thrown) {
		if ((thrown as NodeJS.ErrnoException).code === "ESRCH") {
			return false;
		}
		throw toError(thrown);
	}
}

/** Descriptors made for one spawn. Disposal closes all but those that were kept. */
class Descriptors implements Disposable {
	readonly #open = new Set<number>();

	/** What becomes the child's descriptor `at`. Our end of a pipe goes into `ours`. */
	childEnd(
		stdio: Stdio,
		at: number,
		lowest: number,
		ours: (number | undefined)[],
	): number | { readonly path: string; readonly flags: number } {
		ours[at] = undefined;
		if (typeof stdio === "object") {
			return stdio;
		}
		if (stdio === "null") {
			return { path: "/dev/null", flags: at === 0 ? fsConstants.O_RDONLY : fsConstants.O_WRONLY };
		}
		if (stdio === "inherit") {
			return this.above(at, lowest);
		}
		if (typeof stdio === "number") {
			return this.above(stdio, lowest);
		}
		const ends = new Int32Array(2);
		check(pipe2(ends, 0o2000000), () => "pipe2");
		const [read = -1, write = -1] = ends;
		this.#open.add(read).add(write);
		ours[at] = at === 0 ? write : read;
		return this.above(at === 0 ? read : write, lowest);
	}

	/** The descriptor, or a copy with a number that no dup2 in the child overwrites before it is used. */
	above(fd: number, lowest: number): number {
		if (fd >= lowest) {
			return fd;
		}
		const copy = check(fcntl(fd, F_DUPFD_CLOEXEC, lowest), () => `duplicate descriptor ${fd}`);
		this.#open.add(copy);
		return copy;
	}

	keep(fds: readonly (number | undefined)[]): void {
		for (const fd of fds) {
			if (fd !== undefined) {
				this.#open.delete(fd);
			}
		}
	}

	[Symbol.dispose](): void {
		for (const fd of this.#open) {
			closeDescriptor(fd);
		}
		this.#open.clear();
	}
}

/** `execvp`'s search, in the child's PATH instead of ours. A program that is nowhere is left to posix_spawn to refuse. */
function findProgram(program: string, path: string | undefined): string {
	if (program.includes("/")) {
		return program;
	}
	const found = findInPath(program, path ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	if (found === undefined) {
		throw sysError(`spawn ${program}`, errnoNumber.ENOENT);
	}
	return found;
}

/** These functions answer with an error number and leave errno alone. */
function done(result: number, what: string): void {
	if (result !== 0) {
		throw sysError(what, result);
	}
}
