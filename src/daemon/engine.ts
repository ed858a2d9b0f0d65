import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { createArchiver } from "../archive/archiver.ts";
import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import type { CacheManager } from "../cache/cache.ts";
import { createDatabaseKeyStore } from "../cache/key-store.ts";
import { openCache } from "../cache/manager.ts";
import { createResultStore } from "../cache/result-store.ts";
import { createBlobSources } from "../content/blob-sources.ts";
import type { ContentStore } from "../content/content.ts";
import { imageClosure } from "../content/image-closure.ts";
import { createImageStore, type ImageStore } from "../content/image-store.ts";
import { type LocalContentStore, openLocalContentStore } from "../content/local.ts";
import { createController } from "../control/build.ts";
import { type BuildRegistry, createBuildRegistry } from "../control/build-registry.ts";
import type {
	BuildOptions,
	BuildRequest,
	BuildResponse,
	Controller,
	Entitlement,
} from "../control/control.ts";
import { createExplainer } from "../control/explainer.ts";
import type { Database } from "../database/database.ts";
import { SlipwayError } from "../errors/errors.ts";
import { hideUnifiedHierarchy } from "../executor/cgroups.ts";
import type { DnsOptions } from "../executor/etc-files.ts";
import type { NetworkOptions } from "../executor/network.ts";
import { createNetworks } from "../executor/networks.ts";
import { createOciExecutor } from "../executor/oci-executor.ts";
import { findRuntime } from "../executor/runtime.ts";
import { exporterFactories } from "../exporter/exporter-factories.ts";
import { createDockerfileFrontend } from "../frontend/dockerfile/frontend.ts";
import type { Frontend, WorkerIdentity } from "../frontend/frontend.ts";
import type { Digest } from "../oci/digest.ts";
import { hostPlatforms } from "../oci/host-platforms.ts";
import type { Platform } from "../oci/platform.ts";
import { readCertsDirectories } from "../registry/certs-directory.ts";
import { createRegistryClient } from "../registry/client.ts";
import type { RegistryHostConfig } from "../registry/registry.ts";
import { createAzureBackend } from "../remotecache/azblob-backend.ts";
import { createGhaBackend } from "../remotecache/gha-backend.ts";
import { createLocalBackend } from "../remotecache/local-backend.ts";
import { createRegistryBackend } from "../remotecache/registry-backend.ts";
import { createRemoteCaches } from "../remotecache/remote-caches.ts";
import { createS3Backend } from "../remotecache/s3-backend.ts";
import { createSolver } from "../solver/create-solver.ts";
import { createBlobSource } from "../source/blob.ts";
import { createGitSource } from "../source/git.ts";
import { createHttpSource } from "../source/http.ts";
import { createImageSource } from "../source/image.ts";
import { createImageResolver } from "../source/image-resolver.ts";
import { createLocalSource } from "../source/local.ts";
import { createOciLayoutSource } from "../source/oci-layout.ts";
import { authOf } from "../source/registry-origin.ts";
import type { Source } from "../source/source.ts";
import { setPropagation } from "../sys/mount.ts";
import { unshare } from "../sys/namespace.ts";
import { createCacheMounts } from "../worker/cache-mounts.ts";
import {
	createDeviceRegistry,
	type DeviceRegistry,
	defaultDeviceDirectories,
} from "../worker/cdi-devices.ts";
import { runnablePlatforms } from "../worker/emulation.ts";
import { mountTree } from "../worker/mounted-tree.ts";
import { createOpResolver } from "../worker/op-resolver.ts";
import { createContainerFactory } from "../worker/step-container.ts";
import { defaultLogLimits, type LogLimits, type Output, type WorkerServices } from "../worker/worker.ts";
import { afterPrune } from "./after-prune.ts";
import type { FrontendsConfig } from "./config.ts";
import { defaultRoot } from "./default-root.ts";
import { openSnapshotter } from "./open-snapshotter.ts";
import { otherFiles } from "./other-files.ts";
import { openStateDirectory } from "./state-directory.ts";
import { openWorkerIdentity } from "./worker-identity.ts";

