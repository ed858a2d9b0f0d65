import { statfsSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { CallRecord } from "../api/grpc.ts";
import { serveGrpc } from "../api/grpc-server.ts";
import { createHealth } from "../api/health.ts";
import { reflectionMethods } from "../api/reflection.ts";
import type { Controller } from "../control/control.ts";
import { openHistory } from "../control/history-queue.ts";
import type { BuilderVersion, GcRule } from "../control/service.ts";
import { createControlService } from "../control/service-methods.ts";
import { gatewayMethods } from "../frontend/gateway/gateway-methods.ts";
import { acceptSession } from "../session/remote-session.ts";
import type { GrpcConfig } from "./config.ts";
import type { Engine } from "./engine.ts";
import { createGarbageCollector } from "./garbage-collector.ts";
import { listen } from "./listeners.ts";
import type { Logger } from "./logger.ts";

export interface ServeApiOptions {
	readonly grpc: GrpcConfig;
	readonly history: { readonly maxAgeMs?: number; readonly maxEntries?: number };
	readonly gcPolicy: readonly GcRule[];
	readonly version: BuilderVersion;
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly logger: Logger;
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
	const { content, cache, pool, controller, platforms } = engine.parts;
	const service = stack.use(
		createControlService({
			controller,
			history,
			content,
			cache,
			openSession: async (stream, { metadata }) => acceptSession(stream, { metadata, pool }),
			worker: { ...engine.worker, platforms, gcPolicy: options.gcPolicy },
			version: options.version,
			onBuildEnd: () => collector.request(),
			disk,
		}),
	);
	const health = createHealth();
	const methods = [
		...service.methods,
		...gatewayMethods(async ({ metadata, signal }) => {
			const [ref = ""] = metadata["buildkit-controlapi-buildid"] ?? [];
			return (await engine.builds.find(ref, { signal })).handlers;
		}),
		...health.methods,
	];
	const server = stack.use(
		serveGrpc([...methods, ...reflectionMethods(methods)], { onCall: (call) => logCall(logger, call) }),
	);
	const changed = (): void => options.onChange?.();
	let connections = 0;
	const accept = async (connection: Duplex): Promise<void> => {
		connections++;
		changed();
		await server.accept(connection);
		connections--;
		changed();
	};
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
			health.shutDown();
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
