import type { CacheManager, ImmutableRef, MutableRef } from "../cache/cache.ts";
import { collect } from "../content/bytes.ts";
import { hasCode, toError } from "../errors/errors.ts";
import type { ExporterServices } from "../exporter/exporter.ts";
import { boolean } from "../remotecache/attributes.ts";
import { nameOf } from "../remotecache/cache-name.ts";
import { maxConfigBytes } from "../remotecache/config.ts";
import { readNotes, restoredLayers, writeNotes } from "../remotecache/mount-notes.ts";
import { type PackedMount, parseMountConfig, writeMountConfig } from "../remotecache/mounts.ts";
import type { ObjectStore } from "../remotecache/objects.ts";
import { listMount, type MountPacker, packMount } from "../remotecache/pack-mount.ts";
import type { RemoteCaches } from "../remotecache/remote-caches.ts";
import type { CacheOptions, MountPlace } from "../remotecache/remotecache.ts";
import { unpackMount } from "../remotecache/unpack-mount.ts";
import type { Job, StepContext } from "../solver/solver.ts";
import { cacheMountKey, findCacheMounts } from "../worker/cache-mounts.ts";
import type { MountIdentity, Output, TravellingMounts } from "../worker/worker.ts";
import type { BuildOptions } from "./control.ts";

export interface MountServices extends MountPacker {
	readonly cache: Pick<CacheManager, "search" | "getMutable">;
	readonly mountTree: ExporterServices["mountTree"];
}

export interface MountRequest {
	readonly mountImports: readonly CacheOptions[];
	readonly mountExports: readonly CacheOptions[];
}

/** The cache mounts of one build that travel. */
export interface BuildMounts extends AsyncDisposable {
	/** For the build's steps; undefined if nothing travels. */
	readonly forSteps: TravellingMounts | undefined;
	/** Sends the mounts that steps of this build have used. */
	export(job: Job<Output>): Promise<Readonly<Record<string, string>>>;
}

/**
 * A mount is restored when a step that runs needs it and it is not here; what fails is a warning and an empty mount. It is exported
 * as it is when the build is done; a mount that another build uses at that time is left out. Throws `invalid-argument` for
 * places that can't be what is asked for.
 */
export function openBuildMounts(
	caches: Pick<RemoteCaches, "mountPlace">,
	services: MountServices,
	{ mountImports, mountExports }: MountRequest,
	{ session, signal }: Pick<BuildOptions, "session" | "signal">,
): BuildMounts {
	const origins = mountImports.map((entry) => new Origin(entry, caches.mountPlace(entry, session)));
	const targets = mountExports.map((entry) => ({
		place: caches.mountPlace(entry, session),
		required: boolean(entry.attrs, "ignore-error") === false,
	}));
	const used = new Map<string, MountIdentity>();

	async function fill(mount: MountIdentity, ref: MutableRef, context: StepContext): Promise<boolean> {
		const name = await travellingName(mount, context);
		for (const origin of origins) {
			const found = await origin.find(name, context);
			if (found === undefined) {
				continue;
			}
			try {
				using tree = treeOf(mount, ref, services);
				await unpackMount(found.mount, tree.path, found.store, services.archiver, context);
				if (targets.length > 0) {
					writeNotes(ref, restoredLayers(await listMount(tree.path, services, context), found.mount));
				}
				return true;
			} catch (error) {
				context.signal.throwIfAborted();
				warn(context, `cache mount ${name} could not be restored: ${toError(error).message}`);
				return false;
			}
		}
		return true;
	}

	/** Undefined if somebody else has it. */
	async function pack(
		mount: MountIdentity,
		store: ObjectStore,
		context: StepContext,
	): Promise<PackedMount | undefined> {
		const name = await travellingName(mount, context);
		for (const id of findCacheMounts(services.cache, cacheMountKey(mount))) {
			let ref: MutableRef | undefined;
			try {
				ref = await services.cache.getMutable(id);
			} catch (error) {
				if (!hasCode(error, "failed-precondition")) {
					throw error;
				}
			}
			if (ref !== undefined) {
				await using held = ref;
				using tree = treeOf(mount, held, services);
				const from = { store, known: readNotes(held) };
				const { mount: packed, known } = await packMount(name, tree.path, from, services, context);
				writeNotes(held, known);
				return packed;
			}
		}
		warn(context, `cache mount ${name} is in use and was not exported`);
		return undefined;
	}

	async function send(place: MountPlace, context: StepContext): Promise<Readonly<Record<string, string>>> {
		const store = await place.open();
		const mounts = new Map<string, PackedMount>();
		for (const mount of await knownMounts(store, context)) {
			mounts.set(mount.name, mount);
		}
		for (const origin of origins) {
			for (const { mount, store: from } of await origin.all(context)) {
				if (!mounts.has(mount.name)) {
					await copyLayers(mount, from, store, context);
					mounts.set(mount.name, mount);
				}
			}
		}
		for (const mount of used.values()) {
			const packed = await pack(mount, store, context);
			if (packed !== undefined) {
				mounts.set(packed.name, packed);
			}
		}
		const descriptor = await store.putConfig(writeMountConfig({ mounts: [...mounts.values()] }), context);
		return descriptor === undefined ? {} : { "cache-mounts.manifest": JSON.stringify(descriptor) };
	}

	return {
		forSteps:
			origins.length === 0 && targets.length === 0
				? undefined
				: {
						used: (mount) => {
							const key = cacheMountKey(mount);
							if (!used.has(key)) {
								used.set(key, { id: mount.id, base: mount.base?.clone() });
							}
						},
						fill,
					},
		export: async (job) => {
			if (used.size === 0) {
				return {};
			}
			const responses: Readonly<Record<string, string>>[] = [];
			for (const [index, { place, required }] of targets.entries()) {
				const name = `exporting cache mounts to ${place.name}`;
				try {
					responses.push(
						await job.step({ id: `${name} ${index}`, name, signal }, async (context) => {
							try {
								return await send(place, context);
							} catch (error) {
								if (!required && !context.signal.aborted) {
									warn(context, `${name} failed: ${toError(error).message}`);
								}
								throw error;
							}
						}),
					);
				} catch (error) {
					if (required || signal.aborted) {
						throw error;
					}
				}
			}
			return Object.assign({}, ...responses) as Record<string, string>;
		},
		async [Symbol.asyncDispose]() {
			await Promise.all([...used.values()].map(({ base }) => base?.release()));
			used.clear();
		},
	};
}

