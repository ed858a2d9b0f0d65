import { constants, type ServerHttp2Stream } from "node:http2";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { maxTimerMs } from "./connection.ts";
import type { Frame } from "./frames.ts";
import type { CallRecord, Handlers, Metadata, Method, MethodKind, ServedMethod, ServerCall } from "./grpc.ts";
import { Incoming } from "./incoming.ts";
import { addMetadata, statusTrailers } from "./metadata.ts";
import { Outgoing } from "./outgoing.ts";

/** How long a client may go on sending after its answer. */
const lingerMs = 10_000;
/** For whoever goes on reading or writing; one for all, as making one costs as much as a short call. */
const afterEnd: SlipwayError = canceled();
/** The types of Node do not know it. */
const noDate: object = { sendDate: false };

/** An answer that is a status and nothing else. */
export function refuse(stream: ServerHttp2Stream, error: SlipwayError, httpStatus: number): void {
	if (stream.destroyed || stream.closed) {
		return;
	}
	stream.respond(
		{ ":status": httpStatus, "content-type": "application/grpc", ...statusTrailers(error) },
		{ ...noDate, endStream: true },
	);
	discardRest(stream);
}

/**
 * After the answer: a client that has not closed its direction does so when it sees the status. (A reset at once would overtake
 * the trailers in nghttp2, and they would be lost.) One that goes on all the same is cut off later.
 */
function discardRest(stream: ServerHttp2Stream): void {
	stream.resume();
	if (!stream.readableEnded) {
		const timer = setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), lingerMs).unref();
		stream.once("close", () => clearTimeout(timer));
		stream.once("end", () => clearTimeout(timer));
	}
}

export interface CallParts {
	readonly metadata: Metadata;
	readonly timeoutMs: number | undefined;
	readonly maxMessageBytes: number;
	readonly onEnd: (record: CallRecord) => void;
}

/** One call, from its headers to its status. */
export class Call implements ServerCall {
	readonly metadata: Metadata;
	readonly #stream: ServerHttp2Stream;
	readonly #served: ServedMethod;
	readonly #parts: CallParts;
	readonly #abort: AbortController = new AbortController();
	readonly #incoming: Incoming<unknown>;
	readonly #outgoing: Outgoing<unknown>;
	readonly startedMs: number = performance.timeOrigin + performance.now();
	#deadline: NodeJS.Timeout | undefined;
	#headersSent = false;
	#finished = false;

