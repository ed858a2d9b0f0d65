import { manifestLayer } from "../exporter/layer-descriptor.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest, sha256 } from "../oci/digest.ts";
import { goJson, goMap } from "../oci/go-json.ts";
import { formatGoTime, goTimeToMs, parseGoTime } from "../oci/go-time.ts";
import { compressionOf, mediaTypes } from "../oci/media-types.ts";
import { writeConfig } from "./config.ts";
import { type CacheBlob, configMediaType, type ExportedCache } from "./remotecache.ts";

/** The form of a cache that is an artifact: an image manifest, or an index whose entries are the blobs themselves. */
export interface ArtifactForm {
	readonly ociTypes: boolean;
	readonly imageManifest: boolean;
}

export interface Artifact {
	readonly config: { readonly descriptor: Descriptor; readonly bytes: Uint8Array };
	readonly manifest: { readonly descriptor: Descriptor; readonly bytes: Uint8Array };
}

const diffIdAnnotation = "containerd.io/uncompressed";
const createdAnnotation = "buildkit/createdat";
const descriptionAnnotation = "buildkit/description";
const ownAnnotations: ReadonlySet<string> = new Set([
	diffIdAnnotation,
	createdAnnotation,
	descriptionAnnotation,
]);

/** The same bytes as BuildKit writes for the same config and layers. */
export function writeArtifact({ config, blobs }: ExportedCache, form: ArtifactForm): Artifact {
	const configBytes = writeConfig(config);
	const configDescriptor = describe(configMediaType, configBytes);
	const layers = config.layers.map(({ blob }) => layerDocument(blobs.get(blob), form));
	const mediaType = form.imageManifest
		? mediaTypes.ociManifest
		: form.ociTypes
			? mediaTypes.ociIndex
			: mediaTypes.dockerManifestList;
	const manifest = goJson({
		schemaVersion: 2,
		mediaType,
		...(form.imageManifest
			? { config: configDescriptor, layers }
			: { manifests: [...layers, configDescriptor] }),
	});
	const bytes = new TextEncoder().encode(manifest);
	return {
		config: { descriptor: configDescriptor, bytes: configBytes },
		manifest: { descriptor: describe(mediaType, bytes), bytes },
	};
}

export function describe(mediaType: string, bytes: Uint8Array): Descriptor {
	return { mediaType, digest: sha256(bytes), size: bytes.length };
}

function layerDocument(blob: CacheBlob | undefined, { ociTypes }: ArtifactForm): object | undefined {
	if (blob === undefined) {
		return undefined;
	}
	const { descriptor, diffId, createdAt } = blob;
	const { mediaType } = manifestLayer(descriptor, { ociTypes, preferNonDistributable: false });
	// Other than an image's, Docker's form has them too: without them eStargz would be gzip when it is imported.
	const { annotations } = manifestLayer(descriptor, { ociTypes: true, preferNonDistributable: false });
	const { digest, size } = descriptor;
	return {
		mediaType,
		digest,
		size,
		annotations: goMap({
			...annotations,
			...(createdAt === undefined ? {} : { [createdAnnotation]: formatGoTime(createdAt) }),
			[diffIdAnnotation]: diffId,
		}),
	};
}

/** A blob by what a manifest says of it; undefined if it does not say what it is when unpacked. */
export function blobOf(
	descriptor: Descriptor,
	provider: CacheBlob["provider"],
	known: Partial<Pick<CacheBlob, "diffId" | "createdAt" | "description">> = {},
): CacheBlob | undefined {
	const { mediaType, digest, size, annotations = {} } = descriptor;
	const stated = annotations[diffIdAnnotation] ?? "";
	const plain = compressionOf(mediaType) === "uncompressed" ? digest : undefined;
	const diffId: Digest | undefined = known.diffId ?? (isDigest(stated) ? stated : plain);
	if (diffId === undefined) {
		return undefined;
	}
	const rest = Object.fromEntries(Object.entries(annotations).filter(([key]) => !ownAnnotations.has(key)));
	return {
		descriptor: {
			mediaType,
			digest,
			size,
			...(Object.keys(rest).length === 0 ? {} : { annotations: rest }),
		},
		diffId,
		createdAt: known.createdAt ?? timeOf(annotations[createdAnnotation]),
		description: known.description ?? annotations[descriptionAnnotation],
		provider,
	};
}

function timeOf(text: string | undefined): number | undefined {
	try {
		return text === undefined ? undefined : goTimeToMs(parseGoTime(text));
	} catch {
		return undefined;
	}
}
