import { Duplex } from "node:stream";
import type { MessageStream } from "../api/grpc.ts";
import type { BytesMessage } from "../api/services/bytes-message.ts";
import { SlipwayError, toError } from "../errors/errors.ts";

export interface TunnelOptions {
	/** Closes our direction of the call, where this side can. */
	readonly closeSend?: () => void;
}

/** What is read ahead of whoever reads the connection. */
const readAheadBytes = 2 << 20;
/** Peers take messages of 16 MiB; pieces of this size keep memory in bounds without costing anything. */
const maxMessageBytes = 1 << 20;

/**
 * A connection inside a call: what is written goes out as messages, what messages bring is read. Writes are acknowledged as long as the
 * call has room, so that whoever writes is not slowed down by the other side's every answer. It ends when the call does: in
 * order when the other side has closed its direction, with the call's error otherwise.
 */
export function createTunnel(
	stream: MessageStream<BytesMessage, BytesMessage>,
	options: TunnelOptions = {},
): Duplex {
	return new Tunnel(stream, options);
}

type Callback = (error?: Error | null) => void;

class Tunnel extends Duplex {
	readonly #stream: MessageStream<BytesMessage, BytesMessage>;
	readonly #closeSend: (() => void) | undefined;
	#wanted: () => void = () => {};
	#reading = false;

	constructor(stream: MessageStream<BytesMessage, BytesMessage>, { closeSend }: TunnelOptions) {
		super({
			readableHighWaterMark: readAheadBytes,
			writableHighWaterMark: readAheadBytes,
			allowHalfOpen: true,
		});
		this.#stream = stream;
		this.#closeSend = closeSend;
	}

	override _read(): void {
		this.#wanted();
		if (!this.#reading) {
			this.#reading = true;
			void this.#readAll();
		}
	}

	override _write(chunk: Uint8Array, _encoding: string, callback: Callback): void {
		this.#send([chunk], chunk.length, callback);
	}

	override _writev(chunks: { readonly chunk: Uint8Array }[], callback: Callback): void {
		let size = 0;
		let pieces: Uint8Array[] = [];
		let room: Promise<void> | undefined;
		try {
			for (const { chunk } of chunks) {
				if (size > 0 && size + chunk.length > maxMessageBytes) {
					room = this.#message(pieces, size) ?? room;
					pieces = [];
					size = 0;
				}
				pieces.push(chunk);
				size += chunk.length;
			}
			room = this.#message(pieces, size) ?? room;
		} catch (thrown) {
			callback(toError(thrown));
			return;
		}
		settle(room, callback);
	}

	override _final(callback: Callback): void {
		try {
			this.#closeSend?.();
			callback();
		} catch (thrown) {
			callback(toError(thrown));
		}
	}

	override _destroy(error: Error | null, callback: Callback): void {
		this.#wanted();
		callback(error);
	}

	#send(pieces: readonly Uint8Array[], size: number, callback: Callback): void {
		let room: Promise<void> | undefined;
		try {
			room = this.#message(pieces, size);
		} catch (thrown) {
			callback(toError(thrown));
			return;
		}
		settle(room, callback);
	}

	#message(pieces: readonly Uint8Array[], size: number): Promise<void> | undefined {
		if (size === 0) {
			return undefined;
		}
		const [only] = pieces;
		return this.#stream.send({
			data: pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces, size),
		});
	}

	async #readAll(): Promise<void> {
		try {
			for await (const { data } of this.#stream) {
				if (this.destroyed) {
					return;
				}
				if (data.length > 0 && !this.push(data)) {
					await new Promise<void>((resolve) => {
						this.#wanted = resolve;
					});
				}
			}
			this.push(null);
		} catch (thrown) {
			const error = toError(thrown);
			this.destroy(
				error.code === "canceled" || error.code === "unavailable"
					? error
					: new SlipwayError("unavailable", `tunnel of the session broke: ${error.message}`, {
							cause: error,
						}),
			);
		}
	}
}

function settle(room: Promise<void> | undefined, callback: Callback): void {
	if (room === undefined) {
		callback();
		return;
	}
	room.then(
		() => callback(),
		(thrown: unknown) => callback(toError(thrown)),
	);
}
