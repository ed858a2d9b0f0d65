import { encodeFrame } from "../api/frames.ts";
import type { CallOptions, ClientStream, Metadata, Method, MethodKind } from "../api/grpc.ts";
import { decodeMessage, PieceReader, type WireMessage } from "../api/message-pieces.ts";
import { httpError, metadataOf, rawHeader, readStatus } from "../api/metadata.ts";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { HeldBytes } from "./held-bytes.ts";
import { http2Code } from "./http2-frames.ts";

/** What a call needs of its connection. */
export interface CallHost {
	readonly maxMessageBytes: number;
	/** The call has bytes to send or an end to tell. */
	pump(call: HostedCall): void;
	/** Bytes of the call were taken by its reader: the other side may send as many again. */
	grant(call: HostedCall, bytes: number): void;
	/** Ends the call's stream, if it is open: nothing more is sent or taken. */
	reset(call: HostedCall, code: number): void;
	/** The call's stream is closed. */
	forget(call: HostedCall): void;
	/** Calls back when the other side has read all that was sent, or never will. */
	whenRead(listener: () => void): void;
	/** Bytes that the tunnel has not taken yet. */
	backlog(): number;
}

/** A call as its connection sees it, whatever its messages are. */
export interface HostedCall {
	/** 0 until the call was started. */
	id: number;
	sendWindow: number;
	/** What the other side may still send. */
	receiveWindow: number;
	/** Chunks to send. */
	readonly pending: Uint8Array[];
	pendingBytes: number;
	readonly wantsEnd: boolean;
	sentEnd: boolean;
	/** Less waits to be sent than did. */
	onSent(): void;
	onHeaders(fields: readonly string[], isLast: boolean): void;
	onData(bytes: Uint8Array): void;
	/** The other side has closed its direction without trailers. */
	onEnd(): void;
	/** How the other side, or the connection, ended the call. */
	finish(error: SlipwayError | undefined): void;
}

/** What may wait to be sent before the sender is held back. */
const sendLimitBytes = 2 << 20;
/** Whole messages that wait for their reader; what comes then waits as it came, and the other side is held back by its window. */
const readLimitBytes = 1 << 20;
/** What a message costs besides its bytes: empty ones cost, too. */
const messageBytes = 100;
/** Bytes are granted in portions. */
const grantBytes = 256 << 10;
const maxTimerMs = 2_147_483_647;
/** One for all: each call would make one that mostly nobody sees. */
const ended = new SlipwayError("unavailable", "the call has ended");

/** A call on a connection of `InnerChannel`. */
export class InnerCall<In, Out> implements HostedCall, ClientStream<In, Out>, AsyncIterableIterator<In> {
	id = 0;
	sendWindow = 0;
	receiveWindow: number;
	readonly pending: Uint8Array[] = [];
	pendingBytes = 0;
	wantsEnd = false;
	sentEnd = false;
	readonly headers: Promise<Metadata>;
	readonly #headers: PromiseWithResolvers<Metadata> = Promise.withResolvers();
	readonly #host: CallHost;
	readonly #method: Method<MethodKind, Out, In>;
	readonly #options: CallOptions;
	readonly #reader: PieceReader;
	readonly #onAbort: () => void;
	#deadline: NodeJS.Timeout | undefined;
	#room: PromiseWithResolvers<void> | undefined;
	#queue: WireMessage[] = [];
	#head = 0;
	#queuedBytes = 0;
	/** What came while enough messages waited, and the trailers behind it. */
	readonly #held: HeldBytes = new HeldBytes();
	#heldTrailers: readonly string[] | undefined;
	#ungranted = 0;
	#waiting: ((result: IteratorResult<In> | Promise<IteratorResult<In>>) => void) | undefined;
	#answered = false;
	/** The other side has ended the call; our readers and writers are told in a moment. */
	#refused = false;
	#end: { readonly error: SlipwayError | undefined } | undefined;

