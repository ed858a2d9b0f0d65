import type { ChildProcessByStdio, SpawnOptions } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { resolve } from "node:path";
import type { Readable } from "node:stream";
import { isatty } from "node:tty";
import { defaultRoot } from "../daemon/default-root.ts";
import { type BuilderPlace, builderIdentity, builderPlace, fileSystemView } from "./builder-place.ts";
import {
	encodeFrame,
	frame,
	frameReader,
	inUseExitCode,
	type RefusedCommand,
	type StartCommand,
	type TerminalShape,
} from "./command-frames.ts";
import { type FlagSpec, type ParsedFlags, parseFlags } from "./flags.ts";

/**
 * Runs a command in the background builder, which is started if there is none: its engine is warm, and this process need not
 * load one. Gives the exit code, or undefined where the command has to run in this process: because it says so
 * (`--in-process`, `SLIPWAY_IN_PROCESS`), because its flags are wrong, or because no builder can be had.
 */
export async function forwardCommand(options: {
	readonly argv: readonly string[];
	readonly flags: readonly FlagSpec[];
	/** This program's file; what the builder is started from. */
	readonly program: string;
}): Promise<number | undefined> {
	const { env } = process;
	const flags = parsed(options.argv.slice(options.argv[0] === "debug" ? 2 : 1), options.flags);
	if (
		flags === undefined ||
		flags.bool("help") ||
		flags.bool("in-process") ||
		env["SLIPWAY_IN_PROCESS"] ||
		usesOtherBuilder(flags)
	) {
		return undefined;
	}
	const root = resolve(flags.string("root") || env["SLIPWAY_ROOT"] || defaultRoot(env));
	const place = builderPlace(root, env);
	if (place === undefined) {
		return undefined;
	}
	const engine = ["snapshotter", "runtime"].flatMap((name) => {
		const value = flags.string(name);
		return value === undefined ? [] : [`--${name}=${value}`];
	});
	const start: StartCommand = {
		identity: builderIdentity({ program: options.program, env, engine }),
		view: fileSystemView(env),
		argv: options.argv.map(ownFiles),
		env,
		cwd: process.cwd(),
		stdin: { isTTY: isatty(0) },
		stdout: shapeOf(1),
		stderr: shapeOf(2),
	};
	const idleExit = flags.string("idle-exit");
	const args = [
		"background-builder",
		`--root=${root}`,
		...engine,
		...(idleExit === undefined ? [] : [`--idle-exit=${idleExit}`]),
	];
	return forwardTo(place, start, () => startBuilder(options.program, args, place));
}

function usesOtherBuilder(flags: ParsedFlags): boolean {
	return Boolean(flags.string("builder") || process.env["SLIPWAY_BUILDER"]);
}

/** Wrong flags are reported by the command itself. */
function parsed(argv: readonly string[], specs: readonly FlagSpec[]): ParsedFlags | undefined {
	try {
		return parseFlags(argv, specs);
	} catch {
		return undefined;
	}
}

