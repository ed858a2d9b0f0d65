import assert from "node:assert/strict";
import { test } from "node:test";
import { ExportMetricsServiceRequest } from "./generated/otlp/metrics-collector.ts";
import { readOtlpSettings } from "./otlp.ts";
import { createMetricsExporter, type MetricFamily } from "./otlp-metrics.ts";

const families: readonly MetricFamily[] = [
	{
		name: "builds_total",
		help: "Builds.",
		data: { kind: "counter", points: [{ labels: { status: "ok" }, value: 3 }] },
	},
	{ name: "running", help: "Now.", data: { kind: "gauge", points: [{ labels: {}, value: 0.5 }] } },
	{
		name: "time_seconds",
		help: "Times.",
		data: {
			kind: "histogram",
			bounds: [1, 2],
			points: [{ labels: {}, counts: [2, 1], count: 4, sum: 102 }],
		},
	},
];

test("createMetricsExporter: counters, gauges and histograms, once more at the end; losses are told", async () => {
	const settings = readOtlpSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://localhost:1" }, "metrics");
	assert.ok(settings);
	const sent: Uint8Array[] = [];
	const warnings: string[] = [];
	{
		await using exporter = createMetricsExporter({
			settings,
			resource: { "service.name": "s" },
			scope: { name: "t", version: "1" },
			read: async () => families,
			warn: (message) => warnings.push(message),
			intervalMs: 3_600_000,
			transport: {
				async send(message) {
					sent.push(message);
					if (sent.length === 2) {
						throw new Error("refused");
					}
				},
				[Symbol.asyncDispose]: async () => {},
			},
		});
		await exporter.send();
		await exporter.send();
	}
	assert.equal(sent.length, 3);
	assert.deepEqual(warnings, ["metrics are lost: refused"]);
	const [resource] = ExportMetricsServiceRequest.decode(sent[2] ?? new Uint8Array()).resourceMetrics;
	const [builds, running, time] = resource?.scopeMetrics[0]?.metrics ?? [];
	assert.ok(builds?.data?.$case === "sum");
	assert.equal(builds.data.value.isMonotonic, true);
	assert.deepEqual(builds.data.value.dataPoints[0]?.value, { $case: "asDouble", value: 3 });
	assert.equal(builds.data.value.dataPoints[0]?.attributes[0]?.key, "status");
	assert.equal(running?.data?.$case, "gauge");
	assert.ok(time?.data?.$case === "histogram");
	assert.equal(time.unit, "s");
	assert.deepEqual(time.data.value.dataPoints[0]?.bucketCounts, [2n, 1n, 1n]);
	assert.deepEqual(time.data.value.dataPoints[0]?.explicitBounds, [1, 2]);
	assert.equal(time.data.value.dataPoints[0]?.count, 4n);
});

test("readOtlpSettings: metrics have variables of their own", () => {
	const endpointOf = (env: Record<string, string>): string | undefined =>
		readOtlpSettings(env, "metrics")?.endpoint.href;
	const http = { OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf" };
	assert.equal(
		endpointOf({ ...http, OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318" }),
		"http://c:4318/v1/metrics",
	);
	assert.equal(
		endpointOf({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c", OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "http://m" }),
		"http://m/",
	);
	assert.equal(endpointOf({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://t" }), undefined);
	assert.equal(
		endpointOf({ OTEL_METRICS_EXPORTER: "none", OTEL_EXPORTER_OTLP_ENDPOINT: "http://c" }),
		undefined,
	);
	assert.throws(() => readOtlpSettings({ OTEL_METRICS_EXPORTER: "prometheus" }, "metrics"), {
		message: "unsupported opentelemetry exporter prometheus",
	});
});
