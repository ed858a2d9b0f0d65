import type { LayerBlob as WrittenBlob } from "../archive/archive.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { compressionOf, layerMediaType } from "../oci/media-types.ts";
import type { BlobOptions } from "./cache.ts";
import type { CacheRecord } from "./record.ts";

/**
 * Annotation of a blob whose diff ID is not its layer's. It is ours alone: taken from a manifest it could make any bytes count as
 * a layer that others trust, so `fromLayers` leaves it out.
 */
export const diffIdKey = "containerd.io/uncompressed";

/** Of a layer's blob: the table of contents of eStargz, and the size with it, as others look for them. */
const tocDigestKey = "containerd.io/snapshot/stargz/toc.digest";
const tocSizeKey = "io.containers.estargz.uncompressed-size";

export function kindOf({ annotations, mediaType }: Descriptor): BlobOptions["compression"] | undefined {
	return annotations?.[tocDigestKey] === undefined ? compressionOf(mediaType) : "estargz";
}

/** What the layer's blob is uncompressed: with or without a table of contents it is another thing. */
export function diffIdOf(layer: CacheRecord, { annotations }: Descriptor): Digest | undefined {
	const own = annotations?.[diffIdKey];
	return own !== undefined && isDigest(own) ? own : layer.diffId;
}

export function expectedOf(
	layer: CacheRecord,
	descriptor: Descriptor,
): { readonly digest: Digest; readonly size: number; readonly diffId?: Digest } {
	const { digest, size } = descriptor;
	const diffId = diffIdOf(layer, descriptor);
	return { digest, size, ...(diffId === undefined ? {} : { diffId }) };
}

export function describeWritten(layer: CacheRecord, written: WrittenBlob): Descriptor {
	const { toc, diffId, compression, digest, size } = written;
	const plain = layer.diffId ?? toc?.plainDiffId ?? diffId;
	const annotations = {
		...(plain === diffId ? {} : { [diffIdKey]: diffId }),
		...(toc === undefined
			? {}
			: { [tocDigestKey]: toc.digest, [tocSizeKey]: String(written.uncompressedSize) }),
	};
	return {
		mediaType: layerMediaType(compression, "oci"),
		digest: digest as Digest,
		size,
		...(Object.keys(annotations).length === 0 ? {} : { annotations }),
	};
}
