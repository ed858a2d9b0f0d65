import { chmodSync, statfsSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { CallRecord } from "../api/grpc.ts";
import { serveGrpc } from "../api/grpc-server.ts";
import { createHealth } from "../api/health.ts";
import { createSpanExporter, readOtlpResource, readOtlpSampler, readOtlpSettings } from "../api/otlp.ts";
import { reflectionMethods } from "../api/reflection.ts";
import { control } from "../api/services/control.ts";
import { health } from "../api/services/health.ts";
import { trace } from "../api/services/trace.ts";
import { type Attributes, createTracing, type Tracing } from "../api/tracing.ts";
import { readKeyGraph } from "../cache/key-store.ts";
import type { Controller } from "../control/control.ts";
import { openHistory } from "../control/history-queue.ts";
import type { BuilderVersion, GcRule } from "../control/service.ts";
import { createControlService } from "../control/service-methods.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { gatewayMethods } from "../frontend/gateway/gateway-methods.ts";
import { acceptSession } from "../session/remote-session.ts";
import { createBuilderMetrics } from "./builder-metrics.ts";
import type { GrpcConfig } from "./config.ts";
import type { DebugServer, DebugServerOptions } from "./debug-server.ts";
import type { Engine } from "./engine.ts";
import { createGarbageCollector } from "./garbage-collector.ts";
import { listen } from "./listeners.ts";
import type { Logger } from "./logger.ts";
import type { MetricsRegistry } from "./metrics.ts";

export interface ServeApiOptions {
	readonly grpc: GrpcConfig;
	readonly history: { readonly maxAgeMs?: number; readonly maxEntries?: number };
	readonly gcPolicy: readonly GcRule[];
	readonly version: BuilderVersion;
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly logger: Logger;
	readonly debugAddress?: string;
	/** Path of a socket that takes spans of steps' programs, which all users can write to. */
	readonly traceSocket?: string;
	/** Called whenever `busy` may have changed. */
	readonly onChange?: () => void;
}

/** BuildKit's API over an engine. Disposing it ends what runs at once; the engine stays. */
export interface ApiServer extends AsyncDisposable {
	/** A build whose client is in this process: shown and kept as those of others are. */
	readonly build: Controller["build"];
	/** Serves a client on a connection that did not come from a listener; resolves when it is closed. */
	accept(connection: Duplex): Promise<void>;
	/** Where it listens. */
	readonly addresses: readonly string[];
	/** Builds that run. */
	readonly running: number;
	/** Connections of clients. */
	readonly connections: number;
	/** No new connections and calls; resolves when builds have ended, after `cancelAfterMs` by cancelling them. */
	drain(options: { readonly cancelAfterMs: number; readonly signal: AbortSignal }): Promise<void>;
}

/** What clients still do after their build has ended: read the rest of its status, close their session. */
const lastCallsMs = 3000;

export async function serveApi(engine: Engine, options: ServeApiOptions): Promise<ApiServer> {
	const { logger } = options;
	const warn = (message: string): void => logger.log("warning", message);
	await using stack = new AsyncDisposableStack();
	const disk = (): { readonly totalBytes: number; readonly freeBytes: number } => {
		const { bsize, blocks, bavail } = statfsSync(engine.root);
		return { totalBytes: bsize * blocks, freeBytes: bsize * bavail };
	};
	const collector = stack.use(
		createGarbageCollector({
			cache: engine.parts.cache,
			policy: options.gcPolicy,
			disk,
			onEnd({ bytes, error }) {
				if (error !== undefined) {
					logger.log("error", `gc error: ${error}`);
				} else if (bytes > 0) {
					logger.log("debug", `gc cleaned up ${bytes} bytes`);
				}
			},
		}),
	);
	const history = await openHistory({
		...options.history,
		database: engine.parts.database,
		root: join(engine.root, "history"),
		warn,
	});
	const { content, cache, pool, controller, platforms, devices } = engine.parts;
	const tracing = openTracing(options, stack);
	const metrics = createBuilderMetrics({
		cache,
		running: () => service.running,
		connections: () => connections,
		version: options.version,
	});
	await openMetricsExporter(options, stack, metrics.registry);
	const service = stack.use(
		createControlService({
			controller,
			history,
			content,
			cache,
			openSession: async (stream, { metadata }) => acceptSession(stream, { metadata, pool }),
			worker: {
				...engine.worker,
				platforms,
				gcPolicy: options.gcPolicy,
				devices: () =>
					devices.list().map((each) => ({ ...each, autoAllowed: devices.isAutoAllowed(each.name) })),
			},
			version: options.version,
			onBuildEnd: () => collector.request(),
			onRecorded: metrics.addBuild,
			tracing,
			traceSocket: options.traceSocket,
			disk,
		}),
	);
	const healthState = createHealth();
	const methods = [
		...service.methods,
		...gatewayMethods(async ({ metadata, signal }) => {
			const [ref = ""] = metadata["buildkit-controlapi-buildid"] ?? [];
			return (await engine.builds.find(ref, { signal })).handlers;
		}),
		...healthState.methods,
		...tracing.methods,
	];
	const onCall = (call: CallRecord): void => {
		logCall(logger, call);
		metrics.addCall(call);
		debug?.addCall(call);
		if (!untraced.has(call.path)) {
			tracing.addCall(call);
		}
	};
	const server = stack.use(serveGrpc([...methods, ...reflectionMethods(methods)], { onCall }));
	const debug = await openDebugServer(options, stack, {
		metrics: metrics.registry,
		runningCalls: () => server.runningCalls,
		cacheKeys: () => readKeyGraph(engine.parts.database),
		log: (message) => logger.log("debug", message),
	});
	const changed = (): void => options.onChange?.();
	let connections = 0;
	const accept = async (connection: Duplex): Promise<void> => {
		connections++;
		changed();
		await server.accept(connection);
		connections--;
		changed();
	};
	await openTraceSocket(options, stack, tracing);
	const listeners = await listen(options.grpc, {
		env: options.env,
		warn,
		onConnection: (connection) => void accept(connection),
	});
	const stopListening = async (): Promise<void> => {
		await Promise.all(listeners.map((listener) => listener[Symbol.asyncDispose]()));
	};
	stack.defer(stopListening);
	service.onChange(changed);
	collector.request();
	const held = stack.move();
	return {
		build: service.build,
		accept,
		addresses: listeners.map(({ address }) => address),
		get running() {
			return service.running;
		},
		get connections() {
			return connections;
		},
		async drain({ cancelAfterMs, signal }) {
			await stopListening();
			healthState.shutDown();
			service.drain();
			const ended = server.drain();
			const idle = new Promise<void>((resolve) => {
				const look = (): void => void (service.running === 0 && resolve());
				service.onChange(look);
				look();
			});
			await Promise.race([idle, after(cancelAfterMs, signal)]);
			service.cancelAll("the builder stops");
			await Promise.race([Promise.all([idle, ended]), after(lastCallsMs, signal)]);
		},
		[Symbol.asyncDispose]: () => held.disposeAsync(),
	};
}

/** A build has a span of its own; the others would say nothing of any use. */
const untraced: ReadonlySet<string> = new Set([
	control.solve.path,
	health.check.path,
	health.watch.path,
	trace.export.path,
]);

/** Who sends spans and metrics. */
function resourceOf({ env, version }: ServeApiOptions): Attributes {
	return readOtlpResource(env, {
		"service.name": "slipwayd",
		"service.version": version.version,
		"telemetry.sdk.language": "nodejs",
		"telemetry.sdk.name": "slipway",
	});
}

const metricsIntervalMs = 60_000;

/** Where metrics go, besides to those who ask for them, is said by OpenTelemetry's environment variables too. */
async function openMetricsExporter(
	options: ServeApiOptions,
	stack: AsyncDisposableStack,
	registry: MetricsRegistry,
): Promise<void> {
	const { env, logger, version } = options;
	const warn = (message: string): void => logger.log("warning", message);
	try {
		const settings = readOtlpSettings(env, "metrics");
		if (settings === undefined) {
			return;
		}
		const { createMetricsExporter } = await import("../api/otlp-metrics.ts");
		const interval = Number(env["OTEL_METRIC_EXPORT_INTERVAL"] || metricsIntervalMs);
		if (!(interval >= 1)) {
			throw new SlipwayError(
				"invalid-argument",
				`OTEL_METRIC_EXPORT_INTERVAL is ${JSON.stringify(env["OTEL_METRIC_EXPORT_INTERVAL"])}, which is no number of milliseconds`,
			);
		}
		stack.use(
			createMetricsExporter({
				settings,
				resource: resourceOf(options),
				scope: { name: "slipway", version: version.version },
				read: registry.read,
				warn,
				intervalMs: interval,
			}),
		);
	} catch (error) {
		if (!ignoresErrors(env)) {
			throw error;
		}
		warn(`metrics are not sent: ${toError(error).message}`);
	}
}

function ignoresErrors(env: ServeApiOptions["env"]): boolean {
	return env["OTEL_IGNORE_ERROR"] === "true" || env["OTEL_IGNORE_ERROR"] === "1";
}

/** Where spans go is said by OpenTelemetry's environment variables. */
function openTracing(options: ServeApiOptions, stack: AsyncDisposableStack): Tracing {
	const { env, logger, version } = options;
	const warn = (message: string): void => logger.log("warning", message);
	const resource = resourceOf(options);
	const scope = { name: "slipway", version: version.version };
	for (const name of ["JAEGER_TRACE", "OTEL_EXPORTER_JAEGER_ENDPOINT", "OTEL_EXPORTER_JAEGER_AGENT_HOST"]) {
		if (env[name]) {
			warn(`${name} has no effect: Jaeger takes OTLP, so set OTEL_EXPORTER_OTLP_ENDPOINT`);
		}
	}
	try {
		const samples = readOtlpSampler(env);
		const settings = readOtlpSettings(env);
		const collector = settings && stack.use(createSpanExporter({ settings, warn }));
		return createTracing({ resource, scope, collector, samples });
	} catch (error) {
		if (!ignoresErrors(env)) {
			throw error;
		}
		warn(`traces are not sent: ${toError(error).message}`);
		return createTracing({ resource, scope });
	}
}

async function openTraceSocket(
	{ traceSocket, env }: ServeApiOptions,
	stack: AsyncDisposableStack,
	tracing: Tracing,
): Promise<void> {
	if (traceSocket === undefined) {
		return;
	}
	const server = stack.use(serveGrpc(tracing.methods));
	const address = `unix://${traceSocket}`;
	const listeners = await listen(
		{ addresses: [address], allowPlainTcp: false },
		{ env, warn: () => {}, onConnection: (connection) => void server.accept(connection) },
	);
	for (const listener of listeners) {
		stack.use(listener);
	}
	// Who runs in a step need not be root.
	chmodSync(traceSocket, 0o666);
}

async function openDebugServer(
	{ debugAddress, env, logger }: ServeApiOptions,
	stack: AsyncDisposableStack,
	options: DebugServerOptions,
): Promise<DebugServer | undefined> {
	if (debugAddress === undefined) {
		return undefined;
	}
	// What it needs of Node is loaded only where somebody asked for it.
	const { createDebugServer } = await import("./debug-server.ts");
	const debug = stack.use(createDebugServer(options));
	const address = debugAddress.includes("://") ? debugAddress : `tcp://${debugAddress}`;
	const listeners = await listen(
		// Who may debug is who reaches the address, as with BuildKit.
		{ addresses: [address], allowPlainTcp: true },
		{ env, warn: () => {}, onConnection: (connection) => debug.accept(connection) },
	);
	for (const listener of listeners) {
		stack.use(listener);
		logger.log("info", `debug handlers listening at ${listener.address}`);
	}
	return debug;
}

function logCall(logger: Logger, { path, error, startedMs, endedMs }: CallRecord): void {
	const isExpected = error === undefined || error.code === "canceled" || path.endsWith("TraceService/Export");
	if (!isExpected) {
		logger.log("error", `${path} returned error: ${error.message}`, { code: error.code });
	}
	logger.log("debug", `${path} ended`, { ms: Math.round(endedMs - startedMs) });
}

/** Sooner if the signal is aborted. */
function after(ms: number, signal: AbortSignal): Promise<void> {
	return new Promise((resolve) => {
		// What it is raced with may end long before: the process need not wait for it then.
		const timer = setTimeout(done, ms).unref();
		function done(): void {
			clearTimeout(timer);
			signal.removeEventListener("abort", done);
			resolve();
		}
		signal.addEventListener("abort", done);
		if (signal.aborted) {
			done();
		}
	});
}
