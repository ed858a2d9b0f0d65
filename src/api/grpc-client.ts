import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import type { Duplex } from "node:stream";
import { canceled, type ErrorCode, SlipwayError, toError } from "../errors/errors.ts";
import { keepAlive, sessionOptions, widenConnection } from "./connection.ts";
import { EagerConnection } from "./eager-connection.ts";
import type { CallOptions, Channel, ClientStream, Metadata, Method, MethodKind } from "./grpc.ts";
import { Incoming } from "./incoming.ts";
import { addMetadata, formatTimeout, httpError, metadataOf, rawHeader, readStatus } from "./metadata.ts";
import { Outgoing } from "./outgoing.ts";

export interface ChannelOptions {
	/** Largest message that is taken; default 16 MiB, as BuildKit. */
	readonly maxMessageBytes?: number;
	/** Sent as `:authority`; default `localhost`. */
	readonly authority?: string;
}

const maxTimerMs = 2_147_483_647;

/** Takes the connection over. Calls may be made at once. */
export function openChannel(connection: Duplex, options: ChannelOptions = {}): Channel {
	return new Http2Channel(connection, options);
}

class Http2Channel implements Channel {
	readonly #connection: EagerConnection;
	readonly #session: ClientHttp2Session;
	readonly #maxMessageBytes: number;
	readonly #closed: AbortController = new AbortController();
	#goingAway = false;
	readonly #whenClosed: PromiseWithResolvers<void> = Promise.withResolvers();

	constructor(connection: Duplex, options: ChannelOptions) {
		this.#maxMessageBytes = options.maxMessageBytes ?? 16 << 20;
		let reason: Error | undefined;
		connection.on("error", (error) => {
			reason ??= error;
		});
		keepAlive(connection);
		const eager = new EagerConnection(connection);
		this.#connection = eager;
		const session = connect(`http://${options.authority ?? "localhost"}`, {
			...sessionOptions,
			createConnection: () => eager,
			// Until the server has told its own number.
			peerMaxConcurrentStreams: 1000,
		});
		this.#session = session;
		session.once("connect", () => widenConnection(session));
		session.on("error", (error) => {
			reason ??= error;
		});
		session.on("goaway", (code) => {
			this.#goingAway = true;
			if (code !== constants.NGHTTP2_NO_ERROR) {
				reason ??= new Error(`the server went away with HTTP/2 error ${code}`);
			}
		});
		session.once("close", () => {
			connection.destroy();
			this.#closed.abort(connectionLost(reason));
			this.#whenClosed.resolve();
		});
		connection.once("close", () => session.destroy());
		if (connection.destroyed) {
			session.destroy();
		}
	}

	get closed(): AbortSignal {
		return this.#closed.signal;
	}

	async unary<Request, Response>(
		method: Method<"unary", Request, Response>,
		request: Request,
		options: CallOptions,
	): Promise<Response> {
		const call = this.#open<Request, Response>(method, options);
		try {
			call.sendLast(request);
		} catch (error) {
			// It could not be encoded.
			call.cancel();
			throw error;
		}
		const first = await call.next();
		if (first.done) {
			throw new SlipwayError(
				"internal",
				"cardinality violation: received no response message from non-server-streaming RPC",
			);
		}
		const second = await call.next();
		if (!second.done) {
			call.cancel();
			throw new SlipwayError(
				"internal",
				"cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message",
			);
		}
		return first.value;
	}

	stream<Request, Response>(
		method: Method<MethodKind, Request, Response>,
		options: CallOptions,
	): ClientStream<Response, Request> {
		return this.#open(method, options);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#session.destroy();
		await this.#whenClosed.promise;
	}

