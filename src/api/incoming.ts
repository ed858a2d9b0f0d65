import type { Http2Stream } from "node:http2";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { Codec } from "./grpc.ts";
import { decodeMessage, PieceReader, type WireMessage } from "./message-pieces.ts";

/** What waits for its reader before the other side is held back. */
const pauseBytes = 1 << 20;
const pauseMessages = 4096;

export interface IncomingOptions {
	readonly maxMessageBytes: number;
	/** The other side broke the rules: the call ends with this. */
	readonly onViolation: (error: SlipwayError) => void;
	/** Text before the reason of a message that is no such message. */
	readonly decodeFailure: string;
}

/** The messages that come in on a stream, decoded when they are read. */
export class Incoming<T> implements AsyncIterableIterator<T> {
	readonly #stream: Http2Stream;
	readonly #codec: Codec<T>;
	readonly #options: IncomingOptions;
	readonly #frames: PieceReader;
	#queue: WireMessage[] = [];
	#head = 0;
	#queuedBytes = 0;
	#paused = false;
	#reader: ((result: IteratorResult<T> | Promise<IteratorResult<T>>) => void) | undefined;
	/** How it ended: an error, or well. */
	#end: { readonly error: SlipwayError | undefined } | undefined;

	constructor(stream: Http2Stream, codec: Codec<T>, options: IncomingOptions) {
		this.#stream = stream;
		this.#codec = codec;
		this.#options = options;
		this.#frames = new PieceReader({
			maxMessageBytes: options.maxMessageBytes,
			onMessage: (message) => this.#onMessage(message),
		});
		stream.on("data", (chunk: Uint8Array) => this.#onData(chunk));
	}

	/** The other side has closed its direction. What has come is still read, and then the error if there is one. */
	finish(error?: SlipwayError): void {
		if (this.#end !== undefined) {
			return;
		}
		if (error === undefined) {
			try {
				this.#frames.end();
			} catch (violation) {
				this.#options.onViolation(toError(violation));
				return;
			}
		}
		this.#close(error);
	}

	/** Ends it with an error in place of what has come already. */
	fail(error: SlipwayError): void {
		const waiting = this.#waiting() > 0;
		this.#drop();
		if (this.#end === undefined) {
			this.#close(error);
		} else if (waiting && this.#end.error === undefined) {
			this.#end = { error };
		}
		this.#resume();
	}

	[Symbol.asyncIterator](): AsyncIterableIterator<T> {
		return this;
	}

	next(): Promise<IteratorResult<T>> {
		if (this.#head < this.#queue.length) {
			return this.#decode(this.#take());
		}
		if (this.#end !== undefined) {
			const { error } = this.#end;
			return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error);
		}
		if (this.#reader !== undefined) {
			return Promise.reject(new SlipwayError("internal", "a stream of messages has two readers at once"));
		}
		return new Promise((resolve) => {
			this.#reader = resolve;
		});
	}

	#onData(chunk: Uint8Array): void {
		if (this.#end !== undefined) {
			return;
		}
		try {
			this.#frames.push(chunk);
		} catch (error) {
			this.#options.onViolation(toError(error));
		}
	}

	#onMessage(message: WireMessage): void {
		const reader = this.#reader;
		if (reader !== undefined) {
			this.#reader = undefined;
			reader(this.#decode(message));
			return;
		}
		this.#queue.push(message);
		this.#queuedBytes += message.size;
		if (!this.#paused && (this.#queuedBytes >= pauseBytes || this.#waiting() >= pauseMessages)) {
			this.#paused = true;
			this.#stream.pause();
		}
	}

	#take(): WireMessage {
		const message = this.#queue[this.#head] as WireMessage;
		this.#head++;
		this.#queuedBytes -= message.size;
		if (this.#head === this.#queue.length) {
			this.#queue = [];
			this.#head = 0;
		} else if (this.#head > 1024 && this.#head * 2 > this.#queue.length) {
			this.#queue = this.#queue.slice(this.#head);
			this.#head = 0;
		}
		if (this.#paused && this.#queuedBytes < pauseBytes / 2 && this.#waiting() < pauseMessages / 2) {
			this.#resume();
		}
		return message;
	}

	/** Messages that nobody has read. */
	#waiting(): number {
		return this.#queue.length - this.#head;
	}

	#drop(): void {
		this.#queue = [];
		this.#head = 0;
		this.#queuedBytes = 0;
	}

	#resume(): void {
		if (this.#paused) {
			this.#paused = false;
			this.#stream.resume();
		}
	}

	#decode(message: WireMessage): Promise<IteratorResult<T>> {
		try {
			return Promise.resolve({ value: decodeMessage(this.#codec, message), done: false });
		} catch (cause) {
			const reason = toError(cause).message;
			const error = new SlipwayError("internal", `${this.#options.decodeFailure}: ${reason}`, { cause });
			this.#options.onViolation(error);
			return Promise.reject(error);
		}
	}

	#close(error: SlipwayError | undefined): void {
		this.#end = { error };
		const reader = this.#reader;
		if (reader !== undefined) {
			this.#reader = undefined;
			reader(error === undefined ? { value: undefined, done: true } : Promise.reject(error));
		}
	}
}
