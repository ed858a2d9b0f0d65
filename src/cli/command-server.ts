import { chmodSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { resolve } from "node:path";
import { PassThrough } from "node:stream";
import type { Engine } from "../daemon/engine.ts";
import { canceled, SlipwayError, wrap } from "../errors/errors.ts";
import { drained } from "../session/byte-pipe.ts";
import {
	encodeFrame,
	frame,
	frameReader,
	type RefusedCommand,
	type ResizedTerminal,
	type StartCommand,
	type TerminalShape,
} from "./command-frames.ts";
import type { Output, Terminal } from "./terminal.ts";

export interface CommandServerOptions {
	/** Path of the socket; the directory is the user's own. */
	readonly path: string;
	readonly identity: readonly string[];
	readonly view: string;
	readonly engine: Engine;
	readonly run: (argv: readonly string[], terminal: Terminal) => Promise<number>;
	/** Called when the last running command has ended, and at the start. */
	readonly onIdle: () => void;
	readonly onBusy: () => void;
	/**
	 * A client has another program or other settings, or asked for the end: no new commands are taken, and this is to end with
	 * the last running one.
	 */
	readonly onRetire: () => void;
}

/** Takes commands of clients of this machine and user until disposed; disposing it interrupts those that run. */
export interface CommandServer extends AsyncDisposable {
	readonly running: number;
	/** New clients are told to come again. */
	stopTaking(): void;
}

/** Runs clients' commands in this process (see `forwardCommand`). */
export async function serveCommands(options: CommandServerOptions): Promise<CommandServer> {
	const running = new Set<RunningCommand>();
	let taking = true;
	const refuse = (socket: Socket, reason: RefusedCommand["reason"]): void => {
		socket.end(encodeFrame(frame.refused, JSON.stringify({ reason } satisfies RefusedCommand)));
	};
	const begin = (socket: Socket, start: StartCommand): RunningCommand | undefined => {
		if (start.view !== options.view) {
			refuse(socket, "other-view");
			return undefined;
		}
		if (start.identity.join("\n") !== options.identity.join("\n")) {
			taking = false;
			refuse(socket, "other-identity");
			options.onRetire();
			return undefined;
		}
		if (!taking) {
			refuse(socket, "stopping");
			return undefined;
		}
		const command = runForClient(socket, start, options);
		running.add(command);
		options.onBusy();
		void command.ended.then(() => {
			running.delete(command);
			if (running.size === 0) {
				options.onIdle();
			}
		});
		return command;
	};
	const server = createServer((socket) => {
		// Connections end with the process: by that, a client that waits for our end knows that the state directory is free.
		socket.unref();
		let command: RunningCommand | undefined;
		const read = frameReader((type, payload) => {
			if (type === frame.start && command === undefined) {
				command = begin(socket, JSON.parse(payload.toString()) as StartCommand);
			} else if (type === frame.stop && command === undefined) {
				taking = false;
				options.onRetire();
			} else {
				command?.take(type, payload);
			}
		});
		socket.on("data", (chunk) => {
			try {
				read(chunk);
			} catch {
				// Whoever this is, it is no client of ours.
				socket.destroy();
			}
		});
		socket.on("error", () => {});
		socket.on("close", () => {
			command?.interrupt();
		});
	});
	rmSync(options.path, { force: true });
	await new Promise<void>((listening, failed) => {
		server.on("error", (error) => failed(wrap(error, `cannot listen on ${options.path}`)));
		server.listen(options.path, listening);
	});
	chmodSync(options.path, 0o600);
	options.onIdle();
	return {
		get running() {
			return running.size;
		},
		stopTaking() {
			taking = false;
		},
		async [Symbol.asyncDispose]() {
			taking = false;
			server.close();
			rmSync(options.path, { force: true });
			for (const command of running) {
				command.interrupt();
			}
			await Promise.all([...running].map((command) => command.ended));
		},
	};
}

interface RunningCommand {
	/** Never rejects. */
	readonly ended: Promise<void>;
	take(type: number, payload: Buffer): void;
	interrupt(): void;
}

function runForClient(
	socket: Socket,
	start: StartCommand,
	{ engine, run }: Pick<CommandServerOptions, "engine" | "run">,
): RunningCommand {
	const interrupted = new AbortController();
	const shapes = { stdout: start.stdout, stderr: start.stderr };
	const listeners = new Set<() => void>();
	let stdin: PassThrough | undefined;
	const terminal: Terminal = {
		get stdin() {
			if (stdin === undefined) {
				stdin = new PassThrough();
				socket.write(encodeFrame(frame.wantStdin));
			}
			return Object.assign(stdin, start.stdin, {
				setRawMode: (isRaw: boolean) =>
					socket.write(encodeFrame(frame.rawMode, Uint8Array.of(isRaw ? 1 : 0))),
			});
		},
		stdout: clientOutput(socket, frame.stdout, () => shapes.stdout),
		stderr: clientOutput(socket, frame.stderr, () => shapes.stderr),
		env: start.env,
		cwd: start.cwd,
		onResize(listener) {
			listeners.add(listener);
			return () => void listeners.delete(listener);
		},
		interrupted: interrupted.signal,
		async openEngine({ root }) {
			if (root !== undefined && resolve(start.cwd, root) !== engine.root) {
				throw new SlipwayError("internal", `this builder has state directory ${engine.root}, not ${root}`);
			}
			return { ...engine, async [Symbol.asyncDispose]() {} };
		},
	};
	const interrupt = (): void => {
		interrupted.abort(canceled());
		stdin?.destroy();
	};
	return {
		ended: run(start.argv, terminal).then(
			(code) => void socket.end(encodeFrame(frame.exit, Uint8Array.of(code))),
			(thrown: unknown) => {
				socket.write(encodeFrame(frame.stderr, `ERROR: ${thrown}\n`));
				socket.end(encodeFrame(frame.exit, Uint8Array.of(1)));
			},
		),
		take(type, payload) {
			switch (type) {
				case frame.stdin:
					// What the client sends is bounded by this: the socket is read only while there is room.
					if (stdin?.write(Buffer.from(payload)) === false) {
						socket.pause();
						stdin.once("drain", () => socket.resume());
					}
					break;
				case frame.stdinEnd:
					stdin?.end();
					break;
				case frame.resize: {
					const size = JSON.parse(payload.toString()) as ResizedTerminal;
					shapes.stdout = { ...shapes.stdout, ...size };
					shapes.stderr = { ...shapes.stderr, ...size };
					for (const listener of listeners) {
						listener();
					}
					break;
				}
				case frame.interrupt:
					interrupt();
					break;
			}
		},
		interrupt,
	};
}

function clientOutput(socket: Socket, type: number, shape: () => TerminalShape): Output {
	return {
		write: (text) => socket.write(encodeFrame(type, text)),
		writeBytes: async (chunk) => {
			const maxPiece = 1 << 20;
			for (let at = 0; at < chunk.length; at += maxPiece) {
				if (socket.destroyed) {
					throw new SlipwayError("unavailable", "the client is gone");
				}
				if (!socket.write(encodeFrame(type, chunk.subarray(at, at + maxPiece)))) {
					await drained(socket);
				}
			}
		},
		get isTTY() {
			return shape().isTTY;
		},
		get columns() {
			return shape().columns;
		},
		get rows() {
			return shape().rows;
		},
	};
}
