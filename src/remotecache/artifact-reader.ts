import { collect } from "../content/bytes.ts";
import type { ContentProvider } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import { withStatus } from "../exporter/status.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest, sha256 } from "../oci/digest.ts";
import { goTimeToMs, parseGoTime } from "../oci/go-time.ts";
import { type Manifest, parseManifestDocument } from "../oci/manifest.ts";
import { isIndexType, isManifestType } from "../oci/media-types.ts";
import type { StepContext } from "../solver/solver.ts";
import { blobOf } from "./artifact.ts";
import { maxConfigBytes, parseConfig, parseRecords } from "./config.ts";
import { type CacheBlob, configMediaType, type ImportedCache } from "./remotecache.ts";

/** What an artifact is read from. */
export interface ArtifactSource {
	/** A manifest or index below the root. */
	manifest(descriptor: Descriptor, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
	/** Configs and layers. */
	readonly blobs: ContentProvider;
}

/** Manifests that are looked at below one name; images for more platforms than that do not exist. */
const maxManifests = 64;
const maxDepth = 4;
const maxImageConfigBytes = 8 << 20;

/**
 * Reads a cache from its root document, whatever form it has: an artifact of its own, or images that carry their cache. Throws
 * `invalid-argument` for what is neither, and whatever the source throws.
 */
export async function readArtifact(
	root: Uint8Array,
	source: ArtifactSource,
	options: { readonly signal: AbortSignal },
): Promise<readonly ImportedCache[]> {
	const document = parseManifestDocument(root);
	const entries =
		document.kind === "index"
			? document.index.manifests
			: [document.manifest.config, ...document.manifest.layers];
	const config = entries.find(({ mediaType }) => mediaType === configMediaType);
	if (config !== undefined) {
		const layers = entries.filter((entry) => entry !== config);
		return [
			{
				config: parseConfig(await readBlob(config, source, maxConfigBytes, options)),
				blobs: blobsOf(layers.map((layer) => blobOf(layer, source.blobs))),
			},
		];
	}
	return await readImages(root, source, options);
}

/** Shows what kind of document it is, as BuildKit does. */
export async function showType(root: Uint8Array, context: StepContext): Promise<void> {
	const { mediaType } = parseManifestDocument(root);
	await withStatus(context, `inferred cache manifest type: ${mediaType}`, async () => {});
}

async function readImages(
	root: Uint8Array,
	source: ArtifactSource,
	options: { readonly signal: AbortSignal },
): Promise<readonly ImportedCache[]> {
	const found: ImportedCache[] = [];
	const seen = new Set<Digest>();
	let level: readonly Uint8Array[] = [root];
	for (let depth = 0; level.length > 0 && depth < maxDepth; depth++) {
		const below: Descriptor[] = [];
		for (const bytes of level) {
			const document = parseManifestDocument(bytes);
			if (document.kind === "manifest") {
				found.push(...(await readImage(document.manifest, source, options)));
				continue;
			}
			for (const entry of document.index.manifests) {
				const isImage = isManifestType(entry.mediaType) || isIndexType(entry.mediaType);
				const isAttestation = entry.annotations?.["vnd.docker.reference.type"] !== undefined;
				if (isImage && !isAttestation && !seen.has(entry.digest) && seen.size < maxManifests) {
					seen.add(entry.digest);
					below.push(entry);
				}
			}
		}
		level = await Promise.all(below.map((entry) => source.manifest(entry, options)));
	}
	return found;
}

/** Nothing for an image without a cache. */
async function readImage(
	{ config, layers }: Manifest,
	source: ArtifactSource,
	options: { readonly signal: AbortSignal },
): Promise<readonly ImportedCache[]> {
	if (layers.length === 0) {
		return [];
	}
	const image = parseImage(await readBlob(config, source, maxImageConfigBytes, options));
	const { diffIds, history } = image;
	if (image.cache === undefined || diffIds.length !== layers.length) {
		return [];
	}
	const blobs = layers.map((layer, index) =>
		blobOf(layer, source.blobs, {
			...definedOnly({ diffId: diffIds[index] }),
			...definedOnly(history[index] ?? {}),
		}),
	);
	return [
		{
			config: {
				layers: layers.map(({ digest }, index) => ({ blob: digest, parent: index - 1 })),
				records: parseRecords(Buffer.from(image.cache, "base64")),
			},
			blobs: blobsOf(blobs),
		},
	];
}

interface ImageCache {
	readonly cache: string | undefined;
	readonly diffIds: readonly (Digest | undefined)[];
	/** Of the layers, base first. */
	readonly history: readonly Partial<Pick<CacheBlob, "createdAt" | "description">>[];
}

function parseImage(bytes: Uint8Array): ImageCache {
	let document: {
		readonly rootfs?: { readonly diff_ids?: unknown };
		readonly history?: unknown;
		readonly "moby.buildkit.cache.v0"?: unknown;
	} | null;
	try {
		document = JSON.parse(new TextDecoder().decode(bytes)) as typeof document;
	} catch (error) {
		throw new SlipwayError("invalid-argument", `invalid image config: ${(error as Error).message}`, {
			cause: error,
		});
	}
	const cache = document?.["moby.buildkit.cache.v0"];
	const diffIds: unknown = document?.rootfs?.diff_ids;
	const history: unknown = document?.history;
	return {
		cache: typeof cache === "string" && cache !== "" ? cache : undefined,
		diffIds: Array.isArray(diffIds)
			? diffIds.map((each: unknown) => (typeof each === "string" && isDigest(each) ? each : undefined))
			: [],
		history: (Array.isArray(history) ? history : []).flatMap((entry: unknown) => readHistory(entry)),
	};
}

function readHistory(entry: unknown): ImageCache["history"] {
	const { created, created_by, empty_layer } = (entry ?? {}) as Readonly<Record<string, unknown>>;
	if (empty_layer === true) {
		return [];
	}
	let createdAt: number | undefined;
	try {
		createdAt = typeof created === "string" ? goTimeToMs(parseGoTime(created)) : undefined;
	} catch {
		createdAt = undefined;
	}
	return [
		{
			...(createdAt === undefined ? {} : { createdAt }),
			...(typeof created_by === "string" && created_by !== "" ? { description: created_by } : {}),
		},
	];
}

function definedOnly<T extends object>(record: T): { [K in keyof T]: NonNullable<T[K]> } {
	return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as {
		[K in keyof T]: NonNullable<T[K]>;
	};
}

function blobsOf(blobs: readonly (CacheBlob | undefined)[]): ReadonlyMap<Digest, CacheBlob> {
	return new Map(
		blobs.flatMap((blob) => (blob === undefined ? [] : [[blob.descriptor.digest, blob] as const])),
	);
}

async function readBlob(
	descriptor: Descriptor,
	{ blobs }: ArtifactSource,
	maxBytes: number,
	options: { readonly signal: AbortSignal },
): Promise<Uint8Array> {
	const what = `blob ${descriptor.digest}`;
	if (descriptor.size > maxBytes) {
		throw new SlipwayError("resource-exhausted", `${what} is larger than ${maxBytes} bytes`);
	}
	const bytes = await collect(blobs.read(descriptor, options), { maxBytes, what });
	if (descriptor.digest.startsWith("sha256:") && sha256(bytes) !== descriptor.digest) {
		throw new SlipwayError("data-loss", `${what} has digest ${sha256(bytes)}`);
	}
	return bytes;
}
