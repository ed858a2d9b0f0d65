import type { LayerBlob } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { hostPlatform } from "../oci/platform.ts";
import type { StepContext } from "../solver/solver.ts";
import { type Annotations, annotationsFor, mergeAnnotations, parseAnnotations } from "./annotations.ts";
import { writeConfigDocument } from "./config-document.ts";
import { writeIndex, writeManifest } from "./documents.ts";
import { epochOfMetadata } from "./epoch.ts";
import type { ExportSource } from "./export-source.ts";
import type { ExportContext, ExporterServices, PlatformResult } from "./exporter.ts";
import type { ImageOptions } from "./image-options.ts";
import { manifestLayer } from "./layer-descriptor.ts";
import { rewriteLayers } from "./rewrite-layers.ts";
import { withStatus } from "./status.ts";

/** An image as documents and layers. Its documents are where `put` brought them, its layers wherever they were. */
export interface WrittenImage {
	/** Of the index or the only manifest, with the annotations and platform that whoever refers to it shall show. */
	readonly root: Descriptor;
	/** In the order of the platforms. */
	readonly manifests: readonly WrittenManifest[];
	/** By digest: configs, manifests, the index. */
	readonly documents: ReadonlyMap<Digest, Uint8Array>;
	/** Each layer once. */
	readonly layers: ReadonlyMap<Digest, LayerBlob>;
	/** The time that holds for all of the image, in seconds. */
	readonly epochSeconds: number | undefined;
}

export interface WrittenManifest {
	readonly descriptor: Descriptor;
	readonly config: Descriptor;
	readonly layers: readonly Descriptor[];
}

export interface WriteImageOptions extends ImageOptions {
	readonly services: Pick<ExporterServices, "archiver" | "content">;
	/** Called for each document while its status is shown. */
	readonly put: (digest: Digest, document: Uint8Array) => Promise<void>;
}

/**
 * Makes the layers of all platforms, then configs, manifests and, for several platforms, the index: the same bytes as BuildKit's
 * containerimage writer makes from the same inputs. Throws `invalid-argument` with its messages.
 */
export async function writeImage(
	source: ExportSource,
	options: WriteImageOptions,
	context: StepContext & Pick<ExportContext, "inlineCache" | "keepDocument">,
): Promise<WrittenImage> {
	// Annotations of the frontend win over those of the client (BuildKit merges them in this order).
	const groups = mergeAnnotations(options.annotations, parseAnnotations(source.metadata).groups);
	checkAnnotations(groups, source, options.ociTypes);
	const { platforms, isMap, metadata } = source;
	if (!isMap && platforms.length > 1) {
		throw invalid("cannot export multiple platforms without multi-platform enabled");
	}
	const common = annotationsFor(groups);
	if (!isMap && !(isEmpty(common.index) && isEmpty(common.indexDescriptor))) {
		throw invalid("index annotations not supported for single platform export");
	}
	const epochSeconds = options.epoch === undefined ? epochOfMetadata(metadata) : options.epoch.seconds;
	const layersOf = await makeLayers(platforms, options, context);
	const caches = await makeInlineCaches(layersOf, context);

	const documents = new Map<Digest, Uint8Array>();
	const put = async (status: string, document: Uint8Array): Promise<Digest> => {
		const digest = sha256(document);
		documents.set(digest, document);
		context.keepDocument?.(digest, document);
		await withStatus(context, `${status} ${digest}`, () => options.put(digest, document));
		return digest;
	};
	const manifests: WrittenManifest[] = [];
	const all = new Map<Digest, LayerBlob>();
	for (const platform of platforms) {
		const epoch =
			options.epoch === undefined ? (epochSeconds ?? epochOfMetadata(metadata, platform.id)) : epochSeconds;
		const made = layersOf.get(platform) ?? [];
		const layers =
			options.rewriteTimestamp && epoch !== undefined
				? await rewriteLayers(made, platform.baseImageConfig, epoch, options, context)
				: made;
		for (const layer of layers) {
			all.set(layer.descriptor.digest, layer);
		}
		manifests.push(
			await writePlatform(platform, layers, {
				...options,
				annotations: isMap ? annotationsFor(groups, platform.platform) : common,
				epochSeconds: epoch,
				put,
				inlineCache: caches.get(platform),
			}),
		);
	}
	const [only] = manifests;
	const root =
		isMap || only === undefined ? await writeRoot(manifests, common, options.ociTypes, put) : only.descriptor;
	return { root, manifests, documents, layers: all, epochSeconds };
}

