import type { AnyValue, KeyValue } from "./generated/otlp/common.ts";
import type { ResourceSpans, Span } from "./generated/otlp/trace.ts";
import { emptySpan, Span_SpanKind, Status_StatusCode } from "./generated/otlp/trace.ts";
import type { CallRecord, ServedMethod } from "./grpc.ts";
import { serve } from "./grpc-server.ts";
import { trace } from "./services/trace.ts";
import { childOf, parentSpan, type SpanContext } from "./trace-context.ts";

/**
 * Spans: what took how long, and as a part of what. They go to a collector if one is configured (`otlp.ts`), and to whoever
 * records a trace, as the build history does. Spans of clients, which they send here because the collector is not theirs, take
 * the same ways.
 */
export interface Tracing {
	/** Begins a span that counts when it is ended. */
	start(name: string, options?: SpanOptions): ActiveSpan;
	/** Spans whose both ends are known, as spans of this process; nobody gets them yet. */
	describe(spans: readonly KnownSpan[]): ResourceSpans;
	/** To the collector, but not to recordings. */
	collect(spans: ResourceSpans): void;
	/** Whether there is a collector. */
	readonly collects: boolean;
	/** A served call, as a span below its caller's. */
	addCall(call: CallRecord): void;
	/** Collects the spans of one trace from now on. */
	record(traceId: string): TraceRecording;
	/** `opentelemetry.proto.collector.trace.v1.TraceService`, for spans of clients. */
	readonly methods: readonly ServedMethod[];
}

export type AttributeValue = string | number | boolean | readonly string[];
export type Attributes = Readonly<Record<string, AttributeValue>>;

export interface SpanOptions {
	/** Default: the span begins a trace. */
	readonly parent?: SpanContext | undefined;
	/** `server` for what somebody else has asked for. Default `internal`. */
	readonly kind?: "internal" | "server" | "client";
	/** Milliseconds since the epoch, with fractions. Default: now. */
	readonly startMs?: number;
	readonly attributes?: Attributes;
}

export interface SpanEnd {
	/** Default: now. */
	readonly endMs?: number;
	/** Sentence; set for what failed. */
	readonly error?: string | undefined;
	readonly attributes?: Attributes;
}

export interface KnownSpan extends SpanOptions, SpanEnd {
	readonly name: string;
	readonly context: SpanContext;
	readonly startMs: number;
	readonly endMs: number;
}

export interface ActiveSpan {
	/** What children name as their parent. */
	readonly context: SpanContext;
	/** At most once. */
	end(end?: SpanEnd): void;
}

export interface TraceRecording extends Disposable {
	/** What came until now, by the process that it came from. */
	spans(): readonly ResourceSpans[];
}

/** Takes spans without waiting. */
export interface SpanSink {
	write(spans: ResourceSpans): void;
}

export interface TracingOptions {
	/** Who makes the spans of this process; `service.name` among them. */
	readonly resource: Attributes;
	readonly scope: { readonly name: string; readonly version: string };
	readonly collector?: SpanSink | undefined;
	/** Whether a trace that begins here is recorded. Default: all are. */
	readonly samples?: (traceId: string) => boolean;
}

/** Of one recording; a build has a few spans for each of its steps. */
const maxRecordedSpans = 20_000;

