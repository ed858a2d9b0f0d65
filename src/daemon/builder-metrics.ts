import { readdirSync, readFileSync } from "node:fs";
import { getHeapStatistics } from "node:v8";
import type { CallRecord } from "../api/grpc.ts";
import { canonicalCode } from "../api/tracing.ts";
import type { CacheManager } from "../cache/cache.ts";
import type { BuildFigures } from "../control/service.ts";
import { buildBuckets, callBuckets, createMetrics, type Labels, type MetricsRegistry } from "./metrics.ts";

/** What a builder counts. Names are BuildKit's where it has the same: `buildkit_builds_total` and so on. */
export interface BuilderMetrics {
	readonly registry: MetricsRegistry;
	addCall(call: CallRecord): void;
	addBuild(build: BuildFigures): void;
}

export interface BuilderMetricsOptions {
	readonly cache: Pick<CacheManager, "usage">;
	/** Builds that run now. */
	readonly running: () => number;
	/** Connections of clients now. */
	readonly connections: () => number;
	readonly version: { readonly version: string; readonly revision: string };
}

/** Measuring the cache walks directories: not for every scrape. */
const cacheEveryMs = 60_000;

export function createBuilderMetrics(options: BuilderMetricsOptions): BuilderMetrics {
	const registry = createMetrics();
	const builds = registry.counter(
		"buildkit_builds_total",
		"Builds that ended, by status and by gRPC code of their error.",
	);
	const steps = registry.counter("buildkit_builds_steps_total", "Steps of builds that ended, by kind.");
	const duration = registry.histogram(
		"buildkit_build_duration_seconds",
		"Time from the start of a build to its end.",
		buildBuckets,
	);
	/** The same object for the same labels, which the registry knows again. */
	const callLabels = new Map<string, Labels>();
	const calls = registry.histogram(
		"rpc_server_call_duration_seconds",
		"Time that calls took, by method and gRPC code.",
		callBuckets,
	);
	registry.gauge("slipway_builds_running", "Builds that run.", options.running);
	registry.gauge("slipway_connections", "Connections of clients.", options.connections);
	const { version, revision } = options.version;
	registry.gauge("slipway_build_info", "Version of the builder.", () => [
		{ labels: { version, revision }, value: 1 },
	]);
	addCache(registry, options.cache);
	addProcess(registry);
	return {
		registry,
		addCall({ path, error, startedMs, endedMs }) {
			const key = error === undefined ? path : `${path} ${error.code}`;
			let labels = callLabels.get(key);
			if (labels === undefined) {
				labels = {
					rpc_method: path.slice(1),
					rpc_response_status_code: canonicalCode(error?.code),
					rpc_system_name: "grpc",
				};
				callLabels.set(key, labels);
			}
			calls.observe((endedMs - startedMs) / 1000, labels);
		},
		addBuild({ startedMs, endedMs, error, ...figures }) {
			const status = error === undefined ? "success" : "failure";
			builds.add(1, { status, ...(error === undefined ? {} : { error_code: goCode(error.code) }) });
			steps.add(figures.completedSteps, { kind: "completed" });
			steps.add(figures.cachedSteps, { kind: "cached" });
			steps.add(figures.steps, { kind: "total" });
			steps.add(figures.warnings, { kind: "warnings" });
			duration.observe((endedMs - startedMs) / 1000, { status });
		},
	};
}

/** As Go's gRPC prints it: `NotFound`. */
function goCode(code: string): string {
	return code.replace(/(?:^|-)([a-z])/g, (_match, letter: string) => letter.toUpperCase());
}

function addCache(registry: MetricsRegistry, cache: Pick<CacheManager, "usage">): void {
	let measuredMs = Number.NEGATIVE_INFINITY;
	let measured:
		| Promise<{ readonly used: number; readonly idle: number; readonly records: number }>
		| undefined;
	const measure = () => {
		if (measured === undefined || performance.now() - measuredMs > cacheEveryMs) {
			measuredMs = performance.now();
			measured = cache.usage({ signal: AbortSignal.timeout(cacheEveryMs) }).then((records) => {
				const bytes = (inUse: boolean): number =>
					records.filter((record) => record.inUse === inUse).reduce((sum, record) => sum + record.bytes, 0);
				return { used: bytes(true), idle: bytes(false), records: records.length };
			});
		}
		return measured;
	};
	registry.gauge("slipway_cache_bytes", "Disk space of the cache.", async () => {
		const { used, idle } = await measure();
		return [
			{ labels: { state: "in_use" }, value: used },
			{ labels: { state: "idle" }, value: idle },
		];
	});
	registry.gauge("slipway_cache_records", "Records of the cache.", async () => (await measure()).records);
}

function addProcess(registry: MetricsRegistry): void {
	registry.observedCounter("process_cpu_seconds_total", "User and system time in seconds.", () => {
		const { user, system } = process.cpuUsage();
		return (user + system) / 1e6;
	});
	registry.gauge("process_resident_memory_bytes", "Resident memory.", () => process.memoryUsage.rss());
	registry.gauge("process_virtual_memory_bytes", "Virtual memory.", () => {
		const kilobytes = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
		return Number(kilobytes) * 1024;
	});
	registry.gauge("process_open_fds", "Open file descriptors.", () => readdirSync("/proc/self/fd").length);
	registry.gauge("process_max_fds", "Most open file descriptors.", () => {
		const limits = readFileSync("/proc/self/limits", "utf8");
		return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
	});
	const started = performance.timeOrigin / 1000;
	registry.gauge("process_start_time_seconds", "Start of the process since the epoch.", () => started);
	registry.gauge("nodejs_heap_bytes", "JavaScript heap and the memory beside it.", () => {
		const { heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage();
		return [
			{ labels: { kind: "used" }, value: heapUsed },
			{ labels: { kind: "total" }, value: heapTotal },
			{ labels: { kind: "limit" }, value: getHeapStatistics().heap_size_limit },
			{ labels: { kind: "external" }, value: external },
			{ labels: { kind: "array_buffers" }, value: arrayBuffers },
		];
	});
	let busy = performance.eventLoopUtilization();
	registry.gauge(
		"nodejs_eventloop_utilization",
		"Share of the time, since it was last read, that the main thread was busy.",
		() => {
			const since = busy;
			busy = performance.eventLoopUtilization();
			return performance.eventLoopUtilization(busy, since).utilization;
		},
	);
}
