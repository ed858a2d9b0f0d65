import { SlipwayError, toError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { maxManifestBytes, parseManifestDocument } from "../oci/manifest.ts";
import { isIndexType, isManifestType } from "../oci/media-types.ts";
import { readBlob } from "./bytes.ts";
import type { ContentReader } from "./content.ts";

/** An index of indexes of manifests is the deepest that is seen in practice. */
const maxDepth = 8;
/** An index has at most 4096 entries; ten times that with layers is no image. */
const maxBlobs = 65_536;

/**
 * The blobs that belong to an image: the root, the manifests of an index, their configs and layers. What is not in the
 * store (layers that were never pulled, manifests of other platforms) is named too but not entered, and so is a document
 * that cannot be read: damage is found by whoever uses it. Throws `resource-exhausted` for a graph that is too deep
 * or too large.
 */
export async function imageClosure(
	content: ContentReader,
	root: Descriptor,
	options: { readonly signal: AbortSignal },
): Promise<ReadonlyMap<Digest, Descriptor>> {
	const found = new Map<Digest, Descriptor>([[root.digest, root]]);
	let level: readonly Descriptor[] = [root];
	for (let depth = 0; level.length > 0; depth++) {
		if (depth > maxDepth) {
			throw new SlipwayError(
				"resource-exhausted",
				`image ${root.digest} is nested deeper than ${maxDepth} levels`,
			);
		}
		const next: Descriptor[] = [];
		for (const parent of level) {
			for (const child of await childrenOf(content, parent, options.signal)) {
				if (found.has(child.digest)) {
					continue;
				}
				if (found.size >= maxBlobs) {
					throw new SlipwayError(
						"resource-exhausted",
						`image ${root.digest} has more than ${maxBlobs} blobs`,
					);
				}
				found.set(child.digest, child);
				next.push(child);
			}
		}
		level = next;
	}
	return found;
}

async function childrenOf(
	content: ContentReader,
	descriptor: Descriptor,
	signal: AbortSignal,
): Promise<readonly Descriptor[]> {
	if (!isIndexType(descriptor.mediaType) && !isManifestType(descriptor.mediaType)) {
		return [];
	}
	try {
		const bytes = await readBlob(content, descriptor.digest, { maxBytes: maxManifestBytes, signal });
		const document = parseManifestDocument(bytes, descriptor.mediaType);
		return document.kind === "index"
			? document.index.manifests
			: [document.manifest.config, ...document.manifest.layers];
	} catch (thrown) {
		const { code } = toError(thrown);
		if (code === "not-found" || code === "invalid-argument" || code === "resource-exhausted") {
			return [];
		}
		throw thrown;
	}
}
