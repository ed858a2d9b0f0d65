import {
	constants,
	performServerHandshake,
	type ServerHttp2Session,
	type ServerHttp2Stream,
} from "node:http2";
import type { Duplex } from "node:stream";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { keepAlive, sessionOptions, widenConnection } from "./connection.ts";
import type { Frame } from "./frames.ts";
import type {
	CallRecord,
	GrpcServer,
	GrpcServerOptions,
	Handlers,
	Metadata,
	Method,
	MethodKind,
	RunningCall,
	ServedMethod,
	ServerCall,
} from "./grpc.ts";
import { Incoming } from "./incoming.ts";
import { addMetadata, metadataOf, parseTimeout, rawHeader, statusTrailers } from "./metadata.ts";
import { Outgoing } from "./outgoing.ts";

const defaultMaxMessageBytes = 16 << 20;
/** Of one connection; more wait at the client. Long calls of many builds are on one connection. */
const maxConcurrentStreams = 4096;
/** A connection that does not begin with HTTP/2's preface until then is closed. */
const prefaceTimeoutMs = 120_000;
/** How long a client may go on sending after its answer. */
const lingerMs = 10_000;
/** The types of Node do not know it. */
const noDate: object = { sendDate: false };
/** The longest time that a timer of Node can hold. */
const maxTimerMs = 2_147_483_647;

/** A method with its handler, of matching types. */
export function serve<Kind extends MethodKind, Request, Response>(
	method: Method<Kind, Request, Response>,
	handler: Handlers<NoInfer<Request>, NoInfer<Response>>[Kind],
): ServedMethod {
	return { method, handler } as unknown as ServedMethod;
}

/** Of two methods with the same path the later one counts. */
export function serveGrpc(methods: readonly ServedMethod[], options: GrpcServerOptions = {}): GrpcServer {
	return new Server(methods, options);
}

class Server implements GrpcServer {
	readonly #methods: ReadonlyMap<string, ServedMethod>;
	/** `package.Service`, with a leading slash. */
	readonly #services: ReadonlySet<string>;
	readonly #options: GrpcServerOptions;
	readonly #sessions: Set<ServerHttp2Session> = new Set();
	readonly #calls: Set<Call> = new Set();
	#draining = false;
	#idle: PromiseWithResolvers<void> | undefined;

	constructor(methods: readonly ServedMethod[], options: GrpcServerOptions) {
		this.#methods = new Map(methods.map((served) => [served.method.path, served]));
		this.#services = new Set(methods.map(({ method }) => method.path.slice(0, method.path.lastIndexOf("/"))));
		this.#options = options;
	}

	get runningCalls(): readonly RunningCall[] {
		return [...this.#calls].map(({ path, metadata, startedMs }) => ({ path, metadata, startedMs }));
	}

	async accept(connection: Duplex): Promise<void> {
		connection.on("error", () => {});
		if (this.#draining || connection.destroyed) {
			connection.destroy();
			return;
		}
		const { promise, resolve } = Promise.withResolvers<void>();
		keepAlive(connection);
		const session = performServerHandshake(connection, {
			...sessionOptions,
			settings: { ...sessionOptions.settings, maxConcurrentStreams },
		});
		this.#sessions.add(session);
		const preface = setTimeout(() => session.destroy(), prefaceTimeoutMs).unref();
		widenConnection(session);
		session.on("error", () => {});
		session.once("remoteSettings", () => clearTimeout(preface));
		session.once("close", () => {
			clearTimeout(preface);
			this.#sessions.delete(session);
			// The session leaves a connection that failed half open.
			connection.destroy();
			resolve();
		});
		connection.once("close", () => session.destroy());
		session.on("stream", (stream, headers, _flags, rawHeaders) => {
			this.#onStream(stream, headers[":method"] ?? "", headers[":path"] ?? "", rawHeaders);
		});
		await promise;
	}

	async drain(): Promise<void> {
		this.#draining = true;
		for (const session of this.#sessions) {
			session.close();
		}
		await this.#whenIdle();
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#draining = true;
		for (const call of this.#calls) {
			call.abort(new SlipwayError("unavailable", "the server is closing"));
		}
		for (const session of this.#sessions) {
			session.destroy();
		}
		await this.#whenIdle();
	}

	#whenIdle(): Promise<void> {
		if (this.#calls.size === 0) {
			return Promise.resolve();
		}
		this.#idle ??= Promise.withResolvers();
		return this.#idle.promise;
	}

	#onStream(stream: ServerHttp2Stream, httpMethod: string, path: string, rawHeaders: string[]): void {
		stream.on("error", () => {});
		const contentType = rawHeader(rawHeaders, "content-type") ?? "";
		if (!/^application\/grpc($|[+;])/.test(contentType)) {
			const reason = `invalid gRPC request content-type ${JSON.stringify(contentType)}`;
			refuse(stream, new SlipwayError("invalid-argument", reason), 415);
			return;
		}
		let timeoutMs: number | undefined;
		try {
			const timeout = rawHeader(rawHeaders, "grpc-timeout");
			timeoutMs = timeout === undefined ? undefined : parseTimeout(timeout);
		} catch (error) {
			refuse(stream, toError(error), 400);
			return;
		}
		if (httpMethod !== "POST") {
			const reason = `Received a HEADERS frame with :method ${JSON.stringify(httpMethod)} which should be POST`;
			refuse(stream, new SlipwayError("internal", reason), 405);
			return;
		}
		const served = this.#methods.get(path);
		const encoding = rawHeader(rawHeaders, "grpc-encoding") ?? "identity";
		if (served === undefined) {
			refuse(stream, this.#unknown(path), 200);
			return;
		}
		if (encoding !== "identity" && encoding !== "") {
			const reason = `grpc: Decompressor is not installed for grpc-encoding ${JSON.stringify(encoding)}`;
			refuse(stream, new SlipwayError("unimplemented", reason), 200);
			return;
		}
		const call = new Call(stream, served, {
			metadata: metadataOf(rawHeaders),
			timeoutMs,
			maxMessageBytes: this.#options.maxMessageBytes ?? defaultMaxMessageBytes,
			onEnd: (record) => {
				this.#options.onCall?.(record);
			},
		});
		this.#calls.add(call);
		void call.run().finally(() => {
			this.#calls.delete(call);
			if (this.#calls.size === 0) {
				this.#idle?.resolve();
				this.#idle = undefined;
			}
		});
	}

	#unknown(path: string): SlipwayError {
		const slash = path.lastIndexOf("/");
		const service = path.slice(0, Math.max(slash, 0));
		const reason =
			slash <= 0
				? `malformed method name: ${JSON.stringify(path)}`
				: this.#services.has(service)
					? `unknown method ${path.slice(slash + 1)} for service ${service.slice(1)}`
					: `unknown service ${service.slice(1)}`;
		return new SlipwayError("unimplemented", reason);
	}
}

/** An answer that is a status and nothing else. */
function refuse(stream: ServerHttp2Stream, error: SlipwayError, httpStatus: number): void {
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

interface CallParts {
	readonly metadata: Metadata;
	readonly timeoutMs: number | undefined;
	readonly maxMessageBytes: number;
	readonly onEnd: (record: CallRecord) => void;
}

/** One call, from its headers to its status. */
class Call implements ServerCall {
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
		const end = error ?? canceled();
		this.#outgoing.fail(end);
		this.#incoming.fail(end);
		this.#parts.onEnd({
			path: this.path,
			metadata: this.metadata,
			startedMs: this.startedMs,
			endedMs: performance.timeOrigin + performance.now(),
			error,
		});
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
