import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlipwayError } from "../errors/errors.ts";
import { receiveDescriptor } from "../sys/receive-descriptor.ts";

/**
 * Where an OCI runtime sends the terminal that it has made in the container (`--console-socket`). Unlike what it copies itself, nothing
 * of it gets lost when the process ends at once.
 */
export interface ConsoleSocket extends Disposable {
	readonly path: string;
	/** The terminal's descriptor, which is the caller's; rejects when the runtime has sent none. */
	readonly terminal: Promise<number>;
}

/** How often it is looked for a descriptor on a connection, on which the runtime sends it at once. */
const lookMs = 1;

export async function openConsoleSocket(): Promise<ConsoleSocket> {
	// Nobody else may send one. A short path, because that of a socket has 108 bytes.
	const directory = mkdtempSync(join(tmpdir(), "slipway-tty-"));
	const path = join(directory, "socket");
	const { promise: terminal, resolve, reject } = Promise.withResolvers<number>();
	terminal.catch(() => {});
	// Node must not read: it would take the message and drop the descriptor.
	const server = createServer({ pauseOnConnect: true }, (socket) => {
		receive(socket).then(resolve, reject);
	});
	await new Promise<void>((done, failed) => server.on("error", failed).listen(path, done));
	return {
		path,
		terminal,
		[Symbol.dispose]() {
			server.close();
			rmSync(directory, { recursive: true, force: true });
			reject(new SlipwayError("unknown", "the runtime has sent no terminal"));
		},
	};
}

async function receive(socket: Socket): Promise<number> {
	const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
	try {
		for (;;) {
			const received = receiveDescriptor(fd);
			if (typeof received === "number") {
				return received;
			}
			if (received === "closed") {
				throw new SlipwayError("unknown", "the runtime has sent no terminal");
			}
			await new Promise((next) => setTimeout(next, lookMs));
		}
	} finally {
		socket.destroy();
	}
}
