import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import type { Duplex } from "node:stream";
import { SlipwayError, toError } from "../errors/errors.ts";
import { abortReason, ClientCall, connectionLost, goingAway } from "./client-call.ts";
import { keepAlive, sessionOptions, widenConnection } from "./connection.ts";
import { EagerConnection } from "./eager-connection.ts";
import type { CallOptions, Channel, ClientStream, Method, MethodKind } from "./grpc.ts";
import { addMetadata, formatTimeout } from "./metadata.ts";

export interface ChannelOptions {
	/** Largest message that is taken; default 16 MiB, as BuildKit. */
	readonly maxMessageBytes?: number;
	/** Sent as `:authority`; default `localhost`. */
	readonly authority?: string;
}

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