function checkAnnotations(
	groups: ReadonlyMap<string, Annotations>,
	{ platforms, isMap }: ExportSource,
	ociTypes: boolean,
): void {
	for (const [id, { index, indexDescriptor, manifestDescriptor }] of groups) {
		// A result for one platform answers to every name.
		if (id !== "" && isMap && platforms.length > 1 && !platforms.some((platform) => platform.id === id)) {
			throw invalid(`invalid annotation: no platform ${id} found in source`);
		}
		if (!ociTypes && !(isEmpty(index) && isEmpty(indexDescriptor) && isEmpty(manifestDescriptor))) {
			throw invalid('cannot export annotations with "oci-mediatypes=false"');
		}
	}
}

async function makeLayers(
	platforms: readonly PlatformResult[],
	options: ImageOptions,
	context: StepContext,
): Promise<ReadonlyMap<PlatformResult, readonly LayerBlob[]>> {
	const { compression, level, forceCompression: force } = options;
	const { signal, progress, vertex } = context;
	return await withStatus(context, "exporting layers", async () => {
		const all = await Promise.all(
			platforms.map(async (platform) => {
				const layers = await platform.ref?.blobs({
					compression,
					...(level === undefined ? {} : { level }),
					force,
					signal,
					progress,
					vertex,
				});
				return [platform, layers ?? []] as const;
			}),
		);
		return new Map(all);
	});
}

async function makeInlineCaches(
	layersOf: ReadonlyMap<PlatformResult, readonly LayerBlob[]>,
	context: StepContext & Pick<ExportContext, "inlineCache">,
): Promise<ReadonlyMap<PlatformResult, Uint8Array | undefined>> {
	const { inlineCache } = context;
	if (inlineCache === undefined) {
		return new Map();
	}
	return await withStatus(context, "preparing layers for inline cache", async () => {
		const all = await Promise.all(
			[...layersOf].map(async ([platform, layers]) => {
				const { ref } = platform;
				return [platform, ref && (await inlineCache(ref, layers, context))] as const;
			}),
		);
		return new Map(all);
	});
}

type Put = (status: string, document: Uint8Array) => Promise<Digest>;

async function writePlatform(
	{ platform, imageConfig, baseImageConfig }: PlatformResult,
	layers: readonly LayerBlob[],
	options: Pick<ImageOptions, "ociTypes" | "preferNonDistributable"> & {
		readonly annotations: Annotations;
		readonly epochSeconds: number | undefined;
		readonly put: Put;
		readonly inlineCache: Uint8Array | undefined;
	},
): Promise<WrittenManifest> {
	const { ociTypes, annotations, epochSeconds, put } = options;
	const config = writeConfigDocument({
		config: imageConfig,
		baseConfig: baseImageConfig,
		defaultPlatform: hostPlatform(),
		layers,
		epochSeconds,
		inlineCache: options.inlineCache,
	});
	const configDescriptor: Descriptor = {
		mediaType: ociTypes ? mediaTypes.ociConfig : mediaTypes.dockerConfig,
		digest: sha256(config),
		size: config.length,
	};
	const descriptors = layers.map((layer) => manifestLayer(layer.descriptor, options));
	const mediaType = ociTypes ? mediaTypes.ociManifest : mediaTypes.dockerManifest;
	const manifest = writeManifest({
		schemaVersion: 2,
		mediaType,
		config: configDescriptor,
		layers: descriptors,
		annotations: annotations.manifest,
	});
	const digest = await put("exporting manifest", manifest);
	await put("exporting config", config);
	return {
		descriptor: {
			mediaType,
			digest,
			size: manifest.length,
			...(isEmpty(annotations.manifestDescriptor) ? {} : { annotations: annotations.manifestDescriptor }),
			platform,
		},
		config: configDescriptor,
		layers: descriptors,
	};
}

async function writeRoot(
	manifests: readonly WrittenManifest[],
	annotations: Annotations,
	ociTypes: boolean,
	put: Put,
): Promise<Descriptor> {
	const mediaType = ociTypes ? mediaTypes.ociIndex : mediaTypes.dockerManifestList;
	const index = writeIndex({
		schemaVersion: 2,
		mediaType,
		manifests: manifests.map(({ descriptor }) => descriptor),
		annotations: annotations.index,
	});
	const digest = await put("exporting manifest list", index);
	return {
		mediaType,
		digest,
		size: index.length,
		...(isEmpty(annotations.indexDescriptor) ? {} : { annotations: annotations.indexDescriptor }),
	};
}

function isEmpty(record: Readonly<Record<string, string>>): boolean {
	return Object.keys(record).length === 0;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