interface FoundMount {
	readonly mount: PackedMount;
	readonly store: ObjectStore;
}

/** A place that mounts come from; read when the first one is wanted. */
class Origin {
	readonly #name: string;
	readonly #place: MountPlace;
	#mounts: Promise<readonly FoundMount[]> | undefined;

	constructor(entry: CacheOptions, place: MountPlace) {
		this.#name = nameOf(entry);
		this.#place = place;
	}

	async find(name: string, context: StepContext): Promise<FoundMount | undefined> {
		return (await this.all(context)).find(({ mount }) => mount.name === name);
	}

	/** Empty if the place can't be read, which is told once. */
	all(context: StepContext): Promise<readonly FoundMount[]> {
		this.#mounts ??= this.#read(context).catch((error: unknown) => {
			this.#mounts = context.signal.aborted ? undefined : Promise.resolve([]);
			context.signal.throwIfAborted();
			warn(context, `cache mounts of ${this.#name} are not used: ${toError(error).message}`);
			return [];
		});
		return this.#mounts;
	}

	async #read(context: StepContext): Promise<readonly FoundMount[]> {
		const store = await this.#place.open();
		const mounts = await readMounts(store, context);
		return mounts.map((mount) => ({ mount, store }));
	}
}

async function readMounts(store: ObjectStore, { signal }: StepContext): Promise<readonly PackedMount[]> {
	const mounts: PackedMount[] = [];
	for (const chunks of await store.configs({ signal })) {
		const bytes = await collect(chunks, { maxBytes: maxConfigBytes, what: "list of cache mounts" });
		mounts.push(...parseMountConfig(bytes).mounts);
	}
	return mounts;
}

/** What is in the place already stays, unless it is not readable: then there is nothing to keep. */
async function knownMounts(store: ObjectStore, context: StepContext): Promise<readonly PackedMount[]> {
	try {
		return await readMounts(store, context);
	} catch {
		context.signal.throwIfAborted();
		return [];
	}
}

async function copyLayers(
	{ layers }: PackedMount,
	from: ObjectStore,
	to: ObjectStore,
	{ signal }: StepContext,
): Promise<void> {
	for (const layer of layers) {
		await to.putBlob(layer, () => from.blobs.read({ mediaType: "", ...layer }, { signal }), { signal });
	}
}

/** The same on every builder: what a mount begins with is told by its content. */
async function travellingName({ id, base }: MountIdentity, { signal }: StepContext): Promise<string> {
	if (base === undefined) {
		return id;
	}
	const digest = await base.digests.digest("/", {
		followLinks: false,
		wildcard: false,
		includePatterns: [],
		excludePatterns: [],
		signal,
	});
	return `${id}@${digest}`;
}

function treeOf(
	{ base }: { readonly base: ImmutableRef | undefined },
	ref: MutableRef,
	{ mountTree }: MountServices,
): Disposable & { readonly path: string } {
	return base === undefined ? { path: ref.directory(), [Symbol.dispose]: () => {} } : mountTree(ref.mounts());
}

function warn({ progress, vertex }: StepContext, short: string): void {
	progress.write({ kind: "warning", warning: { vertex, level: 1, short, detail: [] } });
}
