import { closeSync, constants, openSync, readFileSync, readlinkSync } from "node:fs";
import type { Socket } from "node:net";
import { ReadStream } from "node:tty";

import { killProcess, spawn } from "../sys/spawn.ts";
import type { ChildProcess, ExitStatus, SpawnOptions } from "../sys/sys.ts";
import { openTerminal, setTerminalSize } from "../sys/terminal.ts";
import { openConsoleSocket } from "./console-socket.ts";
import type { OutputListener, ProcessIo, RunningProcess } from "./executor.ts";

export interface ProcessOptions {
	/** The runtime's command, which ends when the process does; with the socket that it sends a terminal to. */
	readonly argv: (console: string | undefined) => SpawnOptions["argv"];
	/** Whether the runtime can do that. */
	readonly sendsTerminal: boolean;
	readonly env: SpawnOptions["env"];
	/** Where the runtime writes the number of the process. */
	readonly pidFile: string;
	readonly io: ProcessIo;
	readonly onOutput: OutputListener;
	readonly onStarted: ((process: RunningProcess) => void) | undefined;
	/** Aborting kills the process. */
	readonly signal: AbortSignal;
}

/** Runs the process with its streams. Resolves when it has ended and all its output was taken. */
export async function runProcess(options: ProcessOptions): Promise<ExitStatus> {
	options.signal.throwIfAborted();
	const process = options.io.terminal
		? await (options.sendsTerminal ? spawnForTerminal(options) : spawnInTerminal(options))
		: spawnWithPipes(options);
	const { child } = process;
	const kill = (): void => killFirst(child, options.pidFile);
	options.signal.addEventListener("abort", kill, { once: true });
	if (options.signal.aborted) {
		kill();
	}
	const input = pumpInput(options.io.stdin, process.stdin, child.exited);
	let isRunning = true;
	if (options.onStarted !== undefined) {
		const started: RunningProcess = {
			resize: (size) => isRunning && process.resize(size),
			signal: (name) => {
				const pid = isRunning ? readPid(options.pidFile) : 0;
				if (pid > 1) {
					killProcess(pid, name);
				}
			},
		};
		void tellStart(options, () => isRunning, started);
	}
	try {
		const status = await child.exited;
		isRunning = false;
		await process.output;
		return status;
	} finally {
		options.signal.removeEventListener("abort", kill);
		await input;
	}
}

type Size = Parameters<RunningProcess["resize"]>[0];

interface Spawned {
	readonly child: ChildProcess;
	readonly stdin: Socket | undefined;
	/** Resolves when all was taken. */
	readonly output: Promise<unknown>;
	resize(size: Size): void;
}

function spawnWithPipes({ argv, env, io, onOutput }: ProcessOptions): Spawned {
	const child = spawn({
		argv: argv(undefined),
		env,
		stdin: io.stdin === undefined ? "null" : "pipe",
		// A Ctrl-C at the terminal is for us: we end the container ourselves.
		group: "own",
	});
	return {
		child,
		stdin: child.stdin,
		output: Promise.all([
			pipeOutput(child.stdout, (chunk) => onOutput(1, chunk)),
			pipeOutput(child.stderr, (chunk) => onOutput(2, chunk)),
		]),
		resize: () => {},
	};
}

/** The runtime sends us the container's terminal. If it comes to an end before, what it printed is the output. */
async function spawnForTerminal({ argv, env, onOutput, signal }: ProcessOptions): Promise<Spawned> {
	using socket = await openConsoleSocket();
	const child = spawn({ argv: argv(socket.path), env, group: "own" });
	const printed = Promise.all([
		pipeOutput(child.stdout, (chunk) => onOutput(1, chunk)),
		pipeOutput(child.stderr, (chunk) => onOutput(2, chunk)),
	]);
	const { promise: aborted, resolve: abort } = Promise.withResolvers<undefined>();
	signal.addEventListener("abort", () => abort(undefined), { once: true });
	if (signal.aborted) {
		abort(undefined);
	}
	const fd = await Promise.race([socket.terminal, child.exited.then(() => undefined), aborted]);
	if (fd === undefined) {
		return { child, stdin: undefined, output: printed, resize: () => {} };
	}
	const stream = new ReadStream(fd);
	const output = pipeOutput(stream, (chunk) => onOutput(1, chunk));
	return {
		child,
		stdin: stream,
		output: Promise.all([printed, endOf(stream, output, child)]),
		resize(size) {
			if (!stream.destroyed) {
				setTerminalSize(fd, size);
			}
		},
	};
}

/** Other processes of the container may have the terminal open for longer than the one that it was made for. */
async function endOf(stream: ReadStream, output: Promise<void>, child: ChildProcess): Promise<void> {
	await child.exited;
	const left = setTimeout(() => stream.destroy(), lingerMs);
	await output;
	clearTimeout(left);
}

const lingerMs = 200;

/** Ours, which only carries bytes: the container's has its own. */
const anySize = { rows: 24, columns: 80 };

