import type { HistogramPoint, MetricFamily } from "../api/otlp-metrics.ts";

/**
 * Counts and measures for Prometheus, in its text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels must have few values: each combination is kept for ever.
 */
export interface MetricsRegistry {
	counter(name: string, help: string): Counter;
	histogram(name: string, help: string, buckets: readonly number[]): Histogram;
	/** Read whenever somebody asks. One that fails is left out. */
	gauge(name: string, help: string, read: () => Samples | Promise<Samples>): void;
	/** As `gauge`, for what only grows. */
	observedCounter(name: string, help: string, read: () => Samples | Promise<Samples>): void;
	text(): Promise<string>;
	/** All of it as values. */
	read(): Promise<readonly MetricFamily[]>;
}

export type Labels = Readonly<Record<string, string>>;

export interface Counter {
	add(by: number, labels?: Labels): void;
}

export interface Histogram {
	observe(value: number, labels?: Labels): void;
}

/** One value, or several that differ in their labels. */
export type Samples = number | readonly { readonly labels: Labels; readonly value: number }[];

export const contentType = "text/plain; version=0.0.4; charset=utf-8";

/** Seconds; those of OpenTelemetry for calls. */
export const callBuckets: readonly number[] = [
	0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
];

/** Seconds, from a cached build to one of hours. */
export const buildBuckets: readonly number[] = [
	0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
];

interface Metric {
	readonly name: string;
	readonly help: string;
	readonly read: () => MetricFamily["data"] | Promise<MetricFamily["data"]>;
}

export function createMetrics(): MetricsRegistry {
	const metrics: Metric[] = [];
	const observed =
		(kind: "counter" | "gauge") =>
		(name: string, help: string, read: () => Samples | Promise<Samples>): void => {
			metrics.push({
				name,
				help,
				read: async () => {
					const samples = await read();
					return { kind, points: typeof samples === "number" ? [{ labels: {}, value: samples }] : samples };
				},
			});
		};
	const readAll = async (): Promise<readonly MetricFamily[]> => {
		const families = await Promise.all(metrics.map(familyOf));
		return families.filter((family) => family !== undefined);
	};
	return {
		gauge: observed("gauge"),
		observedCounter: observed("counter"),
		counter(name, help) {
			const values = new Map<string, { readonly labels: Labels; value: number }>();
			metrics.push({ name, help, read: () => ({ kind: "counter", points: [...values.values()] }) });
			return {
				add(by, labels = {}) {
					const key = labelText(labels);
					const entry = values.get(key) ?? { labels, value: 0 };
					entry.value += by;
					values.set(key, entry);
				},
			};
		},
		histogram(name, help, bounds) {
			const series = new Map<string, Series>();
			metrics.push({ name, help, read: () => ({ kind: "histogram", bounds, points: [...series.values()] }) });
			return {
				observe(value, labels = {}) {
					const key = labelText(labels);
					const entry = series.get(key) ?? { labels, counts: bounds.map(() => 0), count: 0, sum: 0 };
					const index = bounds.findIndex((bound) => value <= bound);
					if (index !== -1) {
						entry.counts[index] = (entry.counts[index] ?? 0) + 1;
					}
					entry.count++;
					entry.sum += value;
					series.set(key, entry);
				},
			};
		},
		read: readAll,
		text: async () => (await readAll()).map(familyText).join(""),
	};
}

interface Series extends HistogramPoint {
	readonly counts: number[];
	count: number;
	sum: number;
}

/** Undefined for what cannot be read, and what has no values yet. */
async function familyOf({ name, help, read }: Metric): Promise<MetricFamily | undefined> {
	try {
		const data = await read();
		return data.points.length === 0 ? undefined : { name, help, data };
	} catch {
		return undefined;
	}
}

function familyText({ name, help, data }: MetricFamily): string {
	const lines =
		data.kind === "histogram"
			? data.points.flatMap((point) => histogramLines(name, data.bounds, point))
			: data.points.map(({ labels, value }) => line(name, labels, value));
	const text = help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
	return `# HELP ${name} ${text}\n# TYPE ${name} ${data.kind}\n${lines.join("\n")}\n`;
}

/** The format wants buckets summed up. */
function histogramLines(name: string, bounds: readonly number[], point: HistogramPoint): readonly string[] {
	const { labels, counts, count, sum } = point;
	let below = 0;
	const lines = bounds.map((bound, index) => {
		below += counts[index] ?? 0;
		return line(`${name}_bucket`, { ...labels, le: String(bound) }, below);
	});
	return [
		...lines,
		line(`${name}_bucket`, { ...labels, le: "+Inf" }, count),
		line(`${name}_sum`, labels, sum),
		line(`${name}_count`, labels, count),
	];
}

function line(name: string, labels: Labels, value: number): string {
	return `${name}${labelText(labels)} ${number(value)}`;
}

function number(value: number): string {
	if (Number.isFinite(value)) {
		return String(value);
	}
	return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
}

const labelTexts = new WeakMap<Labels, string>();

function labelText(labels: Labels): string {
	let text = labelTexts.get(labels);
	if (text === undefined) {
		text = writeLabels(labels);
		labelTexts.set(labels, text);
	}
	return text;
}

function writeLabels(labels: Labels): string {
	const pairs = Object.entries(labels).map(([name, value]) => {
		const text = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
		return `${name}="${text}"`;
	});
	return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}
