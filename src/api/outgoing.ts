import type { Http2Stream } from "node:http2";
import type { SlipwayError } from "../errors/errors.ts";
import { encodeFrame, type Frame } from "./frames.ts";
import type { Codec } from "./grpc.ts";

/**
 * What may be under way before the sender is held back. Node's own mark (16 KB) would stop it after every message; bytes count as
 * under way until the connection has taken them.
 */
const limitBytes = 2 << 20;

/** A connection whose own buffer counts as well; `listener` is called once when little is in it. */
export interface Congestion {
	readonly backlog: number;
	whenLow(listener: () => void): void;
}

/** The messages that go out on a stream. */
export class Outgoing<T> {
	readonly #stream: Http2Stream;
	readonly #codec: Codec<T>;
	#room: PromiseWithResolvers<void> | undefined;
	#end: SlipwayError | undefined;
	readonly #connection: Congestion | undefined;
	readonly #onWritten = (): void => {
		if (this.#room === undefined || this.#stream.writableLength > limitBytes / 2) {
			return;
		}
		if (this.#connection !== undefined && this.#connection.backlog > limitBytes / 2) {
			this.#connection.whenLow(this.#onWritten);
			return;
		}
		this.#room.resolve();
		this.#room = undefined;
	};

	constructor(stream: Http2Stream, codec: Codec<T>, connection?: Congestion) {
		this.#stream = stream;
		this.#codec = codec;
		this.#connection = connection;
	}

	send(message: T): Promise<void> | undefined {
		if (this.#end !== undefined) {
			throw this.#end;
		}
		this.#write(encodeFrame(this.#codec, message));
		const congested = this.#connection !== undefined && this.#connection.backlog > limitBytes;
		if (this.#room === undefined && this.#stream.writableLength <= limitBytes && !congested) {
			return undefined;
		}
		if (congested) {
			this.#connection?.whenLow(this.#onWritten);
		}
		this.#room ??= Promise.withResolvers();
		return this.#room.promise;
	}

	encode(message: T): Frame {
		return encodeFrame(this.#codec, message);
	}

	/** The last message, with the end of the direction. */
	sendLast(frame: Frame): void {
		this.#write(frame);
		this.#stream.end();
	}

	/** From now on sending throws the error. */
	fail(error: SlipwayError): void {
		this.#end ??= error;
		if (this.#room !== undefined) {
			// Whoever did not wait for room must not be told of the end as an unhandled rejection.
			this.#room.promise.catch(() => {});
			this.#room.reject(error);
			this.#room = undefined;
		}
	}

	#write([head, body]: Frame): void {
		const stream = this.#stream;
		if (body === undefined) {
			stream.write(head, this.#onWritten);
			return;
		}
		stream.cork();
		stream.write(head);
		stream.write(body, this.#onWritten);
		stream.uncork();
	}
}