/** Files that are only this process's own, such as those of the shell's `<(…)`, by a name that the builder can open too. */
function ownFiles(word: string): string {
	return word
		.replace(/(^|=)\/dev\/fd\/(?=\d)/g, `$1/proc/${process.pid}/fd/`)
		.replace(/(^|=)\/dev\/std(in|out|err)(?=$|,)/g, (_, before: string, name: string) => {
			const fd = ["in", "out", "err"].indexOf(name);
			return `${before}/proc/${process.pid}/fd/${fd}`;
		})
		.replace(/(^|=)\/proc\/self\//g, `$1/proc/${process.pid}/`);
}

async function forwardTo(
	place: BuilderPlace,
	start: StartCommand,
	startBuilder: () => Promise<BuilderStart>,
): Promise<number | undefined> {
	// Again for one that has other settings, or that ends just now.
	for (let attempt = 0; attempt < 3; attempt++) {
		const socket = (await connect(place.commandSocket)) ?? (await connectStarted(place, startBuilder));
		if (socket === undefined) {
			return undefined;
		}
		const outcome = await converse(socket, start, place);
		if (typeof outcome === "number") {
			return outcome;
		}
		if (outcome.reason === "other-view") {
			return undefined;
		}
		await gone(place.commandSocket);
	}
	return undefined;
}

/** `in-use`: another process has the state directory, which may be a builder that starts at this moment. */
type BuilderStart = "listens" | "in-use" | "failed";

const startWaitMs = 10_000;

async function connectStarted(
	{ commandSocket }: BuilderPlace,
	startBuilder: () => Promise<BuilderStart>,
): Promise<Socket | undefined> {
	const started = await startBuilder();
	if (started === "failed") {
		return undefined;
	}
	for (let waited = 0; ; waited += 20) {
		const socket = await connect(commandSocket);
		if (socket !== undefined || started === "listens" || waited >= startWaitMs) {
			return socket;
		}
		await new Promise((wake) => setTimeout(wake, 20));
	}
}

export function connect(path: string): Promise<Socket | undefined> {
	return new Promise((settle) => {
		const socket = createConnection(path);
		socket.once("connect", () => settle(socket));
		socket.once("error", () => settle(undefined));
	});
}

/** Resolves when nobody listens there any more. */
async function gone(path: string): Promise<void> {
	for (let waited = 0; ; waited++) {
		const socket = await connect(path);
		if (socket === undefined) {
			return;
		}
		socket.destroy();
		if (waited === 20) {
			writeAll(2, "waiting for the background builder to finish its builds, as it has other settings\n");
		}
		await new Promise((wake) => setTimeout(wake, 50));
	}
}

/** One command from start to exit code, or why the builder did not take it. */
function converse(
	socket: Socket,
	start: StartCommand,
	place: BuilderPlace,
): Promise<number | RefusedCommand> {
	return new Promise((settle) => {
		const end = (outcome: number | RefusedCommand): void => {
			process.off("SIGINT", onSignal);
			process.off("SIGTERM", onSignal);
			if (start.stderr.isTTY) {
				process.stderr.off("resize", onResize);
			}
			socket.removeAllListeners("close").destroy();
			stopStdin();
			settle(outcome);
		};
		let interrupted = false;
		const onSignal = (): void => {
			if (interrupted) {
				// One who insists gets the end at once; the builder stops the command when we are gone.
				process.exit(130);
			}
			interrupted = true;
			socket.write(encodeFrame(frame.interrupt));
		};
		const onResize = (): void => {
			socket.write(encodeFrame(frame.resize, JSON.stringify(shapeOf(2))));
		};
		const read = frameReader((type, payload) => {
			switch (type) {
				case frame.stdout:
					writeAll(1, payload);
					break;
				case frame.stderr:
					writeAll(2, payload);
					break;
				case frame.wantStdin:
					sendStdin(socket);
					break;
				case frame.rawMode:
					setRawMode(payload[0] === 1);
					break;
				case frame.refused:
					end(JSON.parse(payload.toString()) as RefusedCommand);
					break;
				case frame.exit:
					end(payload[0] ?? 1);
					break;
			}
		});
		process.on("SIGINT", onSignal);
		process.on("SIGTERM", onSignal);
		if (start.stderr.isTTY) {
			process.stderr.on("resize", onResize);
		}
		socket.on("data", read);
		socket.on("error", () => {});
		socket.once("close", () => {
			writeAll(
				2,
				`ERROR: the background builder ended before the command did; what it wrote last is in ${place.log}\n`,
			);
			end(1);
		});
		socket.write(encodeFrame(frame.start, JSON.stringify(start)));
	});
}

let isRaw = false;

function setRawMode(wanted: boolean): void {
	isRaw = wanted;
	process.stdin.setRawMode?.(wanted);
}

let isRead = false;

/** Whatever happened to the builder, the person's terminal is as it was, and nothing waits for more from it. */
function stopStdin(): void {
	if (isRaw) {
		setRawMode(false);
	}
	if (isRead) {
		process.stdin.destroy();
	}
}

function sendStdin(socket: Socket): void {
	isRead = true;
	process.stdin.on("data", (chunk: Buffer) => {
		if (!socket.write(encodeFrame(frame.stdin, chunk))) {
			process.stdin.pause();
			socket.once("drain", () => process.stdin.resume());
		}
	});
	const finish = (): void => {
		if (!socket.destroyed) {
			socket.write(encodeFrame(frame.stdinEnd));
		}
	};
	process.stdin.on("end", finish);
	process.stdin.on("error", finish);
}

/** True when it listens. It works for the user from then on, and outlives this process. */
async function startBuilder(
	program: string,
	args: readonly string[],
	place: BuilderPlace,
): Promise<BuilderStart> {
	const { spawn } = await import("node:child_process");
	const { spawnInUserNamespace } = await import("../daemon/user-namespace.ts");
	const log = openSync(place.log, "a", 0o600);
	try {
		const options = {
			detached: true,
			cwd: "/",
			stdio: ["ignore", "pipe", log],
			env: process.env,
		} satisfies SpawnOptions;
		const argv = [process.execPath, ...process.execArgv, program, ...args] as const;
		const child = (
			process.getuid?.() === 0
				? spawn(argv[0], argv.slice(1), options)
				: await spawnInUserNamespace([...argv], {
						...options,
						env: { ...process.env, SLIPWAY_OUTER_VIEW: fileSystemView(process.env) },
					})
		) as ChildProcessByStdio<null, Readable, null>;
		const start = await new Promise<BuilderStart>((settle) => {
			// Its only line says that it listens.
			child.stdout.once("data", () => settle("listens"));
			child.once("error", () => settle("failed"));
			child.once("exit", (code) => settle(code === inUseExitCode ? "in-use" : "failed"));
		});
		child.stdout.destroy();
		child.unref();
		return start;
	} finally {
		closeSync(log);
	}
}

/** Making the process's streams takes milliseconds, and only a terminal needs one. */
function shapeOf(fd: 1 | 2): TerminalShape {
	if (!isatty(fd)) {
		return { isTTY: false };
	}
	const { columns, rows } = fd === 1 ? process.stdout : process.stderr;
	return { isTTY: true, columns, rows };
}

/** All of it; a reader that has gone away is no error. */
function writeAll(fd: number, data: Uint8Array | string): void {
	const bytes = typeof data === "string" ? Buffer.from(data) : data;
	for (let at = 0; at < bytes.length; ) {
		try {
			at += writeSync(fd, bytes, at);
		} catch (thrown) {
			if ((thrown as NodeJS.ErrnoException).code !== "EAGAIN") {
				return;
			}
			Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
		}
	}
}
