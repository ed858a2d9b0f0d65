import type { Socket } from "node:net";
import type { MessageStream } from "../api/grpc.ts";
import type { BytesMessage } from "../api/services/bytes-message.ts";
import { toError } from "../errors/errors.ts";

/**
 * Joins a socket and a call, both ways, each at the other's pace. Resolves when both directions are closed or one is broken; the socket is closed
 * then, and how it went is nobody's business but the two ends'.
 */
export async function pipeBytes(
	socket: Socket,
	stream: MessageStream<BytesMessage, BytesMessage>,
	closeSend: (() => void) | undefined,
): Promise<void> {
	socket.on("error", () => socket.destroy());
	const outward = async (): Promise<void> => {
		// At its end, the other direction may go on.
		for await (const data of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
			await stream.send({ data });
		}
		closeSend?.();
	};
	const inward = async (): Promise<void> => {
		for await (const { data } of stream) {
			if (data.length > 0 && !socket.write(data)) {
				await drained(socket);
			}
		}
		await flushed(socket);
	};
	try {
		await Promise.all([inward(), outward().catch(ignoreDestroyed(socket))]);
	} catch {
		// Told to the ends by the close.
	} finally {
		socket.destroy();
	}
}

/** A socket that was closed by the other direction's end is no failure. */
function ignoreDestroyed(socket: Socket): (thrown: unknown) => void {
	return (thrown) => {
		if (!socket.destroyed) {
			throw toError(thrown);
		}
	};
}

/** Closes our direction; resolves when all is written, or never will be. */
function flushed(socket: Socket): Promise<void> {
	return new Promise((resolve) => {
		if (socket.destroyed) {
			resolve();
			return;
		}
		socket.once("close", () => resolve());
		socket.end(() => resolve());
	});
}

/** Resolves when the socket takes more, or is closed. */
export function drained(socket: Socket): Promise<void> {
	return new Promise((resolve) => {
		const done = (): void => {
			socket.off("drain", done);
			socket.off("close", done);
			resolve();
		};
		socket.once("drain", done);
		socket.once("close", done);
	});
}