	constructor(
		method: Method<MethodKind, Out, In>,
		options: CallOptions,
		host: CallHost,
		receiveWindow: number,
	) {
		this.#method = method;
		this.#options = options;
		this.#host = host;
		this.receiveWindow = receiveWindow;
		this.headers = this.#headers.promise;
		this.headers.catch(() => undefined);
		this.#reader = new PieceReader({
			maxMessageBytes: host.maxMessageBytes,
			onMessage: (message) => this.#onMessage(message),
		});
		const { signal, timeoutMs } = options;
		this.#onAbort = () =>
			this.abandon(signal.reason instanceof SlipwayError ? signal.reason : canceled(signal.reason));
		signal.addEventListener("abort", this.#onAbort);
		if (timeoutMs !== undefined) {
			this.#deadline = setTimeout(
				() => this.abandon(new SlipwayError("deadline-exceeded", "context deadline exceeded")),
				Math.min(timeoutMs, maxTimerMs),
			);
		}
	}

	send(message: Out): Promise<void> | undefined {
		if (this.#end !== undefined) {
			throw this.#end.error ?? ended;
		}
		if (this.wantsEnd) {
			throw new SlipwayError("internal", "the call's direction has been closed");
		}
		if (!this.#refused) {
			for (const chunk of encodeFrame(this.#method.request, message)) {
				this.pending.push(chunk);
				this.pendingBytes += chunk.length;
			}
			this.#host.pump(this);
			if (this.#room === undefined && this.#waitingBytes() <= sendLimitBytes) {
				return undefined;
			}
		}
		this.#room ??= Promise.withResolvers();
		return this.#room.promise;
	}

	closeSend(): void {
		if (!this.wantsEnd && this.#end === undefined) {
			this.wantsEnd = true;
			this.#host.pump(this);
		}
	}

	cancel(): void {
		this.abandon(canceled());
	}

	onSent(): void {
		if (this.#room !== undefined && !this.#refused && this.#waitingBytes() <= sendLimitBytes / 2) {
			this.#room.resolve();
			this.#room = undefined;
		}
	}

	next(): Promise<IteratorResult<In>> {
		const message = this.#queue[this.#head];
		if (message !== undefined) {
			this.#head += 1;
			this.#queuedBytes -= message.size + messageBytes;
			if (this.#head === this.#queue.length) {
				this.#queue = [];
				this.#head = 0;
			}
			this.#takeHeld();
			this.#grant();
			return this.#decode(message);
		}
		if (this.#end !== undefined) {
			const { error } = this.#end;
			return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error);
		}
		if (this.#waiting !== undefined) {
			return Promise.reject(new SlipwayError("internal", "a stream of messages has two readers at once"));
		}
		return new Promise((resolve) => {
			this.#waiting = resolve;
		});
	}

	[Symbol.asyncIterator](): AsyncIterableIterator<In> {
		return this;
	}

	onHeaders(fields: readonly string[], isLast: boolean): void {
		if (this.#end !== undefined) {
			return;
		}
		const status = Number(rawHeader(fields, ":status") ?? 0);
		const isInformational = !this.#answered && status >= 100 && status < 200;
		if (isInformational ? isLast : this.#answered && !isLast) {
			// RFC 9113, section 8.1: it would never end.
			this.abandon(new SlipwayError("internal", "malformed headers: they are not where they may be"));
			return;
		}
		if (this.#answered) {
			this.#onTrailers(fields);
			return;
		}
		if (isInformational) {
			return;
		}
		this.#answered = true;
		const contentType = rawHeader(fields, "content-type");
		if (contentType === undefined || !contentType.startsWith("application/grpc")) {
			this.abandon(httpError(status, contentType));
			return;
		}
		const encoding = rawHeader(fields, "grpc-encoding") ?? "identity";
		if (encoding !== "identity" && encoding !== "") {
			this.abandon(
				new SlipwayError(
					"internal",
					`grpc: Decompressor is not installed for grpc-encoding ${JSON.stringify(encoding)}`,
				),
			);
			return;
		}
		this.#headers.resolve(metadataOf(fields));
		if (isLast) {
			this.#onTrailers(fields);
		}
	}

	onData(bytes: Uint8Array): void {
		if (this.#end !== undefined) {
			return;
		}
		this.#ungranted += bytes.length;
		if (!this.#answered) {
			this.abandon(new SlipwayError("internal", "data before its headers"));
			return;
		}
		if (this.#held.bytes > 0 || this.#queuedBytes > readLimitBytes) {
			this.#held.add(bytes);
			return;
		}
		this.#read(bytes);
		this.#grant();
	}

	onEnd(): void {
		this.abandon(new SlipwayError("internal", "server closed the stream without sending trailers"));
	}

	finish(error: SlipwayError | undefined): void {
		if (this.#end !== undefined) {
			return;
		}
		this.#end = { error };
		this.#options.signal.removeEventListener("abort", this.#onAbort);
		clearTimeout(this.#deadline);
		const gone = error ?? ended;
		this.#headers.reject(gone);
		this.#dropPending();
		if (this.#room !== undefined) {
			// Whoever did not wait for room must not be told of the end as an unhandled rejection.
			this.#room.promise.catch(() => undefined);
			this.#room.reject(gone);
			this.#room = undefined;
		}
		const waiting = this.#waiting;
		this.#waiting = undefined;
		waiting?.(error === undefined ? { value: undefined, done: true } : Promise.reject(error));
		this.#host.forget(this);
	}

	/** Ends the call for both sides; what has come and was not read is dropped. */
	abandon(error: SlipwayError): void {
		if (this.#end === undefined) {
			this.#queue = [];
			this.#head = 0;
			this.#queuedBytes = 0;
			this.#held.clear();
			this.#host.reset(this, http2Code.cancel);
			this.finish(error);
		}
	}

	#read(bytes: Uint8Array): void {
		try {
			this.#reader.push(bytes);
		} catch (thrown) {
			this.abandon(toError(thrown));
		}
	}

	#takeHeld(): void {
		while (this.#held.bytes > 0 && this.#queuedBytes <= readLimitBytes && this.#end === undefined) {
			this.#read(this.#held.take());
		}
		const fields = this.#heldTrailers;
		if (fields !== undefined && this.#held.bytes === 0 && this.#end === undefined) {
			this.#heldTrailers = undefined;
			this.#onTrailers(fields);
		}
	}

	#onTrailers(fields: readonly string[]): void {
		const status = readStatus(fields);
		if (this.#held.bytes === 0) {
			try {
				this.#reader.end();
			} catch (thrown) {
				this.abandon(toError(thrown));
				return;
			}
		} else if (status === undefined) {
			this.#heldTrailers = fields;
			return;
		} else {
			// Of a call that has failed nobody needs more.
			this.#held.clear();
		}
		if (this.sentEnd) {
			this.finish(status);
			return;
		}
		// The other side wants no more.
		this.#host.reset(this, http2Code.none);
		if (status === undefined) {
			this.finish(status);
			return;
		}
		this.#refused = true;
		this.#dropPending();
		// Whoever hears of it may end the build, and the client its connection. BuildKit's reads what comes after that as if buffers
		// that it has used were part of it (session/grpchijack, `conn.Close`), and complains of our protocol: nothing must be under way then.
		this.#host.whenRead(() => this.finish(status));
	}

	#dropPending(): void {
		this.pending.length = 0;
		this.pendingBytes = 0;
	}

	#onMessage(message: WireMessage): void {
		const waiting = this.#waiting;
		if (waiting !== undefined) {
			this.#waiting = undefined;
			waiting(this.#decode(message));
			return;
		}
		this.#queue.push(message);
		this.#queuedBytes += message.size + messageBytes;
	}

	#decode(message: WireMessage): Promise<IteratorResult<In>> {
		try {
			return Promise.resolve({ value: decodeMessage(this.#method.response, message), done: false });
		} catch (cause) {
			const error = new SlipwayError(
				"internal",
				`grpc: failed to unmarshal the received message: proto: ${toError(cause).message}`,
				{ cause },
			);
			this.abandon(error);
			return Promise.reject(error);
		}
	}

	#grant(): void {
		if (this.#ungranted >= grantBytes && this.#queuedBytes <= readLimitBytes && this.#end === undefined) {
			const bytes = this.#ungranted;
			this.#ungranted = 0;
			this.#host.grant(this, bytes);
		}
	}

	#waitingBytes(): number {
		return this.pendingBytes + this.#host.backlog();
	}
}
