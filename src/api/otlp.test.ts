import assert from "node:assert/strict";
import { createServer as createHttpServer, type IncomingHttpHeaders } from "node:http";
import { createServer } from "node:net";
import { describe, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { SlipwayError } from "../errors/errors.ts";
import { startServer } from "./connection.fixture.ts";
import { ExportTraceServiceRequest } from "./generated/otlp/collector.ts";
import type { ResourceSpans, Span } from "./generated/otlp/trace.ts";
import { serve, serveGrpc } from "./grpc-server.ts";
import {
	createSpanExporter,
	type OtlpSettings,
	readOtlpResource,
	readOtlpSampler,
	readOtlpSettings,
} from "./otlp.ts";
import { trace } from "./services/trace.ts";
import { childOf, parentSpan, parseTraceParent, traceMetadata } from "./trace-context.ts";
import { traceJson } from "./trace-json.ts";
import { createTracing, type SpanSink } from "./tracing.ts";

const scope = { name: "test", version: "1" };

/** Keeps what is written. */
function memorySink(): SpanSink & { readonly spans: () => readonly Span[] } {
	const written: ResourceSpans[] = [];
	return {
		write: (spans) => void written.push(spans),
		spans: () => written.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)),
	};
}

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("hex");

describe("trace context", () => {
	const text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

	test("what is read is what is passed on", () => {
		const context = parentSpan({ traceparent: [text], tracestate: ["a=1", "b=2"] });
		assert.deepEqual(context, {
			traceId: "0af7651916cd43dd8448eb211c80319c",
			spanId: "b7ad6b7169203331",
			sampled: true,
			state: "a=1,b=2",
		});
		assert.deepEqual(context && traceMetadata(context), { traceparent: [text], tracestate: ["a=1,b=2"] });
		assert.equal(parseTraceParent(text.replace(/^00/, "01").concat("-more"))?.sampled, true);
	});

	test("what is malformed is no parent", () => {
		for (const wrong of ["", `${text}-x`, text.toUpperCase(), text.replace("00-", "ff-"), text.slice(1)]) {
			assert.equal(parseTraceParent(wrong), undefined, wrong);
		}
		assert.equal(parseTraceParent(`00-${"0".repeat(32)}-b7ad6b7169203331-01`), undefined);
		assert.equal(parentSpan({ traceparent: [text, text] }), undefined);
	});
});

describe("tracing", () => {
	test("spans have their parents, times, attributes and errors", () => {
		const collector = memorySink();
		const tracing = createTracing({ resource: { "service.name": "t" }, scope, collector });
		const root = tracing.start("root", { startMs: 1000.5, kind: "server" });
		tracing
			.start("child", {
				parent: root.context,
				startMs: 1001,
				attributes: { text: "a", count: 3, ratio: 0.5, flag: true, list: ["x", "y"] },
			})
			.end({ endMs: 1002.25, error: "no" });
		root.end({ endMs: 1003 });
		root.end();
		const [child, parent, ...more] = collector.spans();
		assert.equal(more.length, 0);
		assert.equal(hex(child?.traceId), root.context.traceId);
		assert.equal(hex(child?.parentSpanId), root.context.spanId);
		assert.equal(hex(parent?.parentSpanId), "");
		assert.equal(parent?.startTimeUnixNano, 1_000_500_000n);
		assert.equal(child?.endTimeUnixNano, 1_002_250_000n);
		assert.equal(child?.status?.message, "no");
		assert.deepEqual(
			child?.attributes.map(({ key, value }) => [key, value?.value?.$case]),
			[
				["text", "stringValue"],
				["count", "intValue"],
				["ratio", "doubleValue"],
				["flag", "boolValue"],
				["list", "arrayValue"],
			],
		);
	});

	test("traces that their beginner does not want go to recordings only", () => {
		const collector = memorySink();
		const tracing = createTracing({ resource: {}, scope, collector, samples: () => false });
		const parent = { ...childOf(undefined), sampled: false };
		using recording = tracing.record(parent.traceId);
		tracing.start("a", { parent }).end();
		tracing.start("b").end();
		assert.equal(collector.spans().length, 0);
		assert.equal(recording.spans().length, 1);
	});

	test("calls and spans of clients; a recording gets its trace only", async () => {
		const collector = memorySink();
		const tracing = createTracing({ resource: {}, scope, collector });
		await using served = await startServer(tracing.methods, { onCall: tracing.addCall });
		const parent = childOf(undefined);
		using recording = tracing.record(parent.traceId);
		const sending: Promise<unknown>[] = [];
		const other = createTracing({
			resource: { "service.name": "client" },
			scope,
			collector: {
				write: (spans) => {
					const options = { signal: new AbortController().signal, metadata: traceMetadata(parent) };
					sending.push(served.channel.unary(trace.export, { resourceSpans: [spans] }, options));
				},
			},
		});
		other.start("wanted", { parent }).end();
		other.start("other").end();
		await Promise.all(sending);
		await served.server.drain();
		assert.deepEqual(
			collector
				.spans()
				.map(({ name }) => name)
				.sort(),
			[
				"opentelemetry.proto.collector.trace.v1.TraceService/Export",
				"opentelemetry.proto.collector.trace.v1.TraceService/Export",
				"other",
				"wanted",
			],
		);
		const names = recording.spans().map((spans) => spans.scopeSpans[0]?.spans[0]?.name);
		assert.ok(names.includes("wanted") && !names.includes("other"));
	});
});

