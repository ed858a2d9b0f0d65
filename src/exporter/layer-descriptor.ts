import type { Descriptor } from "../oci/descriptor.ts";
import { mediaTypes } from "../oci/media-types.ts";

/** The media types of a layer in each family; the second half are layers that registries should not pass on. */
const plain: readonly (readonly [oci: string, docker: string])[] = [
	[mediaTypes.ociLayer, mediaTypes.dockerLayer],
	[mediaTypes.ociLayerGzip, mediaTypes.dockerLayerGzip],
	[mediaTypes.ociLayerZstd, mediaTypes.dockerLayerZstd],
];
const foreignOci = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const foreignDocker = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const foreign: readonly (readonly [oci: string, docker: string])[] = [
	[foreignOci, foreignDocker],
	[`${foreignOci}+gzip`, mediaTypes.dockerForeignLayerGzip],
	// Docker has no name for this one.
	[`${foreignOci}+zstd`, `${foreignOci}+zstd`],
];

/** Annotations by which a builder remembers things about its own blobs. */
const internalAnnotations: ReadonlySet<string> = new Set([
	"containerd.io/uncompressed",
	"buildkit/createdat",
]);
const sourcePrefix = "containerd.io/distribution.source.";

/** The layer as a manifest names it: media type of the right family, annotations of the builder left out (Docker's manifests have none). */
export function manifestLayer(
	layer: Descriptor,
	options: { readonly ociTypes: boolean; readonly preferNonDistributable: boolean },
): Descriptor {
	const { digest, size, urls } = layer;
	const keepsUrls = options.preferNonDistributable && urls !== undefined && urls.length > 0;
	const annotations = Object.entries(options.ociTypes ? (layer.annotations ?? {}) : {}).filter(
		([key]) => !internalAnnotations.has(key) && !key.startsWith(sourcePrefix),
	);
	return {
		mediaType: convertMediaType(layer.mediaType, keepsUrls, options.ociTypes),
		digest,
		size,
		...(keepsUrls ? { urls } : {}),
		...(annotations.length === 0 ? {} : { annotations: Object.fromEntries(annotations) }),
	};
}

function convertMediaType(mediaType: string, isForeign: boolean, ociTypes: boolean): string {
	const find = (pair: readonly string[]): boolean => pair.includes(mediaType);
	const row = Math.max(plain.findIndex(find), foreign.findIndex(find));
	const pair = (isForeign ? foreign : plain)[row];
	// What is no known layer keeps its type.
	return pair === undefined ? mediaType : pair[ociTypes ? 0 : 1];
}
