import { randomBytes } from "node:crypto";
import type { Metadata } from "./grpc.ts";

/** W3C's trace context, https://www.w3.org/TR/trace-context/: which span of which trace something belongs to. */
export interface SpanContext {
	/** 32 hexadecimal digits, not all zero. */
	readonly traceId: string;
	/** 16 hexadecimal digits, not all zero. */
	readonly spanId: string;
	/** False: whoever began the trace does not want it recorded. */
	readonly sampled: boolean;
	/** Passed on as it came. */
	readonly state: string;
}

/** The caller's span; undefined for a caller that has none, or has a malformed one. */
export function parentSpan(metadata: Metadata): SpanContext | undefined {
	const [parent, second] = metadata["traceparent"] ?? [];
	if (parent === undefined || second !== undefined) {
		return undefined;
	}
	return parseTraceParent(parent, (metadata["tracestate"] ?? []).join(","));
}

export function parseTraceParent(text: string, state = ""): SpanContext | undefined {
	const match = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(text);
	if (match === null) {
		return undefined;
	}
	const [, version, traceId = "", spanId = "", flags = "", rest] = match;
	const malformed = version === "ff" || (version === "00" && rest !== undefined);
	if (malformed || /^0+$/.test(traceId) || /^0+$/.test(spanId)) {
		return undefined;
	}
	return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1, state };
}

/** What tells a callee its parent: metadata of a call, or names of environment variables in lower case. */
export function traceMetadata({ traceId, spanId, sampled, state }: SpanContext): Metadata {
	return {
		traceparent: [`00-${traceId}-${spanId}-${sampled ? "01" : "00"}`],
		...(state === "" ? {} : { tracestate: [state] }),
	};
}

let pool = "";

/** Taken from a pool, as a call for each span would cost more than the rest of it. */
function randomHex(bytes: number): string {
	if (pool.length < bytes * 2) {
		pool = randomBytes(4096).toString("hex");
	}
	const digits = pool.slice(-bytes * 2);
	pool = pool.slice(0, -bytes * 2);
	return digits;
}

/** A new span: of the parent's trace, or of a new one. */
export function childOf(parent: SpanContext | undefined): SpanContext {
	const spanId = randomHex(8);
	return parent === undefined
		? { traceId: randomHex(16), spanId, sampled: true, state: "" }
		: { ...parent, spanId };
}
