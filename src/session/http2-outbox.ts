import type { MessageStream } from "../api/grpc.ts";
import type { BytesMessage, TunnelMessage } from "../api/services/bytes-message.ts";
import { SlipwayError } from "../errors/errors.ts";

/** A message of the tunnel; also what may be framed before it is sent. */
export const tunnelMessageBytes: number = 1 << 20;
/** What is not sent to a peer that takes nothing while it makes us answer. */
const maxBacklogBytes = 64 << 20;

export interface OutboxOptions {
	/** There is room: whoever has data puts it in now. */
	readonly refill: () => void;
	/** Less waits to be sent than did. */
	readonly onSent: () => void;
	/** The tunnel is broken, or its reader stands still; at most once. */
	readonly onFailure: (thrown: unknown) => void;
}

/**
 * What goes into the tunnel, in its order. Frames wait here only for a moment: as long as the tunnel has no room (or one message is full), data
 * stays with its stream, so that what is of a stream that ends is dropped and not sent.
 */
export class Outbox {
	readonly #stream: MessageStream<TunnelMessage, BytesMessage>;
	readonly #options: OutboxOptions;
	#parts: Uint8Array[] = [];
	#bytes = 0;
	#scheduled = false;
	/** The tunnel has no room. */
	#blocked = false;
	#closed = false;

	constructor(stream: MessageStream<TunnelMessage, BytesMessage>, options: OutboxOptions) {
		this.#stream = stream;
		this.#options = options;
	}

	get bytes(): number {
		return this.#bytes;
	}

	/** Whether data may be put in; what the protocol itself has to say always may. */
	get hasRoom(): boolean {
		return !this.#blocked && this.#bytes < tunnelMessageBytes;
	}

	put(bytes: Uint8Array): void {
		if (this.#closed) {
			return;
		}
		this.#parts.push(bytes);
		this.#bytes += bytes.length;
		if (this.#bytes > maxBacklogBytes) {
			this.#fail(new SlipwayError("unavailable", "the other side does not read, and makes us answer"));
			return;
		}
		if (!this.#scheduled && !this.#blocked) {
			this.#scheduled = true;
			// What is said in one go is sent as one.
			queueMicrotask(() => this.#flush());
		}
	}

	/** Nothing is sent any more, but a last word. */
	close(lastWord?: Uint8Array): void {
		if (this.#closed) {
			return;
		}
		this.#closed = true;
		this.#parts = [];
		this.#bytes = 0;
		if (lastWord !== undefined) {
			try {
				this.#stream.send({ data: lastWord })?.catch(() => undefined);
			} catch {
				// Nobody is there to hear it.
			}
		}
	}

	#flush(): void {
		this.#scheduled = false;
		try {
			while (!this.#closed && !this.#blocked) {
				this.#options.refill();
				if (this.#parts.length === 0) {
					break;
				}
				const room = this.#stream.send({ data: this.#batch() });
				if (room !== undefined) {
					this.#blocked = true;
					room.then(
						() => {
							this.#blocked = false;
							this.#flush();
						},
						(thrown: unknown) => this.#fail(thrown),
					);
				}
			}
		} catch (thrown) {
			this.#fail(thrown);
		}
		if (!this.#closed) {
			this.#options.onSent();
		}
	}

	#fail(thrown: unknown): void {
		if (!this.#closed) {
			this.close();
			this.#options.onFailure(thrown);
		}
	}

	#batch(): Uint8Array {
		let count = 0;
		let size = 0;
		for (const part of this.#parts) {
			if (count > 0 && size + part.length > tunnelMessageBytes) {
				break;
			}
			size += part.length;
			count += 1;
		}
		const parts = this.#parts.splice(0, count);
		this.#bytes -= size;
		return Buffer.concat(parts, size);
	}
}
