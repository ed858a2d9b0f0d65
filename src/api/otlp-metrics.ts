import { toError } from "../errors/errors.ts";
import type { KeyValue } from "./generated/otlp/common.ts";
import type { Metric } from "./generated/otlp/metrics.ts";
import { AggregationTemporality } from "./generated/otlp/metrics.ts";
import { ExportMetricsServiceRequest } from "./generated/otlp/metrics-collector.ts";
import { type OtlpSettings, type OtlpTransport, openTransport } from "./otlp.ts";
import { type Attributes, keyValues } from "./tracing.ts";

/** All values of one metric at one moment. */
export interface MetricFamily {
	readonly name: string;
	readonly help: string;
	readonly data:
		| { readonly kind: "counter" | "gauge"; readonly points: readonly MetricPoint[] }
		| {
				readonly kind: "histogram";
				readonly bounds: readonly number[];
				readonly points: readonly HistogramPoint[];
		  };
}

export interface MetricPoint {
	readonly labels: Readonly<Record<string, string>>;
	readonly value: number;
}

export interface HistogramPoint {
	readonly labels: Readonly<Record<string, string>>;
	/** Of each bucket alone, without the one above the last bound. */
	readonly counts: readonly number[];
	readonly count: number;
	readonly sum: number;
}

export interface MetricsExporterOptions {
	readonly settings: OtlpSettings;
	readonly resource: Attributes;
	readonly scope: { readonly name: string; readonly version: string };
	readonly read: () => Promise<readonly MetricFamily[]>;
	/** Told when metrics are lost. */
	readonly warn: (message: string) => void;
	readonly intervalMs: number;
	/** Default: what the settings say. */
	readonly transport?: OtlpTransport;
}

/** Sends metrics to a collector now and then, cumulative since its start. Disposing it sends them once more. */
export interface MetricsExporter extends AsyncDisposable {
	/** Sends them now; never rejects. */
	send(): Promise<void>;
}

export function createMetricsExporter(options: MetricsExporterOptions): MetricsExporter {
	const { settings, resource, scope, read, warn, intervalMs } = options;
	const startMs = Date.now();
	let transport: Promise<OtlpTransport> | undefined =
		options.transport === undefined ? undefined : Promise.resolve(options.transport);
	let sending: Promise<void> = Promise.resolve();
	const sendNow = async (): Promise<void> => {
		try {
			const families = await read();
			const times = { startTimeUnixNano: nanoseconds(startMs), timeUnixNano: nanoseconds(Date.now()) };
			const message = ExportMetricsServiceRequest.encode({
				resourceMetrics: [
					{
						resource: { attributes: keyValues(resource), droppedAttributesCount: 0 },
						scopeMetrics: [
							{
								scope: { ...scope, attributes: [], droppedAttributesCount: 0 },
								metrics: families.map((family) => metricOf(family, times)),
								schemaUrl: "",
							},
						],
						schemaUrl: "",
					},
				],
			}).finish();
			transport ??= openTransport(settings);
			await (await transport).send(message);
		} catch (thrown) {
			warn(`metrics are lost: ${toError(thrown).message}`);
		}
	};
	const send = (): Promise<void> => {
		sending = sending.then(sendNow);
		return sending;
	};
	const timer = setInterval(() => void send(), intervalMs).unref();
	return {
		send,
		async [Symbol.asyncDispose]() {
			clearInterval(timer);
			await send();
			await (await transport)?.[Symbol.asyncDispose]();
		},
	};
}

interface Times {
	readonly startTimeUnixNano: bigint;
	readonly timeUnixNano: bigint;
}

function metricOf({ name, help, data }: MetricFamily, times: Times): Metric {
	const temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE;
	const about = { name, description: help, unit: name.endsWith("_seconds") ? "s" : "" };
	if (data.kind === "histogram") {
		const dataPoints = data.points.map(({ labels, counts, count, sum }) => ({
			attributes: attributesOf(labels),
			...times,
			count: BigInt(count),
			sum,
			bucketCounts: [...counts, count - counts.reduce((total, each) => total + each, 0)].map(BigInt),
			explicitBounds: data.bounds,
			flags: 0,
		}));
		return {
			...about,
			data: { $case: "histogram", value: { dataPoints, aggregationTemporality: temporality } },
		};
	}
	const dataPoints = data.points.map(({ labels, value }) => ({
		attributes: attributesOf(labels),
		...times,
		value: { $case: "asDouble" as const, value },
		flags: 0,
	}));
	return data.kind === "gauge"
		? { ...about, data: { $case: "gauge", value: { dataPoints } } }
		: {
				...about,
				data: {
					$case: "sum",
					value: { dataPoints, aggregationTemporality: temporality, isMonotonic: true },
				},
			};
}

function attributesOf(labels: Readonly<Record<string, string>>): readonly KeyValue[] {
	return keyValues(labels);
}

function nanoseconds(milliseconds: number): bigint {
	return BigInt(milliseconds) * 1_000_000n;
}
