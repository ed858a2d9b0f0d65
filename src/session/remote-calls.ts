import type { CallOptions, Channel, ClientStream, Metadata, Method, MethodKind } from "../api/grpc.ts";
import { toError } from "../errors/errors.ts";

/** How the parts of a remote session reach their client. */
export interface RemoteCalls {
	readonly channel: Channel;
	/** Aborted when the client is gone. */
	readonly closed: AbortSignal;
	supports(method: { readonly path: string }): boolean;
}

export interface CallRequest {
	readonly signal: AbortSignal;
	readonly metadata?: Metadata;
	readonly timeoutMs?: number;
}

export async function call<Request, Response>(
	{ channel, closed }: RemoteCalls,
	method: Method<"unary", Request, Response>,
	request: Request,
	options: CallRequest,
): Promise<Response> {
	return channel.unary(method, request, joined(options, closed));
}

export interface OpenCall<In, Out> extends Disposable {
	readonly stream: ClientStream<In, Out>;
	/** Ends it with the error, as whoever waits for it will see. */
	fail(error: Error): void;
}

/** A call that is cancelled when it is left without having ended. */
export function openCall<Request, Response>(
	{ channel, closed }: RemoteCalls,
	method: Method<MethodKind, Request, Response>,
	options: CallRequest,
): OpenCall<Response, Request> {
	const failed = new AbortController();
	const joint = joined(options, closed);
	const stream = channel.stream(method, {
		...joint,
		signal: AbortSignal.any([joint.signal, failed.signal]),
	});
	stream.headers.catch(() => undefined);
	return {
		stream,
		fail: (error) => failed.abort(error),
		[Symbol.dispose]: () => stream.cancel(),
	};
}

/**
 * Our direction is closed: the other side ends the call, within a moment if it is honest. What it still sends is of no interest; how it
 * ended is.
 */
export async function ended(stream: ClientStream<unknown, never>): Promise<void> {
	stream.closeSend();
	for await (const _ of stream) {
		// Nothing is expected.
	}
}

function joined({ signal, ...rest }: CallRequest, closed: AbortSignal): CallOptions {
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	if (closed.aborted) {
		throw toError(closed.reason);
	}
	return { ...rest, signal: AbortSignal.any([signal, closed]) };
}
