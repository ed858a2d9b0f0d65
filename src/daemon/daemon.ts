import { setFlagsFromString } from "node:v8";
import type { BuilderVersion } from "../control/service.ts";
import { keepLittleMemory } from "../sys/malloc.ts";
import { type ApiServer, serveApi } from "./api-server.ts";
import type { DaemonConfig } from "./config.ts";
import { type Engine, type EngineOptions, openEngine } from "./engine.ts";
import { createMemoryKeeper } from "./garbage.ts";
import type { Logger } from "./logger.ts";
import { notify } from "./systemd.ts";
import { createYoungCollector } from "./young-garbage.ts";

export interface DaemonOptions {
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly logger: Logger;
	readonly version: BuilderVersion;
	/** How long builds may go on after `stop`. */
	readonly drainMs: number;
}

/** A builder that serves BuildKit's API until it is stopped. Disposing it ends everything at once. */
export interface Daemon extends AsyncDisposable {
	readonly engine: Engine;
	readonly api: ApiServer;
	/** Until it is disposed the daemon is not idle. */
	hold(): Disposable;
	/** Resolves when `stop` has done its work, or there was nothing to do for as long as the configuration says. */
	readonly stopped: Promise<void>;
	/** Lets running builds end, for a while; called again it ends them at once. */
	stop(): void;
}

/** Throws when the state directory is in use, an address is, or what is configured does not work here. */
export async function startDaemon(config: DaemonConfig, options: DaemonOptions): Promise<Daemon> {
	const { env, logger } = options;
	// What passes through a daemon are buffers outside of the heap, which go with the small objects that hold them. A young generation that
	// stays small is collected often and at little cost; one that grows leaves them to full collections, a quarter of all work of a
	// large transfer. The largest is 4 MB (`bin/slipway`); work on large graphs, which keeps what it makes, gets there in one step.
	setFlagsFromString("--semi-space-growth-factor=4");
	keepLittleMemory();
	await using stack = new AsyncDisposableStack();
	const engine = stack.use(await openEngine(engineOptionsOf(config, options)));
	const stopped = Promise.withResolvers<void>();
	const hurry = new AbortController();
	let stopping = false;
	let idleTimer: NodeJS.Timeout | undefined;
	let held = 0;
	const memory = stack.use(createMemoryKeeper());
	const young = stack.use(createYoungCollector());
	const watchIdle = (): void => {
		clearTimeout(idleTimer);
		if (api.running === 0) {
			memory.idle();
			young.idle();
		} else {
			memory.busy();
			young.busy();
		}
		const isIdle = held === 0 && api.running === 0 && api.connections === 0;
		if (config.idleExitMs !== undefined && !stopping && isIdle) {
			idleTimer = setTimeout(stop, config.idleExitMs);
		}
	};
	const api: ApiServer = stack.use(
		await serveApi(engine, {
			grpc: config.grpc,
			history: config.history,
			gcPolicy: config.worker.gcPolicy,
			version: options.version,
			env,
			logger,
			...(config.traceSocket === undefined ? {} : { traceSocket: config.traceSocket }),
			...(config.debugAddress === undefined ? {} : { debugAddress: config.debugAddress }),
			onChange: () => watchIdle(),
		}),
	);
	function stop(): void {
		if (stopping) {
			hurry.abort();
			return;
		}
		stopping = true;
		clearTimeout(idleTimer);
		logger.log("info", "stopping server");
		notify(env, "STOPPING=1");
		void api
			.drain({ cancelAfterMs: options.drainMs, signal: hurry.signal })
			.then(stopped.resolve, stopped.reject);
	}
	watchIdle();
	for (const address of api.addresses) {
		logger.log("info", `running server on ${address}`);
	}
	notify(env, "READY=1");
	const owned = stack.move();
	return {
		engine,
		api,
		stopped: stopped.promise,
		stop,
		hold() {
			held++;
			watchIdle();
			return {
				[Symbol.dispose]() {
					held--;
					watchIdle();
				},
			};
		},
		async [Symbol.asyncDispose]() {
			clearTimeout(idleTimer);
			await owned.disposeAsync();
		},
	};
}

function engineOptionsOf(config: DaemonConfig, { env, logger }: DaemonOptions): EngineOptions {
	return {
		...configuredOptions(config),
		env,
		warn: (message) => logger.log("warning", message),
		debug: (message) => logger.log("debug", message),
	};
}

/** What a configuration says to an engine. */
export function configuredOptions(config: DaemonConfig): Omit<EngineOptions, "env" | "warn"> {
	const { worker } = config;
	return {
		root: config.root,
		snapshotter: worker.snapshotter,
		network: worker.network,
		entitlements: config.entitlements,
		registries: config.registries,
		frontends: config.frontends,
		devices: config.devices,
		labels: worker.labels,
		platformsMaxAgeMs: config.platformsMaxAgeMs,
		...(worker.binary === undefined ? {} : { runtime: worker.binary }),
		...(config.dns === undefined ? {} : { dns: config.dns }),
		...(worker.cgroupParent === undefined ? {} : { cgroupParent: worker.cgroupParent }),
		...(worker.maxParallelism === undefined ? {} : { maxParallelism: worker.maxParallelism }),
		...(worker.platforms === undefined ? {} : { platforms: worker.platforms }),
		...(config.maxRegistryConcurrency === undefined
			? {}
			: { maxRegistryConcurrency: config.maxRegistryConcurrency }),
	};
}