/** The runtime copies between our terminal and the container's. */
async function spawnInTerminal({ argv, env, onOutput, pidFile }: ProcessOptions): Promise<Spawned> {
	const terminal = openTerminal(anySize);
	const side = { path: terminal.path, flags: constants.O_RDWR };
	let child: ChildProcess;
	try {
		child = spawn({ argv: argv(undefined), env, stdin: side, stdout: side, stderr: side, group: "session" });
	} catch (error) {
		terminal[Symbol.dispose]();
		throw error;
	}
	// It owns the descriptor from here on.
	const stream = new ReadStream(terminal.fd);
	return {
		child,
		stdin: stream,
		output: pipeOutput(stream, (chunk) => onOutput(1, chunk)),
		resize: (size) => resizeTerminalOf(readPid(pidFile), size),
	};
}

/** Not all runtimes pass a size on: it is set where the process has its terminal. */
function resizeTerminalOf(pid: number, size: Size): void {
	for (const descriptor of [0, 1, 2]) {
		try {
			const fd = openSync(`/proc/${pid}/fd/${descriptor}`, constants.O_RDWR | constants.O_NOCTTY);
			try {
				setTerminalSize(fd, size);
				return;
			} finally {
				closeSync(fd);
			}
		} catch {
			// It has ended, or has another file there.
		}
	}
}

/** Once the runtime has become the process: who execs another one before gets an error. */
async function tellStart(
	{ pidFile, onStarted, argv }: ProcessOptions,
	isRunning: () => boolean,
	process: RunningProcess,
): Promise<void> {
	const [program] = argv(undefined);
	const runtime = program.slice(program.lastIndexOf("/") + 1);
	for (let waits = 0; isRunning(); waits++) {
		const pid = readPid(pidFile);
		if (pid > 1 && (waits > 1000 || !isRuntime(pid, runtime))) {
			onStarted?.(process);
			return;
		}
		await new Promise((resolve) => setTimeout(resolve, 2));
	}
}

function isRuntime(pid: number, name: string): boolean {
	try {
		return readlinkSync(`/proc/${pid}/exe`).includes(name);
	} catch {
		return false;
	}
}

async function pumpInput(
	from: AsyncIterable<Uint8Array> | undefined,
	to: Socket | undefined,
	ended: Promise<unknown>,
): Promise<void> {
	if (from === undefined || to === undefined) {
		return;
	}
	// A process that is gone reads nothing: that is not our error.
	to.on("error", () => {});
	const iterator = from[Symbol.asyncIterator]();
	const end = ended.then(() => undefined);
	for (;;) {
		const next = await Promise.race([iterator.next(), end]);
		if (next === undefined) {
			// Without waiting: it may wait for a chunk that never comes.
			void iterator.return?.();
			return;
		}
		if (next.done) {
			if (!(to instanceof ReadStream)) {
				to.end();
			}
			return;
		}
		if (!to.write(next.value)) {
			await Promise.race([new Promise((resolve) => to.once("drain", resolve)), end]);
		}
	}
}

/** Reads no more while the listener waits. */
function pipeOutput(
	stream: Socket | undefined,
	onChunk: (chunk: Uint8Array) => Promise<void> | undefined | void,
): Promise<void> {
	return new Promise((resolve) => {
		if (stream === undefined) {
			resolve();
			return;
		}
		let last: Promise<unknown> = Promise.resolve();
		stream.on("data", (chunk: Uint8Array) => {
			const taken = onChunk(chunk);
			if (taken !== undefined) {
				stream.pause();
				last = taken.then(
					() => stream.resume(),
					() => stream.destroy(),
				);
			}
		});
		// A terminal whose other side is closed ends with an error.
		stream.on("error", () => {});
		stream.on("close", () => last.then(() => resolve()));
		stream.on("end", () => stream.destroy());
	});
}

/** All of a container's processes live in one pid namespace: the end of its first process is the end of all. */
function killFirst(child: ChildProcess, pidFile: string): void {
	const pid = readPid(pidFile);
	if (pid > 1) {
		killProcess(pid, "SIGKILL");
		return;
	}
	// The runtime has not said yet which process it is; by now it may run all the same, and would outlive the runtime. Stopped, the
	// runtime makes no more of them while they are looked for.
	child.kill("SIGSTOP", { group: true });
	for (const descendant of descendantsOf(child.pid)) {
		killProcess(descendant, "SIGKILL");
	}
	child.kill("SIGKILL", { group: true });
}

/** proc(5), `children`. */
function descendantsOf(pid: number): readonly number[] {
	let children: string;
	try {
		children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
	} catch {
		return [];
	}
	const direct = children
		.split(" ")
		.filter((text) => text !== "")
		.map(Number);
	return direct.flatMap((child) => [child, ...descendantsOf(child)]);
}

function readPid(pidFile: string): number {
	try {
		return Number(readFileSync(pidFile, "utf8"));
	} catch {
		return 0;
	}
}