export function createTracing(options: TracingOptions): Tracing {
	const { collector, samples = () => true } = options;
	const recordings = new Map<string, Set<Recording>>();
	const resource = { attributes: keyValues(options.resource), droppedAttributesCount: 0 };
	const scope = { ...options.scope, attributes: [], droppedAttributesCount: 0 };

	/** To those who record its trace. */
	const keep = (spans: ResourceSpans): void => {
		if (recordings.size === 0) {
			return;
		}
		for (const scopeSpans of spans.scopeSpans) {
			for (const span of scopeSpans.spans) {
				for (const recording of recordings.get(hex(span.traceId)) ?? []) {
					recording.add(spans, { ...scopeSpans, spans: [span] });
				}
			}
		}
	};

	const describe = (known: readonly KnownSpan[]): ResourceSpans => ({
		resource,
		scopeSpans: [{ scope, spans: known.map(spanOf), schemaUrl: "" }],
		schemaUrl: "",
	});

	const start = (name: string, spanOptions: SpanOptions = {}): ActiveSpan => {
		const { parent, startMs = nowMs(), attributes } = spanOptions;
		const child = childOf(parent);
		const context = parent === undefined ? { ...child, sampled: samples(child.traceId) } : child;
		let ended = false;
		return {
			context,
			end({ endMs = nowMs(), error, attributes: more = {} } = {}) {
				if (ended) {
					return;
				}
				ended = true;
				const spans = describe([
					{ ...spanOptions, name, context, startMs, endMs, error, attributes: { ...attributes, ...more } },
				]);
				keep(spans);
				if (context.sampled) {
					collector?.write(spans);
				}
			},
		};
	};

	return {
		start,
		describe,
		collect: (spans) => collector?.write(spans),
		collects: collector !== undefined,
		addCall({ path, metadata, startedMs, endedMs, error }) {
			if (collector === undefined && recordings.size === 0) {
				return;
			}
			const parent = parentSpan(metadata);
			if (collector === undefined && !recordings.has(parent?.traceId ?? "")) {
				return;
			}
			start(path.slice(1), {
				parent,
				kind: "server",
				startMs: startedMs,
				attributes: {
					"rpc.method": path.slice(1),
					"rpc.system.name": "grpc",
					"rpc.response.status_code": canonicalCode(error?.code),
				},
			}).end({ endMs: endedMs, error: error?.message });
		},
		record(traceId) {
			const recording = new Recording(() => {
				const others = recordings.get(traceId);
				others?.delete(recording);
				if (others?.size === 0) {
					recordings.delete(traceId);
				}
			});
			const others = recordings.get(traceId) ?? new Set();
			others.add(recording);
			recordings.set(traceId, others);
			return recording;
		},
		methods: [
			serve(trace.export, async ({ resourceSpans }) => {
				for (const spans of resourceSpans) {
					keep(spans);
					collector?.write(spans);
				}
				return { partialSuccess: undefined };
			}),
		],
	};
}

function spanOf(known: KnownSpan): Span {
	const { name, context, parent, kind = "internal", startMs, endMs, error, attributes = {} } = known;
	return {
		...emptySpan(),
		traceId: Buffer.from(context.traceId, "hex"),
		spanId: Buffer.from(context.spanId, "hex"),
		traceState: context.state,
		parentSpanId: Buffer.from(parent?.spanId ?? "", "hex"),
		name,
		kind: kinds[kind],
		startTimeUnixNano: nanoseconds(startMs),
		endTimeUnixNano: nanoseconds(Math.max(startMs, endMs)),
		attributes: keyValues(attributes),
		status: error === undefined ? undefined : { code: Status_StatusCode.STATUS_CODE_ERROR, message: error },
		flags: context.sampled ? 1 : 0,
	};
}

class Recording implements TraceRecording {
	readonly #spans: ResourceSpans[] = [];
	readonly #onDispose: () => void;

	constructor(onDispose: () => void) {
		this.#onDispose = onDispose;
	}

	add(from: ResourceSpans, scopeSpans: ResourceSpans["scopeSpans"][number]): void {
		if (this.#spans.length < maxRecordedSpans) {
			this.#spans.push({ ...from, scopeSpans: [scopeSpans] });
		}
	}

	spans(): readonly ResourceSpans[] {
		return [...this.#spans];
	}

	[Symbol.dispose](): void {
		this.#onDispose();
	}
}

const kinds = {
	internal: Span_SpanKind.SPAN_KIND_INTERNAL,
	server: Span_SpanKind.SPAN_KIND_SERVER,
	client: Span_SpanKind.SPAN_KIND_CLIENT,
};

/** gRPC's own spelling of a code. */
export function canonicalCode(code: string | undefined): string {
	if (code === undefined) {
		return "OK";
	}
	return code === "canceled" ? "CANCELLED" : code.toUpperCase().replaceAll("-", "_");
}

export function keyValues(attributes: Attributes): readonly KeyValue[] {
	return Object.entries(attributes).map(([key, value]) => ({ key, value: anyValue(value) }));
}

function anyValue(value: AttributeValue): AnyValue {
	switch (typeof value) {
		case "string":
			return { value: { $case: "stringValue", value } };
		case "boolean":
			return { value: { $case: "boolValue", value } };
		case "number":
			return Number.isSafeInteger(value)
				? { value: { $case: "intValue", value: BigInt(value) } }
				: { value: { $case: "doubleValue", value } };
		default:
			return { value: { $case: "arrayValue", value: { values: value.map(anyValue) } } };
	}
}

function nanoseconds(milliseconds: number): bigint {
	const whole = Math.floor(milliseconds);
	return BigInt(whole) * 1_000_000n + BigInt(Math.floor((milliseconds - whole) * 1e6));
}

function nowMs(): number {
	return performance.timeOrigin + performance.now();
}

function hex(bytes: Uint8Array): string {
	return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
