import { Readable } from "node:stream";
import { collect } from "../content/bytes.ts";
import type { ContentProvider } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import { withStatus } from "../exporter/status.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { StepContext } from "../solver/solver.ts";
import { maxConfigBytes, parseConfig, writeConfig, zeroTime } from "./config.ts";
import type {
	BlobForm,
	CacheBlob,
	CacheConfig,
	CacheOrigin,
	CacheTarget,
	ExportedCache,
	ImportedCache,
} from "./remotecache.ts";

/**
 * A store of named objects, as clouds have them: blobs by digest and configs by name, without manifests. So the config itself says
 * of each layer what a manifest would.
 */
export interface ObjectStore {
	/** Sends a blob unless it is there. */
	putBlob(
		descriptor: Pick<Descriptor, "digest" | "size">,
		open: () => AsyncIterable<Uint8Array>,
		options: { readonly signal: AbortSignal },
	): Promise<void>;
	/** Replaces the config under all names of the cache. Gives what names it, where the client keeps the names. */
	putConfig(bytes: Uint8Array, options: { readonly signal: AbortSignal }): Promise<Descriptor | undefined>;
	/** The configs under the names that are looked into; fewer if some are not there. */
	configs(options: { readonly signal: AbortSignal }): Promise<readonly AsyncIterable<Uint8Array>[]>;
	/** Blobs by descriptor. */
	readonly blobs: ContentProvider;
}

/** Of the names under which the list of cache mounts is kept. */
export const mountsSuffix = "-mounts";

export function objectTarget(name: string, form: BlobForm, open: () => Promise<ObjectStore>): CacheTarget {
	return {
		name,
		form,
		sendBlob: async ({ descriptor, provider }, { signal }) => {
			const store = await open();
			await store.putBlob(descriptor, () => provider.read(descriptor, { signal }), { signal });
		},
		finish: async (cache, { signal }) => {
			const store = await open();
			await store.putConfig(writeConfig(withAnnotations(cache)), { signal });
			return {};
		},
	};
}

function withAnnotations({ config, blobs }: ExportedCache): CacheConfig {
	return {
		...config,
		layers: config.layers.map((layer) => {
			const blob = blobs.get(layer.blob);
			if (blob === undefined) {
				throw new SlipwayError("internal", `blob ${layer.blob} of the cache is missing`);
			}
			const { mediaType, size } = blob.descriptor;
			return {
				...layer,
				annotations: { mediaType, diffId: blob.diffId, size, createdAt: blob.createdAt ?? zeroTime },
			};
		}),
	};
}

export function objectOrigin(name: string, open: () => Promise<ObjectStore>): CacheOrigin {
	return {
		name,
		read: async (context) => {
			const { signal } = context;
			const store = await open();
			const found = await store.configs({ signal });
			return await Promise.all(
				found.map(async (chunks) => {
					const bytes = await collect(chunks, { maxBytes: maxConfigBytes, what: `config of cache ${name}` });
					return await imported(parseConfig(bytes), store, context);
				}),
			);
		},
	};
}

async function imported(
	config: CacheConfig,
	store: ObjectStore,
	context: StepContext,
): Promise<ImportedCache> {
	const blobs = new Map<Digest, CacheBlob>();
	for (const { blob: digest, annotations } of config.layers) {
		if (annotations === undefined) {
			throw new SlipwayError("invalid-argument", "cache layer with missing annotations");
		}
		const { mediaType, diffId, size, createdAt } = annotations;
		if (diffId === undefined) {
			throw new SlipwayError("invalid-argument", "cache layer with missing diffid");
		}
		blobs.set(digest, {
			descriptor: { mediaType, digest, size },
			diffId,
			createdAt: createdAt === zeroTime ? undefined : createdAt,
			description: undefined,
			provider: store.blobs,
		});
	}
	await withStatus(context, `found ${blobs.size} layers in cache`, async () => {});
	return { config, blobs };
}

/** Opens a store when it is first needed, once. After a failure the next one tries again. */
export function lazily<T>(open: () => Promise<T>): () => Promise<T> {
	let opened: Promise<T> | undefined;
	return () => {
		opened ??= open().catch((error: unknown) => {
			opened = undefined;
			throw error;
		});
		return opened;
	};
}

/** Pieces of the size that a service takes at a time; the last one is shorter. */
export async function* inParts(chunks: AsyncIterable<Uint8Array>, partBytes: number): AsyncGenerator<Buffer> {
	let held: Uint8Array[] = [];
	let size = 0;
	for await (let chunk of chunks) {
		while (size + chunk.length >= partBytes) {
			held.push(chunk.subarray(0, partBytes - size));
			yield Buffer.concat(held);
			chunk = chunk.subarray(partBytes - size);
			held = [];
			size = 0;
		}
		if (chunk.length > 0) {
			held.push(chunk);
			size += chunk.length;
		}
	}
	if (size > 0) {
		yield Buffer.concat(held);
	}
}

/** The same bytes as the SDK of Azure wants them, which calls methods that only Node's buffers have. */
export function bufferStream(chunks: AsyncIterable<Uint8Array>): Readable {
	return Readable.from(asBuffers(chunks));
}

async function* asBuffers(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void> {
	for await (const chunk of chunks) {
		yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
	}
}