/** A builder on one state directory. Disposing it waits for what it does and gives the directory free. */
export interface Engine extends AsyncDisposable {
	readonly root: string;
	readonly worker: WorkerIdentity;
	/** Which of several ways was chosen so far, and why, as `EngineOptions.debug` was told. */
	readonly notes: readonly string[];
	/** Where a client that is the frontend itself finds its build: `gatewayMethods` serve it. */
	readonly builds: BuildRegistry;
	/** Rejects with the first error of the build; see `Controller`. */
	build(request: BuildRequest, options: BuildOptions): Promise<BuildResponse>;
	/** For what serves the engine to others. */
	readonly parts: EngineParts;
}

export interface EngineParts {
	readonly controller: Controller;
	readonly database: Database;
	readonly content: LocalContentStore;
	readonly cache: CacheManager;
	readonly pool: ThreadPool;
	/** What this machine runs now, as far as it was looked. */
	readonly platforms: () => readonly Platform[];
	readonly devices: DeviceRegistry;
}

export interface EngineOptions {
	/** State directory; default `/var/lib/slipway`. */
	readonly root?: string;
	/** `auto`: overlayfs, or native where the file system or the kernel does not allow that. */
	readonly snapshotter: "auto" | "overlayfs" | "native";
	/** OCI runtime; default crun, else runc, from `PATH` of `env`. */
	readonly runtime?: string;
	/** What steps' network is; default `auto`. */
	readonly network?: NetworkOptions;
	readonly dns?: DnsOptions;
	/** Where devices are described, and which of them any build may use; an empty list of directories is no device. */
	readonly devices?: { readonly directories?: readonly string[]; readonly autoAllowed?: readonly string[] };
	/** Control group above those of steps that name no parent of their own. */
	readonly cgroupParent?: string;
	/** Steps that run at the same time; default no limit. */
	readonly maxParallelism?: number;
	/** What clients may ask for; default everything. */
	readonly entitlements?: readonly Entitlement[];
	/** By host; default: what Docker's and podman's directories of certificates say. */
	readonly registries?: Readonly<Record<string, RegistryHostConfig>>;
	/** Transfers at the same time per registry. */
	readonly maxRegistryConcurrency?: number;
	/** In place of those that this machine runs. */
	readonly platforms?: readonly Platform[];
	/** How long the list of platforms that this machine runs is believed; default for ever. */
	readonly platformsMaxAgeMs?: number;
	/** Of the worker, besides its own. */
	readonly labels?: Readonly<Record<string, string>>;
	/** Default all. */
	readonly frontends?: FrontendsConfig;
	readonly env: Readonly<Record<string, string | undefined>>;
	/** Told what was damaged and worked around. */
	readonly warn: (message: string) => void;
	/** Told which of several ways was chosen, and why. */
	readonly debug?: (message: string) => void;
}

/** A thread keeps some 8 MB. Longer than somebody who repeats a build takes. */
const threadIdleMs = 4000;