test("traceJson has Go's shape", () => {
	const tracing = createTracing({ resource: { "service.name": "t" }, scope });
	const parent = parseTraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	assert.ok(parent);
	const spans = tracing.describe([
		{
			name: "a",
			parent,
			context: { ...parent, spanId: "1111111111111111" },
			startMs: 1_763_719_200_250,
			endMs: 1_763_719_201_000,
			error: "no",
			attributes: { vertex: "sha256:00", count: 2, list: ["x"] },
		},
	]);
	const text = traceJson([spans]);
	assert.match(text, /^[^\n]*\n$/);
	const instrumentation = { Name: "test", Version: "1", SchemaURL: "", Attributes: {} };
	assert.deepEqual(JSON.parse(text), {
		Name: "a",
		SpanContext: {
			TraceID: parent.traceId,
			SpanID: "1111111111111111",
			TraceFlags: "01",
			TraceState: "",
			Remote: false,
		},
		Parent: {
			TraceID: parent.traceId,
			SpanID: parent.spanId,
			TraceFlags: "01",
			TraceState: "",
			Remote: true,
		},
		SpanKind: 1,
		StartTime: "2025-11-21T10:00:00.25Z",
		EndTime: "2025-11-21T10:00:01Z",
		Attributes: [
			{ Key: "vertex", Value: { Type: "STRING", Value: "sha256:00" } },
			{ Key: "count", Value: { Type: "INT64", Value: 2 } },
			{ Key: "list", Value: { Type: "STRINGSLICE", Value: ["x"] } },
		],
		Events: null,
		Links: null,
		Status: { Code: 1, Description: "no" },
		DroppedAttributes: 0,
		DroppedEvents: 0,
		DroppedLinks: 0,
		ChildSpanCount: 0,
		Resource: [{ Key: "service.name", Value: { Type: "STRING", Value: "t" } }],
		InstrumentationScope: instrumentation,
		InstrumentationLibrary: instrumentation,
	});
});

