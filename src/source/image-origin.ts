import { chunksOf, readBlob } from "../content/bytes.ts";
import type { ContentProvider, ContentReader, ContentStore, ReadOptions } from "../content/content.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { maxManifestBytes, parseManifestDocument } from "../oci/manifest.ts";

/**
 * Where one image comes from: a registry, the images kept here, the client's OCI layout. Documents (indexes, manifests, configs) are
 * kept in the content store, layers are left where they are until somebody wants them.
 */
export interface ImageOrigin {
	/** The image's name in messages. */
	readonly name: string;
	/** What the name stands for. */
	resolve(options: { readonly signal: AbortSignal }): Promise<Descriptor>;
	/** A small blob of the image, verified. */
	document(descriptor: Descriptor, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
	readonly layers: ContentProvider;
	/** Notes that the layers of the image with this root can be had where it came from. */
	remember?(root: Digest, layers: readonly Descriptor[]): void;
}

/** Configs grow with their history; some megabytes is the most that is seen. */
export const maxDocumentBytes: number = 8 << 20;

/** A document that was kept, if it is undamaged; a damaged one is removed. */
export async function keptDocument(
	content: ContentStore,
	digest: Digest,
	options: { readonly signal: AbortSignal },
): Promise<Uint8Array | undefined> {
	if ((await content.info(digest)) === undefined) {
		return undefined;
	}
	let bytes: Uint8Array;
	try {
		bytes = await readBlob(content, digest, { maxBytes: maxDocumentBytes, signal: options.signal });
	} catch (thrown) {
		if (toError(thrown).code === "not-found") {
			return undefined;
		}
		throw thrown;
	}
	// Hashing some kilobytes costs nothing beside what depends on them.
	if (!digest.startsWith("sha256:") || sha256(bytes) === digest) {
		return bytes;
	}
	await content.delete(digest);
	return undefined;
}

/** Reads a document that is not here and keeps it. Throws `data-loss` if it is not what its digest says. */
export async function keepDocument(
	content: ContentStore,
	chunks: AsyncIterable<Uint8Array>,
	{ digest, size }: Pick<Descriptor, "digest" | "size">,
	options: { readonly signal: AbortSignal },
): Promise<Uint8Array> {
	if (size > maxDocumentBytes) {
		throw new SlipwayError(
			"resource-exhausted",
			`document ${digest} has ${size} bytes, more than ${maxDocumentBytes}`,
		);
	}
	await content.write(chunks, { expected: { digest, size }, signal: options.signal });
	return readBlob(content, digest, { maxBytes: maxDocumentBytes, signal: options.signal });
}

export function keepBytes(
	content: ContentStore,
	bytes: Uint8Array,
	digest: Digest,
	options: { readonly signal: AbortSignal },
): Promise<Uint8Array> {
	return keepDocument(content, chunksOf(bytes), { digest, size: bytes.length }, options);
}

/** The descriptor of a manifest or index whose type nobody stated. */
export function describeManifest(bytes: Uint8Array, digest: Digest): Descriptor {
	return { mediaType: parseManifestDocument(bytes).mediaType, digest, size: bytes.length };
}

/** Reads from the content store what is there, the rest from `far`. */
export function preferKept(
	content: ContentStore,
	far: (descriptor: Descriptor, options: ReadOptions) => AsyncIterable<Uint8Array>,
): ContentProvider {
	return {
		async *read(descriptor, options) {
			const kept = await content.info(descriptor.digest);
			yield* kept?.size === descriptor.size
				? content.read(descriptor.digest, options)
				: far(descriptor, options);
		},
	};
}

/** An image in a content store of the client. */
export function layoutOrigin(
	name: string,
	digest: Digest,
	options: { readonly content: ContentStore; readonly reader: () => ContentReader },
): ImageOrigin {
	const { content, reader } = options;
	return {
		name,
		resolve: async ({ signal }) => {
			const kept = await keptDocument(content, digest, { signal });
			if (kept !== undefined) {
				return describeManifest(kept, digest);
			}
			const info = await reader().info(digest);
			if (info === undefined) {
				throw new SlipwayError("not-found", `${name}: not found in the client's OCI layout`);
			}
			if (info.size > maxManifestBytes) {
				throw new SlipwayError("resource-exhausted", `rejecting ${info.size} byte manifest for ${name}`);
			}
			const bytes = await keepDocument(content, reader().read(digest, { signal }), info, { signal });
			return describeManifest(bytes, digest);
		},
		document: async (descriptor, { signal }) => {
			const kept = await keptDocument(content, descriptor.digest, { signal });
			return (
				kept ?? keepDocument(content, reader().read(descriptor.digest, { signal }), descriptor, { signal })
			);
		},
		layers: preferKept(content, (descriptor, readOptions) => reader().read(descriptor.digest, readOptions)),
	};
}
