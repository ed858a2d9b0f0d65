import type { ByteSource } from "../archive/archive.ts";
import { createLimit, type Limit } from "../async/limit.ts";
import type { ContentProvider, ContentStore, LocalContent, ReadOptions } from "../content/content.ts";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { diffIdOf, kindOf } from "./blob-descriptors.ts";
import type { BlobOptions, LayerBlob, RefWorkOptions } from "./cache.ts";
import { countChunks } from "./layer-progress.ts";
import type { BlobOrigin, CacheRecord } from "./record.ts";

/** Registries and disks gain nothing from more. */
const maxDownloads = 6;

/** Finds the blobs of layers, here or where they may be had, and fetches them. */
export class LayerBlobs {
	readonly #content: ContentStore & Partial<LocalContent>;
	readonly #downloads: Limit = createLimit(maxDownloads);

	constructor(content: ContentStore & Partial<LocalContent>) {
		this.#content = content;
	}

	/** True if the bytes of a layer can be had in some way: as files, or as a blob here or elsewhere. */
	async isAvailable(layer: CacheRecord): Promise<boolean> {
		return layer.snapshot !== undefined || (await this.reachableBlobs(layer)).length > 0;
	}

	/** Reads a layer's blob from here, or from where it can be fetched. */
	provider(layer: CacheRecord): ContentProvider {
		return { read: (descriptor, options) => this.#readAnywhere(layer, descriptor, options) };
	}

	source(layer: CacheRecord, descriptor: Descriptor, signal: AbortSignal): ByteSource {
		const path = this.#content.path?.(descriptor.digest);
		return path === undefined
			? { kind: "stream", chunks: this.#readAnywhere(layer, descriptor, { signal }) }
			: { kind: "file", path };
	}

	/** The first of the layer's blobs that is here. */
	async blobHere(layer: CacheRecord): Promise<Descriptor | undefined> {
		for (const descriptor of layer.blobs.values()) {
			if ((await this.#content.info(descriptor.digest)) !== undefined) {
				return descriptor;
			}
		}
		return undefined;
	}

	/** Brings one of the layer's blobs here. */
	async fetch(layer: CacheRecord, options: RefWorkOptions): Promise<Descriptor> {
		const here = await this.blobHere(layer);
		if (here !== undefined) {
			return here;
		}
		return this.fromOrigins(layer, options, async (descriptor, provider) => {
			const chunks = provider.read(descriptor, options);
			await this.#content.write(countChunks(chunks, layer, options, descriptor), {
				expected: { digest: descriptor.digest, size: descriptor.size },
				signal: options.signal,
			});
			return descriptor;
		});
	}

	/** Tries one blob after the other from one place after the other, until one can be had. */
	async fromOrigins<T>(
		layer: CacheRecord,
		options: RefWorkOptions,
		fetch: (descriptor: Descriptor, provider: ContentProvider) => Promise<T>,
	): Promise<T> {
		let failure: unknown;
		for (const descriptor of layer.blobs.values()) {
			for (const { provider } of originsOf(layer, descriptor)) {
				try {
					using _slot = await this.#downloads.acquire(options);
					return await fetch(descriptor, provider);
				} catch (thrown) {
					if (options.signal.aborted) {
						throw toError(options.signal.reason);
					}
					failure ??= thrown;
				}
			}
		}
		throw failure === undefined
			? new SlipwayError("not-found", `files of layer ${layer.id} are gone and nobody can provide them`)
			: wrap(failure, `failed to copy layer ${[...layer.blobs.keys()].join(", ")}`);
	}

	async knownBlob(layer: CacheRecord, options: BlobOptions): Promise<LayerBlob | undefined> {
		const wanted = (descriptor: Descriptor): boolean => kindOf(descriptor) === options.compression;
		const known = await this.reachableBlobs(layer);
		// Unforced it is the layer's first blob, wherever that is and whatever was made of it since.
		const descriptor = options.force
			? known.find(wanted)
			: [...layer.blobs.values()].find((each) => known.includes(each));
		return descriptor === undefined ? undefined : this.describeBlob(layer, descriptor);
	}

	describeBlob(layer: CacheRecord, descriptor: Descriptor): LayerBlob {
		const diffId = diffIdOf(layer, descriptor);
		if (diffId === undefined) {
			throw new SlipwayError("internal", `layer ${layer.id} has a blob without a diff id`);
		}
		return {
			descriptor,
			diffId,
			...(layer.diffId === undefined || layer.diffId === diffId ? {} : { plainDiffId: layer.diffId }),
			createdAt: layer.createdAt,
			description: layer.description,
			provider: this.provider(layer),
		};
	}

	/** Blobs whose bytes can be had, those that are here first. */
	async reachableBlobs(layer: CacheRecord): Promise<readonly Descriptor[]> {
		const here: Descriptor[] = [];
		const elsewhere: Descriptor[] = [];
		for (const descriptor of layer.blobs.values()) {
			const local = (await this.#content.info(descriptor.digest)) !== undefined;
			if (local) {
				here.push(descriptor);
			} else if (originsOf(layer, descriptor).length > 0) {
				elsewhere.push(descriptor);
			}
		}
		return [...here, ...elsewhere];
	}

	async *#readAnywhere(
		layer: CacheRecord,
		descriptor: Descriptor,
		options: ReadOptions,
	): AsyncGenerator<Uint8Array, void> {
		if ((await this.#content.info(descriptor.digest)) !== undefined) {
			yield* this.#content.read(descriptor.digest, options);
			return;
		}
		const [origin] = originsOf(layer, descriptor);
		if (origin === undefined) {
			throw new SlipwayError("not-found", `blob ${descriptor.digest} of layer ${layer.id} is gone`);
		}
		yield* origin.provider.read(descriptor, options);
	}
}

/** Where a blob of the layer may be had. A copy: others come and go meanwhile. */
function originsOf({ origins }: CacheRecord, { digest }: Descriptor): readonly BlobOrigin[] {
	return origins.filter(({ isLost }) => isLost?.(digest) !== true);
}