describe("settings", () => {
	const endpointOf = (env: Record<string, string>) => readOtlpSettings(env)?.endpoint.href;

	test("endpoints", () => {
		assert.equal(readOtlpSettings({}), undefined);
		assert.equal(
			readOtlpSettings({ OTEL_TRACES_EXPORTER: "none", OTEL_EXPORTER_OTLP_ENDPOINT: "http://x" }),
			undefined,
		);
		assert.equal(
			readOtlpSettings({ OTEL_SDK_DISABLED: "true", OTEL_EXPORTER_OTLP_ENDPOINT: "http://x" }),
			undefined,
		);
		assert.equal(endpointOf({ OTEL_TRACES_EXPORTER: "otlp" }), "http://localhost:4317/");
		const http = { OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf" };
		assert.equal(endpointOf({ ...http, OTEL_TRACES_EXPORTER: "otlp" }), "http://localhost:4318/v1/traces");
		assert.equal(
			endpointOf({ ...http, OTEL_EXPORTER_OTLP_ENDPOINT: "https://c/base/" }),
			"https://c/base/v1/traces",
		);
		assert.equal(
			endpointOf({ ...http, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://c/own" }),
			"https://c/own",
		);
		assert.equal(endpointOf({ OTEL_EXPORTER_OTLP_ENDPOINT: "c:4317" }), "https://c:4317/");
		assert.equal(
			endpointOf({ OTEL_EXPORTER_OTLP_ENDPOINT: "c:4317", OTEL_EXPORTER_OTLP_INSECURE: "true" }),
			"http://c:4317/",
		);
		assert.equal(
			readOtlpSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "unix:///dev/otel.sock" })?.socketPath,
			"/dev/otel.sock",
		);
	});

	test("headers, compression, times, resource and sampler", () => {
		const settings = readOtlpSettings({
			OTEL_EXPORTER_OTLP_ENDPOINT: "http://c",
			OTEL_EXPORTER_OTLP_HEADERS: "Authorization=Basic%20abc, x = y",
			OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
			OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: "50",
		});
		assert.deepEqual(settings?.headers, { authorization: "Basic abc", x: "y" });
		assert.equal(settings?.gzip, true);
		assert.equal(settings?.timeoutMs, 50);
		assert.deepEqual(
			readOtlpResource(
				{ OTEL_RESOURCE_ATTRIBUTES: "a=1,service.name=x,b", OTEL_SERVICE_NAME: "mine" },
				{ "service.name": "default" },
			),
			{ "service.name": "mine", a: "1" },
		);
		assert.equal(readOtlpSampler({})("f".repeat(32)), true);
		assert.equal(readOtlpSampler({ OTEL_TRACES_SAMPLER: "always_off" })("f".repeat(32)), false);
		const half = readOtlpSampler({
			OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
			OTEL_TRACES_SAMPLER_ARG: "0.5",
		});
		assert.deepEqual([half("0".repeat(32)), half("f".repeat(32))], [true, false]);
	});

	test("what makes no sense", () => {
		for (const env of [
			{ OTEL_TRACES_EXPORTER: "zipkin" },
			{ OTEL_TRACES_EXPORTER: "otlp", OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" },
			{ OTEL_EXPORTER_OTLP_ENDPOINT: "ftp://x" },
			{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://x", OTEL_EXPORTER_OTLP_TIMEOUT: "soon" },
			{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://x", OTEL_EXPORTER_OTLP_COMPRESSION: "zstd" },
			{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://x", OTEL_EXPORTER_OTLP_CERTIFICATE: "/nonexistent" },
		]) {
			assert.throws(() => readOtlpSettings(env), SlipwayError);
		}
		assert.throws(() => readOtlpSampler({ OTEL_TRACES_SAMPLER: "dice" }), SlipwayError);
	});
});

describe("exporter", () => {
	const settings: OtlpSettings = {
		protocol: "http/protobuf",
		endpoint: new URL("http://localhost/"),
		headers: { "x-key": "k" },
		gzip: false,
		timeoutMs: 5000,
		tls: {},
		batchMs: 60_000,
	};

	test("http: batches, headers, compression, and another attempt where it makes sense", async () => {
		const bodies: { readonly headers: IncomingHttpHeaders; readonly body: Buffer }[] = [];
		const answers = [503, 200];
		const server = createHttpServer(async (request, response) => {
			const parts: Uint8Array[] = [];
			for await (const part of request) {
				parts.push(part);
			}
			bodies.push({ headers: request.headers, body: Buffer.concat(parts) });
			response.writeHead(answers.shift() ?? 200).end();
		});
		await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
		const { port } = server.address() as { readonly port: number };
		try {
			const warnings: string[] = [];
			await using exporter = createSpanExporter({
				settings: { ...settings, endpoint: new URL(`http://127.0.0.1:${port}/v1/traces`), gzip: true },
				warn: (message) => warnings.push(message),
				retryMs: 1,
			});
			const tracing = createTracing({ resource: { a: "b" }, scope, collector: exporter });
			for (let index = 0; index < 600; index++) {
				tracing.start(`span ${index}`).end();
			}
			await exporter.flush();
			assert.equal(bodies.length, 3);
			assert.equal(bodies[0]?.headers["x-key"], "k");
			assert.equal(bodies[0]?.headers["content-type"], "application/x-protobuf");
			const spans = bodies.slice(1).flatMap(({ body }) => {
				const { resourceSpans } = ExportTraceServiceRequest.decode(gunzipSync(body));
				assert.equal(resourceSpans.length, 1);
				assert.equal(resourceSpans[0]?.scopeSpans.length, 1);
				return resourceSpans[0]?.scopeSpans[0]?.spans ?? [];
			});
			assert.deepEqual(
				spans.map(({ name }) => name),
				Array.from({ length: 600 }, (_, index) => `span ${index}`),
			);
			answers.push(400);
			tracing.start("refused").end();
			await exporter.flush();
			assert.match(
				warnings.join(),
				/^1 spans of traces are lost: http:\/\/127.0.0.1:\d+\/v1\/traces answered 400$/,
			);
		} finally {
			server.close();
			server.closeAllConnections();
		}
	});

	test("grpc: one connection, opened again when it was lost", async () => {
		const names: string[] = [];
		const keys: unknown[] = [];
		const grpc = serveGrpc([
			serve(trace.export, async ({ resourceSpans }, { metadata }) => {
				keys.push(metadata["x-key"]);
				for (const { scopeSpans } of resourceSpans) {
					names.push(...scopeSpans.flatMap(({ spans }) => spans.map(({ name }) => name)));
				}
				return { partialSuccess: undefined };
			}),
		]);
		const sockets: { destroy(): void }[] = [];
		const server = createServer((socket) => {
			sockets.push(socket);
			void grpc.accept(socket);
		});
		await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
		const { port } = server.address() as { readonly port: number };
		try {
			await using exporter = createSpanExporter({
				settings: { ...settings, protocol: "grpc", endpoint: new URL(`http://127.0.0.1:${port}`) },
				warn: (message) => assert.fail(message),
				retryMs: 1,
			});
			const tracing = createTracing({ resource: {}, scope, collector: exporter });
			tracing.start("first").end();
			await exporter.flush();
			tracing.start("second").end();
			await exporter.flush();
			assert.equal(sockets.length, 1);
			sockets[0]?.destroy();
			tracing.start("third").end();
			await exporter.flush();
			assert.deepEqual(names, ["first", "second", "third"]);
			assert.deepEqual(keys[0], ["k"]);
		} finally {
			await grpc[Symbol.asyncDispose]();
			server.close();
		}
	});

	test("a collector that is not there costs spans, and nothing else", async () => {
		const warnings: string[] = [];
		const exporter = createSpanExporter({
			settings: { ...settings, protocol: "grpc", socketPath: "/nonexistent/socket" },
			warn: (message) => warnings.push(message),
			retryMs: 1,
		});
		const tracing = createTracing({ resource: {}, scope, collector: exporter });
		for (let index = 0; index < 20_000; index++) {
			tracing.start("lost").end();
		}
		await exporter[Symbol.asyncDispose]();
		assert.ok(
			warnings.length > 0 && warnings.every((text) => /spans of traces are lost: connecting to/.test(text)),
		);
	});
});