/** The one place where the rooms are put together. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
	const uid = process.getuid?.() ?? 0;
	if (uid !== 0) {
		throw new SlipwayError(
			"permission-denied",
			"an engine needs root, if only that of a user namespace: the command slipway makes one for users, a program can reach the builder of 'slipway daemon' with connect()",
		);
	}
	await using stack = new AsyncDisposableStack();
	const state = stack.use(openStateDirectory(resolve(options.root ?? defaultRoot(options.env))));
	const { root, database } = state;
	const signal = new AbortController().signal;
	const beforeMounts = enterOwnMounts();
	const pool = stack.use(createThreadPool({ idleMs: threadIdleMs, beforeStart: beforeMounts }));
	// Threads of a download wait for the network: as many as layers are fetched at a time, none before there is one.
	const downloads = stack.use(createThreadPool({ size: 4, idleMs: threadIdleMs, beforeStart: beforeMounts }));
	const archiver = createArchiver(pool, { downloads });
	const content = await openLocalContentStore({ root: join(root, "content"), signal });
	const images = createImageStore(database);
	const snapshotter = openSnapshotter({
		wanted: options.snapshotter,
		stateRoot: root,
		pool,
		beforeMounts,
		warn: options.warn,
	});
	const keys = createDatabaseKeyStore(database);
	const blobSources = createBlobSources(database);
	const cache: CacheManager = stack.use(
		await openCache({
			root: join(root, "cache"),
			database,
			content,
			snapshotter,
			archiver,
			pool,
			warn: options.warn,
			keptBlobs: () => blobsOfImages(images, content, signal),
			otherFiles: () => otherFiles(root),
			blobRemoved: (digest) => blobSources.forget(digest),
			afterPrune: () => afterPrune(cache, { keys, database }),
		}),
	);
	const registry = stack.use(
		createRegistryClient({
			proxy: proxyOf(options.env),
			hosts: options.registries ?? readCertsDirectories(certsDirectories(options.env)),
			...(options.maxRegistryConcurrency === undefined
				? {}
				: { maxConcurrency: options.maxRegistryConcurrency }),
		}),
	);
	const imageAccess = { registry, content, images, sources: blobSources };
	const notes: string[] = [];
	const networks = stack.use(
		createNetworks(options.network ?? { mode: "auto" }, {
			searchPath: options.env["PATH"] ?? "",
			root: join(root, "executor"),
			debug: (message) => {
				notes.push(message);
				options.debug?.(message);
			},
		}),
	);
	const executor = createOciExecutor({
		root: join(root, "executor"),
		networks,
		...(options.dns === undefined ? {} : { dns: options.dns }),
		...(options.cgroupParent === undefined ? {} : { cgroupParent: options.cgroupParent }),
		findRuntime: () =>
			findRuntime({
				searchPath: options.env["PATH"] ?? "",
				stateDir: join(root, "executor", "runtime"),
				...(options.runtime === undefined ? {} : { program: options.runtime }),
			}),
		beforeMounts,
	});
	await executor.sweep();
	const sources = [
		createImageSource({ ...imageAccess, cache }),
		createOciLayoutSource({ content, cache }),
		createBlobSource({ registry: imageAccess.registry, cache }),
		createLocalSource({ cache }),
		createHttpSource({ cache, proxy: proxyOf(options.env) }),
		createGitSource({ cache, env: options.env }),
	];
	const platforms = platformList(options);
	const services: WorkerServices = {
		cache,
		executor,
		sources: byScheme(sources),
		pool,
		archiver,
		mountRoot: join(root, "mounts"),
		beforeMounts,
		platforms: platforms(),
		searchPath: options.env["PATH"] ?? "",
		logLimits: logLimits(options.env),
		devices: createDeviceRegistry({
			directories: options.devices?.directories ?? defaultDeviceDirectories,
			autoAllowed: options.devices?.autoAllowed ?? [],
			warn: options.warn,
		}),
	};
	mkdirSync(services.mountRoot, { recursive: true, mode: 0o700 });
	const results = createResultStore(cache);
	const cacheMounts = createCacheMounts(cache);
	const workerIdentity = openWorkerIdentity(root, {
		snapshotter: snapshotter.name,
		network: options.network?.mode ?? "auto",
		labels: options.labels ?? {},
	});
	const builds = createBuildRegistry();
	const solver = stack.use(
		createSolver<Output>({
			resolveOp: createOpResolver(services, cacheMounts),
			keys,
			results,
			...(options.maxParallelism === undefined ? {} : { maxParallelism: options.maxParallelism }),
			handling: {
				clone: (output) => output?.clone(),
				release: async (output) => await output?.release(),
			},
		}),
	);
	const controller = createController({
		explainer: createExplainer({
			database,
			cache,
			layerDirectory: (id) => snapshotter.layer(id, []).dir,
			warn: options.warn,
		}),
		solver,
		worker: services,
		resolver: createImageResolver(imageAccess),
		frontends: frontendsOf(options.frontends),
		exporters: exporterFactories({
			content,
			images,
			sources: imageAccess.sources,
			openRepository: (name, { session, insecure }) =>
				registry.repository(name, { auth: authOf([session]), insecure }),
			archiver,
			pool,
			mountTree: (mounts) => mountTree(mounts, services),
		}),
		mounts: {
			cache,
			archiver,
			pool,
			temporaryRoot: join(root, "cache", "blobs", "mounts"),
			mountTree: (mounts) => mountTree(mounts, services),
		},
		caches: createRemoteCaches({
			cache,
			local: { keys, results },
			backends: [
				createRegistryBackend({
					openRepository: (name, { session, insecure }) =>
						registry.repository(name, { auth: authOf([session]), insecure }),
					sources: imageAccess.sources,
					kept: { images, content },
				}),
				createLocalBackend(),
				createGhaBackend(proxyOf(options.env)),
				createS3Backend(options.env),
				createAzureBackend(options.env),
			],
		}),
		allowedEntitlements: options.entitlements ?? allEntitlements,
		workerIdentity,
		containers: createContainerFactory(services, cacheMounts),
		builds,
	});
	const held = stack.move();
	return {
		root,
		worker: workerIdentity,
		builds,
		notes,
		build: (request, buildOptions) => controller.build(request, buildOptions),
		parts: { controller, database, content, cache, pool, platforms, devices: services.devices },
		[Symbol.asyncDispose]: () => held.disposeAsync(),
	};
}

function frontendsOf(config: FrontendsConfig | undefined): ReadonlyMap<string, Frontend> {
	const frontends = new Map<string, Frontend>();
	if (config?.dockerfile !== false) {
		frontends.set("dockerfile.v0", createDockerfileFrontend());
	}
	if (config?.gateway !== false) {
		const allowedRepositories = config?.gatewayRepositories ?? [];
		frontends.set("gateway.v0", {
			async solve(request, bridge) {
				// Few builds need it, and it brings the API's messages.
				const { createGatewayFrontend } = await import("../frontend/gateway/gateway-frontend.ts");
				return await createGatewayFrontend({ allowedRepositories }).solve(request, bridge);
			},
		});
	}
	return frontends;
}

function platformList({
	platforms,
	platformsMaxAgeMs = Number.POSITIVE_INFINITY,
}: EngineOptions): () => readonly Platform[] {
	let known: readonly Platform[] | undefined = platforms;
	let at = performance.now();
	return () => {
		if (known === undefined || (platforms === undefined && performance.now() - at > platformsMaxAgeMs)) {
			known = runnablePlatforms(hostPlatforms());
			at = performance.now();
		}
		return known;
	};
}

/** Blobs of the images that have a name here. */
async function blobsOfImages(
	images: ImageStore,
	content: ContentStore,
	signal: AbortSignal,
): Promise<ReadonlySet<Digest>> {
	const closures = await Promise.all(
		images.list().map(({ descriptor }) => imageClosure(content, descriptor, { signal })),
	);
	return new Set(closures.flatMap((closure) => [...closure.keys()]));
}

