import type { Duplex } from "node:stream";
import type { SlipwayError } from "../errors/errors.ts";

/**
 * gRPC over any Duplex: a socket, a TLS connection, a tunnel inside another call, a process's stdio. Both sides: `serveGrpc`
 * (grpc-server.ts) and `openChannel` (grpc-client.ts). Wire: gRPC over HTTP/2 with prior knowledge, identity encoding.
 * Why not a library: see ARCHITECTURE.md, "Dependencies".
 */

/** The shape of ts-proto's message objects, and what a codec by hand may add. */
export interface Codec<T> {
	encode(message: T): { finish(): Uint8Array };
	/** What the message refers to may be a view into `bytes`. */
	decode(bytes: Uint8Array): T;
	/**
	 * The same for a message that came in several pieces, without them being joined. Undefined: they must be. What the message refers to
	 * may be views of the pieces.
	 */
	decodePieces?(pieces: readonly Uint8Array[], size: number): T | undefined;
	/**
	 * In place of `encode`, for messages that carry much: what is sent is `head`, of which the first `reserved` bytes are left for
	 * the caller, and then `body`, without a copy. The body may be empty.
	 */
	readonly parts?: (message: T, reserved: number) => MessageParts;
}

export interface MessageParts {
	readonly head: Uint8Array;
	readonly body: Uint8Array;
}

export type MethodKind = "unary" | "client-stream" | "server-stream" | "bidi";

/** A method of a service; made once per service in `services/<name>.ts`. */
export interface Method<Kind extends MethodKind, Request, Response> {
	readonly kind: Kind;
	/** As on the wire: `/package.Service/Method`. */
	readonly path: string;
	readonly request: Codec<Request>;
	readonly response: Codec<Response>;
}

/**
 * Headers or trailers of a call, by lower-case name; a repeated key keeps all of its values in order (BuildKit sends lists
 * so). Values of `-bin` keys are base64 text. What gRPC itself uses (`te`, `content-type`, `grpc-*`, …) is not in it.
 */
export type Metadata = Readonly<Record<string, readonly string[]>>;

/** What a handler knows of the call that it serves. */
export interface ServerCall {
	readonly metadata: Metadata;
	/** Aborted when the caller cancelled, is gone, or its deadline has passed. */
	readonly signal: AbortSignal;
	/** Sends headers now, and not with the first message. At most once. */
	sendHeaders(metadata?: Metadata): void;
}

/**
 * Messages in and out of one call. Reading ends when the other side has closed its direction; it throws the error of a call
 * that failed. Not reading holds the other side back. There is one reader at a time; leaving a loop does not end the call, a later
 * loop goes on with the next message.
 */
export interface MessageStream<In, Out> extends AsyncIterable<In> {
	/**
	 * Undefined while there is room; otherwise a promise that resolves when there is again (and rejects when the call has ended).
	 * Awaiting what it gives is the whole of flow control. Throws when the call has ended. The bytes of the message belong to the
	 * call from then on: they must not change.
	 */
	send(message: Out): Promise<void> | undefined;
}

export type UnaryHandler<Request, Response> = (request: Request, call: ServerCall) => Promise<Response>;
export type ClientStreamHandler<Request, Response> = (
	stream: MessageStream<Request, never>,
	call: ServerCall,
) => Promise<Response>;
/** The call ends well when the promise resolves. */
export type ServerStreamHandler<Request, Response> = (
	request: Request,
	stream: Pick<MessageStream<never, Response>, "send">,
	call: ServerCall,
) => Promise<void>;
export type BidiHandler<Request, Response> = (
	stream: MessageStream<Request, Response>,
	call: ServerCall,
) => Promise<void>;

export interface Handlers<Request, Response> {
	readonly unary: UnaryHandler<Request, Response>;
	readonly "client-stream": ClientStreamHandler<Request, Response>;
	readonly "server-stream": ServerStreamHandler<Request, Response>;
	readonly bidi: BidiHandler<Request, Response>;
}

/** A method with what serves it; `serve` (grpc-server.ts) makes it with the types checked. */
export interface ServedMethod {
	readonly method: Method<MethodKind, never, never>;
	readonly handler: Handlers<never, never>[MethodKind];
}

export interface GrpcServerOptions {
	/** Largest message that is taken; default 16 MiB, as BuildKit. A larger one ends its call with `resource-exhausted`. */
	readonly maxMessageBytes?: number;
	/** Told each call at its end, for logs, metrics and traces. */
	readonly onCall?: (call: CallRecord) => void;
}

export interface CallRecord {
	readonly path: string;
	readonly metadata: Metadata;
	readonly startedMs: number;
	readonly endedMs: number;
	/** Undefined for a call that ended well. */
	readonly error: SlipwayError | undefined;
}

/** A call that has not ended. */
export type RunningCall = Pick<CallRecord, "path" | "metadata" | "startedMs">;

/** Serves calls on connections that are handed to it. Disposing it ends them all at once. */
export interface GrpcServer extends AsyncDisposable {
	readonly runningCalls: readonly RunningCall[];
	/** Takes the connection over; resolves when it is closed. Never rejects: a broken connection is an end like any other. */
	accept(connection: Duplex): Promise<void>;
	/** No new calls (clients are told); resolves when those that run have ended. */
	drain(): Promise<void>;
}

export interface CallOptions {
	readonly signal: AbortSignal;
	readonly metadata?: Metadata;
	/** Sent to the other side as the deadline, and enforced here. Default: none. */
	readonly timeoutMs?: number;
}

/** A call under way, at the caller's side. */
export interface ClientStream<In, Out> extends MessageStream<In, Out> {
	/** Closes our direction; reading goes on. */
	closeSend(): void;
	/** Ends the call at once. After the end it does nothing. */
	cancel(): void;
	/** The other side's headers; rejects if the call fails before it sends them. */
	readonly headers: Promise<Metadata>;
}

/** One HTTP/2 connection as its client. Disposing it cancels all calls and closes the connection. */
export interface Channel extends AsyncDisposable {
	/** Rejects with a `SlipwayError`: code, message and details of the status that came back. */
	unary<Request, Response>(
		method: Method<"unary", Request, Response>,
		request: Request,
		options: CallOptions,
	): Promise<Response>;
	/** Any method as a stream. For `server-stream`, the caller sends the one request and closes its direction. */
	stream<Request, Response>(
		method: Method<MethodKind, Request, Response>,
		options: CallOptions,
	): ClientStream<Response, Request>;
	/** Aborted with the reason when the connection is gone. */
	readonly closed: AbortSignal;
}