	#open<Request, Response>(
		method: Method<MethodKind, Request, Response>,
		options: CallOptions,
	): ClientCall<Response, Request> {
		const headers: Record<string, string | readonly string[]> = {
			":method": "POST",
			":path": method.path,
			te: "trailers",
			"content-type": "application/grpc",
			"user-agent": "slipway",
		};
		if (options.timeoutMs !== undefined) {
			headers["grpc-timeout"] = formatTimeout(options.timeoutMs);
		}
		addMetadata(headers, options.metadata);
		if (options.signal.aborted) {
			throw abortReason(options.signal);
		}
		if (this.#closed.signal.aborted) {
			throw toError(this.#closed.signal.reason);
		}
		if (this.#goingAway) {
			throw goingAway();
		}
		let stream: ClientHttp2Stream;
		try {
			stream = this.#session.request(headers as never);
		} catch (cause) {
			throw connectionLost(cause);
		}
		return new ClientCall(stream, method, {
			options,
			maxMessageBytes: this.#maxMessageBytes,
			connection: this.#connection,
			isGoingAway: () => this.#goingAway,
			isConnected: () => !this.#session.destroyed,
			connectionLost: async () => {
				await this.#whenClosed.promise;
				return toError(this.#closed.signal.reason);
			},
		});
	}
}

function connectionLost(cause: unknown): SlipwayError {
	return new SlipwayError(
		"unavailable",
		cause instanceof Error ? `connection closed: ${cause.message}` : "connection closed",
		{ cause },
	);
}

function goingAway(): SlipwayError {
	return new SlipwayError("unavailable", "the server takes no more calls on this connection");
}

function abortReason(signal: AbortSignal): SlipwayError {
	return signal.reason instanceof SlipwayError ? signal.reason : canceled(signal.reason);
}

interface ClientCallParts {
	readonly options: CallOptions;
	readonly maxMessageBytes: number;
	readonly connection: EagerConnection;
	/** The server takes no more calls. */
	readonly isGoingAway: () => boolean;
	readonly isConnected: () => boolean;
	/** Why it is not connected. */
	readonly connectionLost: () => Promise<SlipwayError>;
}

class ClientCall<In, Out> implements ClientStream<In, Out> {
	readonly headers: Promise<Metadata>;
	readonly #headers: PromiseWithResolvers<Metadata> = Promise.withResolvers();
	readonly #stream: ClientHttp2Stream;
	readonly #incoming: Incoming<In>;
	readonly #outgoing: Outgoing<Out>;
	readonly #parts: ClientCallParts;
	readonly #onAbort: () => void;
	#deadline: NodeJS.Timeout | undefined;
	/** Headers that are the whole answer, or trailers. */
	#status: readonly string[] | undefined;
	#answered = false;
	#ended = false;
	#sendClosed = false;

	constructor(stream: ClientHttp2Stream, method: Method<MethodKind, Out, In>, parts: ClientCallParts) {
		this.#stream = stream;
		this.#parts = parts;
		this.headers = this.#headers.promise;
		// Not everybody asks for the headers.
		this.headers.catch(() => {});
		this.#outgoing = new Outgoing(stream, method.request, parts.connection);
		this.#incoming = new Incoming(stream, method.response, {
			maxMessageBytes: parts.maxMessageBytes,
			decodeFailure: "grpc: failed to unmarshal the received message: proto",
			onViolation: (error) => this.#abandon(error),
		});
		stream.on("response", (headers, flags, rawHeaders) => {
			this.#onResponse(headers[":status"] ?? 0, flags, rawHeaders);
		});
		stream.on("trailers", (_trailers, _flags, rawTrailers) => {
			this.#status = rawTrailers;
		});
		stream.on("end", () => this.#onEnd());
		stream.on("frameError", (_type, code) => {
			this.#abandon(
				parts.isGoingAway()
					? goingAway()
					: new SlipwayError("internal", `the call could not be sent: HTTP/2 error ${code}`),
			);
		});
		stream.on("error", () => {});
		stream.once("close", () => this.#onClose());
		this.#onAbort = () => this.#abandon(abortReason(parts.options.signal));
		parts.options.signal.addEventListener("abort", this.#onAbort);
		const { timeoutMs } = parts.options;
		if (timeoutMs !== undefined) {
			this.#deadline = setTimeout(
				() => this.#abandon(new SlipwayError("deadline-exceeded", "context deadline exceeded")),
				Math.min(timeoutMs, maxTimerMs),
			);
		}
	}

	send(message: Out): Promise<void> | undefined {
		if (this.#sendClosed) {
			throw new SlipwayError("internal", "the call's direction has been closed");
		}
		return this.#outgoing.send(message);
	}

	sendLast(message: Out): void {
		this.#sendClosed = true;
		const frame = this.#outgoing.encode(message);
		this.#outgoing.sendLast(frame);
	}

	closeSend(): void {
		if (!this.#sendClosed && !this.#ended) {
			this.#sendClosed = true;
			this.#stream.end();
		}
	}

	cancel(): void {
		this.#abandon(canceled());
	}

	next(): Promise<IteratorResult<In>> {
		return this.#incoming.next();
	}

	[Symbol.asyncIterator](): AsyncIterator<In> {
		return this.#incoming;
	}

	#onResponse(httpStatus: number, flags: number, rawHeaders: string[]): void {
		this.#answered = true;
		const contentType = rawHeader(rawHeaders, "content-type");
		if (contentType === undefined || !contentType.startsWith("application/grpc")) {
			this.#abandon(httpError(httpStatus, contentType));
			return;
		}
		const encoding = rawHeader(rawHeaders, "grpc-encoding") ?? "identity";
		if (encoding !== "identity" && encoding !== "") {
			const reason = `grpc: Decompressor is not installed for grpc-encoding ${JSON.stringify(encoding)}`;
			this.#abandon(new SlipwayError("internal", reason));
			return;
		}
		if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) {
			this.#status = rawHeaders;
		}
		this.#headers.resolve(metadataOf(rawHeaders));
	}

	#onEnd(): void {
		if (this.#ended) {
			return;
		}
		const reset = this.#stream.rstCode !== constants.NGHTTP2_NO_ERROR || !this.#parts.isConnected();
		if (this.#status === undefined && (reset || !this.#answered)) {
			// The reason is known when the stream closes.
			return;
		}
		this.#finish(readStatus(this.#status ?? []));
	}

	#onClose(): void {
		if (this.#ended) {
			return;
		}
		if (this.#status !== undefined) {
			this.#finish(readStatus(this.#status));
			return;
		}
		if (this.#parts.isConnected()) {
			this.#finish(resetError(this.#stream.rstCode ?? constants.NGHTTP2_NO_ERROR));
			return;
		}
		// The connection says why, a moment later.
		void this.#parts.connectionLost().then((error) => {
			if (!this.#ended) {
				this.#finish(error);
			}
		});
	}

	/** Ends the call for both sides. */
	#abandon(error: SlipwayError): void {
		if (this.#ended) {
			return;
		}
		this.#settle(error);
		this.#incoming.fail(error);
		this.#stream.close(constants.NGHTTP2_CANCEL);
	}

	#finish(error: SlipwayError | undefined): void {
		this.#incoming.finish(error);
		if (this.#ended) {
			// The last message is not whole, which has ended the call already.
			return;
		}
		this.#settle(error);
	}

	#settle(error: SlipwayError | undefined): void {
		this.#ended = true;
		clearTimeout(this.#deadline);
		this.#parts.options.signal.removeEventListener("abort", this.#onAbort);
		if (error === undefined) {
			this.#headers.resolve({});
		} else {
			this.#headers.reject(error);
		}
		this.#outgoing.fail(error ?? new SlipwayError("unavailable", "the call has ended"));
		if (!this.#sendClosed && !this.#stream.destroyed) {
			// The server has answered without reading on.
			this.#stream.close(constants.NGHTTP2_CANCEL);
		}
	}
}

/** What grpc-go makes of a stream that the other side reset. */
function resetError(code: number): SlipwayError {
	const [name, errorCode] = resetCodes[code] ?? [`${code}`, "unknown"];
	return new SlipwayError(errorCode, `stream terminated by RST_STREAM with error code: ${name}`);
}

const resetCodes: Readonly<Record<number, readonly [string, ErrorCode]>> = {
	0: ["NO_ERROR", "internal"],
	1: ["PROTOCOL_ERROR", "internal"],
	2: ["INTERNAL_ERROR", "internal"],
	3: ["FLOW_CONTROL_ERROR", "resource-exhausted"],
	4: ["SETTINGS_TIMEOUT", "internal"],
	5: ["STREAM_CLOSED", "internal"],
	6: ["FRAME_SIZE_ERROR", "internal"],
	7: ["REFUSED_STREAM", "unavailable"],
	8: ["CANCEL", "canceled"],
	9: ["COMPRESSION_ERROR", "internal"],
	10: ["CONNECT_ERROR", "internal"],
	11: ["ENHANCE_YOUR_CALM", "resource-exhausted"],
	12: ["INADEQUATE_SECURITY", "permission-denied"],
	13: ["HTTP_1_1_REQUIRED", "internal"],
};