/** The client that starts an engine in its own process is its operator. */
const allEntitlements: readonly Entitlement[] = ["network.host", "security.insecure", "device"];

/**
 * Mounts are made where only this process sees them: nothing of them is left in the machine's table, whatever happens to us.
 * Done before the first mount and before the first worker thread, which inherits the namespace.
 */
function enterOwnMounts(): () => void {
	let entered = false;
	return () => {
		if (!entered) {
			entered = true;
			unshare(["mount"]);
			setPropagation("/", "rslave");
			hideUnifiedHierarchy();
		}
	};
}

/** Where Docker and podman look for registries' certificates, the user's own first. */
function certsDirectories(env: EngineOptions["env"]): readonly string[] {
	const home = env["HOME"];
	const own = home === undefined || home === "" ? [] : [join(home, ".config")];
	return [...own, "/etc"].flatMap((base) => [join(base, "docker/certs.d"), join(base, "containers/certs.d")]);
}

/** The proxies of the environment, in either spelling, for what the builder itself fetches. */
function proxyOf(env: EngineOptions["env"]): {
	readonly http?: string;
	readonly https?: string;
	readonly none?: string;
} {
	const read = (name: string): string | undefined => env[name] || env[name.toUpperCase()] || undefined;
	const [http, https, none] = [read("http_proxy"), read("https_proxy"), read("no_proxy")];
	return {
		...(http === undefined ? {} : { http }),
		...(https === undefined ? {} : { https }),
		...(none === undefined ? {} : { none }),
	};
}

function byScheme(sources: readonly Source[]): ReadonlyMap<string, Source> {
	return new Map(sources.flatMap((source) => source.schemes.map((scheme) => [scheme, source] as const)));
}

function logLimits(env: EngineOptions["env"]): LogLimits {
	const read = (name: string, fallback: number): number => {
		const value = Number(env[name] || fallback);
		return Number.isInteger(value) && value >= -1 ? value : fallback;
	};
	return {
		maxBytes: read("BUILDKIT_STEP_LOG_MAX_SIZE", defaultLogLimits.maxBytes),
		maxBytesPerSecond: read("BUILDKIT_STEP_LOG_MAX_SPEED", defaultLogLimits.maxBytesPerSecond),
	};
}
