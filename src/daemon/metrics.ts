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
	readonly type: "counter" | "gauge" | "histogram";
	readonly lines: () => Promise<readonly string[]>;
}

export function createMetrics(): MetricsRegistry {
	const metrics: Metric[] = [];
	const observed =
		(type: "counter" | "gauge") =>
		(name: string, help: string, read: () => Samples | Promise<Samples>): void => {
			metrics.push({
				name,
				help,
				type,
				lines: async () => {
					const samples = await read();
					return typeof samples === "number"
						? [line(name, {}, samples)]
						: samples.map(({ labels, value }) => line(name, labels, value));
				},
			});
		};
	return {
		gauge: observed("gauge"),
		observedCounter: observed("counter"),
		counter(name, help) {
			const values = new Map<string, { readonly labels: Labels; value: number }>();
			metrics.push({
				name,
				help,
				type: "counter",
				lines: async () => [...values.values()].map(({ labels, value }) => line(name, labels, value)),
			});
			return {
				add(by, labels = {}) {
					const key = labelText(labels);
					const entry = values.get(key) ?? { labels, value: 0 };
					entry.value += by;
					values.set(key, entry);
				},
			};
		},
		histogram(name, help, buckets) {
			const series = new Map<string, Series>();
			metrics.push({
				name,
				help,
				type: "histogram",
				lines: async () => [...series.values()].flatMap((each) => histogramLines(name, buckets, each)),
			});
			return {
				observe(value, labels = {}) {
					const key = labelText(labels);
					const entry = series.get(key) ?? { labels, counts: buckets.map(() => 0), count: 0, sum: 0 };
					const index = buckets.findIndex((bound) => value <= bound);
					if (index !== -1) {
						entry.counts[index] = (entry.counts[index] ?? 0) + 1;
					}
					entry.count++;
					entry.sum += value;
					series.set(key, entry);
				},
			};
		},
		async text() {
			const parts = await Promise.all(metrics.map(describe));
			return parts.join("");
		},
	};
}

interface Series {
	readonly labels: Labels;
	/** Of each bucket alone; the format wants them summed up. */
	readonly counts: number[];
	count: number;
	sum: number;
}

async function describe({ name, help, type, lines }: Metric): Promise<string> {
	let values: readonly string[];
	try {
		values = await lines();
	} catch {
		return "";
	}
	if (values.length === 0) {
		return "";
	}
	const text = help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
	return `# HELP ${name} ${text}\n# TYPE ${name} ${type}\n${values.join("\n")}\n`;
}

function histogramLines(name: string, buckets: readonly number[], series: Series): readonly string[] {
	const { labels, counts, count, sum } = series;
	let below = 0;
	const lines = buckets.map((bound, index) => {
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
