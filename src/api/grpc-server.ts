import { performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import { SlipwayError, toError } from "../errors/errors.ts";
import { keepAlive, sessionOptions, widenConnection } from "./connection.ts";
import type {
	GrpcServer,
	GrpcServerOptions,
	Handlers,
	Method,
	MethodKind,
	RunningCall,
	ServedMethod,
} from "./grpc.ts";
import { metadataOf, parseTimeout, rawHeader } from "./metadata.ts";
import { Call, refuse } from "./server-call.ts";

const defaultMaxMessageBytes = 16 << 20;
/** Of one connection; more wait at the client. Long calls of many builds are on one connection. */
const maxConcurrentStreams = 4096;
/** A connection that does not begin with HTTP/2's preface until then is closed. */
const prefaceTimeoutMs = 120_000;

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
