import type { AnyValue, InstrumentationScope, KeyValue } from "./generated/otlp/common.ts";
import type { ResourceSpans, Span } from "./generated/otlp/trace.ts";

/**
 * The trace of a build as its history keeps it (`application/vnd.buildkit.otlp.json.v0`): one JSON document on a line for each span, in the
 * shape of the Go SDK's span stubs, which is what `buildctl debug logs --trace` and `docker buildx history trace` read.
 */
export function traceJson(spans: readonly ResourceSpans[]): string {
	const parts: string[] = [];
	for (const { resource, scopeSpans } of spans) {
		const attributes = (resource?.attributes ?? []).map(attribute);
		for (const { scope, spans: inScope } of scopeSpans) {
			// Where spans come from is most of their text, and the same for all.
			const origin = JSON.stringify({
				Resource: attributes,
				InstrumentationScope: instrumentation(scope),
				InstrumentationLibrary: instrumentation(scope),
			});
			for (const span of inScope) {
				parts.push(JSON.stringify(stub(span)).slice(0, -1), ",", origin.slice(1), "\n");
			}
		}
	}
	return parts.join("");
}

function instrumentation(scope: InstrumentationScope | undefined): object {
	return { Name: scope?.name ?? "", Version: scope?.version ?? "", SchemaURL: "", Attributes: {} };
}

function stub(span: Span): object {
	const flags = (span.flags & 1) === 1 ? "01" : "00";
	const contextOf = (spanId: Uint8Array, isRemote: boolean): object => ({
		TraceID: hex(span.traceId, 32),
		SpanID: hex(spanId, 16),
		TraceFlags: flags,
		TraceState: span.traceState,
		Remote: isRemote,
	});
	const hasParent = span.parentSpanId.length > 0;
	return {
		Name: span.name,
		SpanContext: contextOf(span.spanId, false),
		Parent: hasParent
			? contextOf(span.parentSpanId, true)
			: {
					TraceID: hex(new Uint8Array(0), 32),
					SpanID: hex(new Uint8Array(0), 16),
					TraceFlags: "00",
					TraceState: "",
					Remote: false,
				},
		SpanKind: span.kind,
		StartTime: goTime(span.startTimeUnixNano),
		EndTime: goTime(span.endTimeUnixNano),
		Attributes: orNull(span.attributes.map(attribute)),
		Events: orNull(
			span.events.map(({ name, attributes, droppedAttributesCount, timeUnixNano }) => ({
				Name: name,
				Attributes: orNull(attributes.map(attribute)),
				DroppedAttributeCount: droppedAttributesCount,
				Time: goTime(timeUnixNano),
			})),
		),
		Links: orNull(
			span.links.map((link) => ({
				SpanContext: {
					TraceID: hex(link.traceId, 32),
					SpanID: hex(link.spanId, 16),
					TraceFlags: (link.flags & 1) === 1 ? "01" : "00",
					TraceState: link.traceState,
					Remote: false,
				},
				Attributes: orNull(link.attributes.map(attribute)),
				DroppedAttributeCount: link.droppedAttributesCount,
			})),
		),
		// The SDK numbers them otherwise than the wire: unset, error, ok.
		Status: { Code: [0, 2, 1][span.status?.code ?? 0] ?? 0, Description: span.status?.message ?? "" },
		DroppedAttributes: span.droppedAttributesCount,
		DroppedEvents: span.droppedEventsCount,
		DroppedLinks: span.droppedLinksCount,
		ChildSpanCount: 0,
	};
}

function orNull<T>(values: readonly T[]): readonly T[] | null {
	return values.length === 0 ? null : values;
}

function attribute({ key, value }: KeyValue): object {
	return { Key: key, Value: typed(value) };
}

function typed(value: AnyValue | undefined): object {
	const inner = value?.value;
	switch (inner?.$case) {
		case "stringValue":
			return { Type: "STRING", Value: inner.value };
		case "boolValue":
			return { Type: "BOOL", Value: inner.value };
		case "intValue":
			return { Type: "INT64", Value: Number(inner.value) };
		case "doubleValue":
			return { Type: "FLOAT64", Value: inner.value };
		case "arrayValue":
			return arrayValue(inner.value.values);
		case "bytesValue":
			return { Type: "STRING", Value: Buffer.from(inner.value).toString("base64") };
		case "kvlistValue":
			return {
				Type: "STRING",
				Value: JSON.stringify(
					Object.fromEntries(inner.value.values.map((entry) => [entry.key, typed(entry.value)])),
				),
			};
		case undefined:
			return { Type: "STRING", Value: "" };
	}
}

const sliceTypes: ReadonlyMap<string, string> = new Map([
	["boolValue", "BOOLSLICE"],
	["intValue", "INT64SLICE"],
	["doubleValue", "FLOAT64SLICE"],
]);

/** The SDK has lists of one type only. */
function arrayValue(values: readonly AnyValue[]): object {
	const first = values[0]?.value?.$case;
	const same = values.every((value) => value.value?.$case === first);
	const type = sliceTypes.get(first ?? "");
	if (!same || type === undefined) {
		return { Type: "STRINGSLICE", Value: values.map((value) => String(plain(value))) };
	}
	return {
		Type: type,
		Value: values.map((value) => (first === "intValue" ? Number(plain(value)) : plain(value))),
	};
}

function plain(value: AnyValue): unknown {
	return value.value?.value ?? "";
}

function hex(bytes: Uint8Array, digits: number): string {
	return Buffer.from(bytes).toString("hex").padStart(digits, "0");
}

let lastSecond = { seconds: -1, text: "" };

/** RFC 3339 with nanoseconds, without trailing zeros. */
function goTime(nanoseconds: bigint): string {
	// The last second that a date can hold is far enough.
	const seconds = Math.min(Number(nanoseconds / 1_000_000_000n), 253_402_300_799);
	if (lastSecond.seconds !== seconds) {
		lastSecond = { seconds, text: new Date(seconds * 1000).toISOString().slice(0, 19) };
	}
	const fraction = Number(nanoseconds % 1_000_000_000n);
	const digits = fraction === 0 ? "" : `.${String(fraction).padStart(9, "0").replace(/0+$/, "")}`;
	return `${lastSecond.text}${digits}Z`;
}
