import type { CallOptions, Channel, Metadata } from "./grpc.ts";
import { parentSpan, traceMetadata } from "./trace-context.ts";

/** The channel with each of its calls a part of the trace that the metadata belong to; the channel itself if there is none. */
export function tracedChannel(channel: Channel, metadata: Metadata): Channel {
	const parent = parentSpan(metadata);
	if (parent === undefined) {
		return channel;
	}
	const traced = traceMetadata(parent);
	const withTrace = (options: CallOptions): CallOptions => ({
		...options,
		metadata: { ...traced, ...options.metadata },
	});
	return {
		closed: channel.closed,
		unary: (method, request, options) => channel.unary(method, request, withTrace(options)),
		stream: (method, options) => channel.stream(method, withTrace(options)),
		[Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
	};
}