	constructor(stream: ServerHttp2Stream, served: ServedMethod, parts: CallParts) {
		this.metadata = parts.metadata;
		this.#stream = stream;
		this.#served = served;
		this.#parts = parts;
		const { kind, request, response } = served.method as unknown as Method<MethodKind, unknown, unknown>;
		this.#outgoing = new Outgoing(stream, response);
		this.#incoming = new Incoming(stream, request, {
			maxMessageBytes: parts.maxMessageBytes,
			decodeFailure:
				kind === "unary"
					? "grpc: error unmarshalling request: proto"
					: "grpc: failed to unmarshal the received message: proto",
			onViolation: (error) => this.abort(error),
		});
		stream.on("end", () => {
			// A stream that was reset, or whose connection is gone, seems to end as well.
			if (!stream.aborted && stream.rstCode === constants.NGHTTP2_NO_ERROR) {
				this.#incoming.finish();
			}
		});
		stream.on("close", () => {
			if (!this.#finished) {
				this.abort(canceled());
			}
		});
		if (parts.timeoutMs !== undefined) {
			this.#deadline = setTimeout(
				() => this.abort(new SlipwayError("deadline-exceeded", "context deadline exceeded")),
				Math.min(parts.timeoutMs, maxTimerMs),
			);
		}
	}

	get path(): string {
		return this.#served.method.path;
	}

	get signal(): AbortSignal {
		return this.#abort.signal;
	}

	/** Never rejects. */
	async run(): Promise<void> {
		try {
			const response = await this.#handle();
			// What cannot be encoded is an error while there is still time to say so.
			this.#finish(undefined, response === undefined ? undefined : this.#outgoing.encode(response));
		} catch (error) {
			this.#finish(toError(error), undefined);
		}
	}

	sendHeaders(metadata?: Metadata): void {
		if (this.#headersSent) {
			throw new SlipwayError("internal", "the headers of a call have been sent already");
		}
		this.#headersSent = true;
		const headers = { ":status": 200, "content-type": "application/grpc" };
		addMetadata(headers as never, metadata);
		const stream = this.#stream;
		if (stream.destroyed || stream.closed) {
			return;
		}
		stream.respond(headers, { ...noDate, waitForTrailers: true });
	}

	/** Ends the call for both sides, whether its handler listens or not. */
	abort(error: SlipwayError): void {
		this.#abort.abort(error);
		this.#finish(error, undefined);
	}

	async #handle(): Promise<unknown> {
		const { method, handler } = this.#served as unknown as {
			readonly method: Method<MethodKind, unknown, unknown>;
			readonly handler: Handlers<unknown, unknown>[MethodKind];
		};
		const incoming = this.#incoming;
		const stream = {
			[Symbol.asyncIterator]: () => incoming,
			send: (message: unknown) => this.#send(message),
		};
		switch (method.kind) {
			case "unary":
				return (handler as Handlers<unknown, unknown>["unary"])(await this.#request(), this);
			case "client-stream":
				return (handler as Handlers<unknown, unknown>["client-stream"])(stream as never, this);
			case "server-stream":
				await (handler as Handlers<unknown, unknown>["server-stream"])(await this.#request(), stream, this);
				return undefined;
			case "bidi":
				await (handler as Handlers<unknown, unknown>["bidi"])(stream, this);
				return undefined;
		}
	}

	/** The only one; a second one ends the call. */
	async #request(): Promise<unknown> {
		const first = await this.#incoming.next();
		if (first.done) {
			throw new SlipwayError(
				"internal",
				"cardinality violation: received no request message from non-client-streaming RPC",
			);
		}
		this.#incoming.next().then(
			({ done }) => {
				if (!done) {
					const reason =
						"cardinality violation: received multiple request messages for non-client-streaming RPC";
					this.abort(new SlipwayError("internal", reason));
				}
			},
			() => {},
		);
		return first.value;
	}

	#send(message: unknown): Promise<void> | undefined {
		if (!this.#headersSent) {
			this.sendHeaders();
		}
		return this.#outgoing.send(message);
	}

	#finish(error: SlipwayError | undefined, response: Frame | undefined): void {
		if (this.#finished) {
			return;
		}
		this.#finished = true;
		clearTimeout(this.#deadline);
		const stream = this.#stream;
		const clientGone = stream.destroyed || stream.closed;
		try {
			if (!clientGone) {
				this.#end(error, response);
			}
		} catch (thrown) {
			error ??= toError(thrown);
			stream.close(constants.NGHTTP2_INTERNAL_ERROR);
		}
		const end = error ?? afterEnd;
		this.#outgoing.fail(end);
		this.#incoming.fail(end);
		const record: CallRecord = {
			path: this.path,
			metadata: this.metadata,
			startedMs: this.startedMs,
			endedMs: performance.timeOrigin + performance.now(),
			error,
		};
		// The answer leaves at the end of this turn, and need not wait for this.
		setImmediate(() => this.#parts.onEnd(record));
	}

	#end(error: SlipwayError | undefined, response: Frame | undefined): void {
		const stream = this.#stream;
		if (error !== undefined && !this.#headersSent) {
			refuse(stream, error, 200);
			return;
		}
		discardRest(stream);
		if (!this.#headersSent) {
			this.sendHeaders();
		}
		stream.once("wantTrailers", () => {
			stream.sendTrailers(statusTrailers(error) as never);
		});
		if (response !== undefined) {
			this.#outgoing.sendLast(response);
		} else {
			stream.end();
		}
	}
}
