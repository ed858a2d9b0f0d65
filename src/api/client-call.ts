import { type ClientHttp2Stream, constants } from "node:http2";
import { canceled, type ErrorCode, SlipwayError } from "../errors/errors.ts";
import { maxTimerMs } from "./connection.ts";
import type { EagerConnection } from "./eager-connection.ts";
import type { CallOptions, ClientStream, Metadata, Method, MethodKind } from "./grpc.ts";
import { Incoming } from "./incoming.ts";
import { httpError, metadataOf, rawHeader, readStatus } from "./metadata.ts";
import { Outgoing } from "./outgoing.ts";

export function connectionLost(cause: unknown): SlipwayError {
	return new SlipwayError(
		"unavailable",
		cause instanceof Error ? `connection closed: ${cause.message}` : "connection closed",
		{ cause },
	);
}

export function goingAway(): SlipwayError {
	return new SlipwayError("unavailable", "the server takes no more calls on this connection");
}

export function abortReason(signal: AbortSignal): SlipwayError {
	return signal.reason instanceof SlipwayError ? signal.reason : canceled(signal.reason);
}

export interface ClientCallParts {
	readonly options: CallOptions;
	readonly maxMessageBytes: number;
	readonly connection: EagerConnection;
	/** The server takes no more calls. */
	readonly isGoingAway: () => boolean;
	readonly isConnected: () => boolean;
	/** Why it is not connected. */
	readonly connectionLost: () => Promise<SlipwayError>;
}

export class ClientCall<In, Out> implements ClientStream<In, Out> {
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
