import { createSingleFlight } from "../async/single-flight.ts";
import type { CacheManager, ImageLayer, ImmutableRef, RecordType } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { compressionOf } from "../oci/media-types.ts";
import type { Platform } from "../oci/platform.ts";
import { progressTime } from "../progress/progress.ts";
import { type ImageDocuments, readImage } from "./image-documents.ts";
import { layersKey, manifestKey } from "./image-keys.ts";
import type { ImageOrigin } from "./image-origin.ts";
import type { SourceInstance, SourceOptions } from "./source.ts";

export interface ImageInstanceOptions {
	readonly origin: ImageOrigin;
	readonly platform: Platform;
	readonly cache: Pick<CacheManager, "fromLayers">;
	readonly layerLimit?: number | undefined;
	/** What the name must point to. */
	readonly checksum?: Digest | undefined;
	readonly recordType?: RecordType | undefined;
}

/** An image as a source: keys from its documents, files from its layers, which stay where they are until somebody needs them. */
export function createImageInstance(instance: ImageInstanceOptions): SourceInstance {
	const { origin, platform, cache, layerLimit } = instance;
	const flight = createSingleFlight<"image", ImageDocuments>();
	let known: ImageDocuments | undefined;

	const load = async (options: SourceOptions): Promise<ImageDocuments> => {
		known ??= await flight.run("image", (signal) => reportResolve(instance, { ...options, signal }), options);
		return known;
	};

	return {
		cacheKey: async (index, options) => {
			const { root, config } = await load(options);
			const second = index === 0 ? undefined : layersKey(config, layerLimit);
			return { key: second ?? manifestKey(root.digest, platform, layerLimit), last: index > 0 };
		},
		snapshot: async (options): Promise<ImmutableRef | undefined> => {
			const image = await load(options);
			origin.remember?.(image.root.digest, image.manifest.layers);
			return cache.fromLayers(layersOf(image, origin.name).slice(0, layerLimit), {
				provider: origin.layers,
				description: `pulled from ${origin.name}`,
				recordType: instance.recordType ?? "regular",
				progress: options.progress,
				vertex: options.vertex,
				signal: options.signal,
			});
		},
	};
}

/** Reads the documents, checks what was asked of them, and shows both as one status. */
async function reportResolve(
	{ origin, platform, layerLimit, checksum }: ImageInstanceOptions,
	{ progress, vertex, signal }: SourceOptions,
): Promise<ImageDocuments> {
	const started = progressTime();
	const report = (completed?: number): void =>
		progress.write({
			kind: "status",
			status: {
				vertex,
				id: `resolve ${origin.name}`,
				name: "",
				current: 0,
				total: 0,
				timestamp: progressTime(),
				started,
				...(completed === undefined ? {} : { completed }),
			},
		});
	report();
	try {
		const image = await readImage(origin, platform, { signal });
		if (checksum !== undefined && image.root.digest !== checksum) {
			throw new SlipwayError(
				"failed-precondition",
				`image digest ${image.root.digest} for ${origin.name} does not match expected checksum ${checksum}`,
			);
		}
		const count = layersOf(image, origin.name).length;
		if (layerLimit !== undefined && layerLimit > count) {
			throw new SlipwayError(
				"invalid-argument",
				`layer limit ${layerLimit} is greater than the number of layers in the image ${count}`,
			);
		}
		return image;
	} finally {
		report(progressTime());
	}
}

/** The layers of the manifest with their uncompressed digests from the config, and their times from its history. */
function layersOf({ manifest, config }: ImageDocuments, name: string): readonly ImageLayer[] {
	const diffIds = config.rootfs?.diff_ids ?? [];
	if (diffIds.length !== manifest.layers.length) {
		throw new SlipwayError(
			"invalid-argument",
			`mismatched image rootfs and manifest layers: ${name} has ${manifest.layers.length} layers ` +
				`but ${diffIds.length} diff ids`,
		);
	}
	const history = (config.history ?? []).filter((entry) => entry.empty_layer !== true);
	const times =
		history.length === diffIds.length ? history.map((entry) => Date.parse(entry.created ?? "")) : [];
	return manifest.layers.map((descriptor, i): ImageLayer => {
		const diffId = diffIds[i];
		if (diffId === undefined || compressionOf(descriptor.mediaType) === undefined) {
			throw new SlipwayError(
				"unimplemented",
				`layer ${descriptor.digest} of ${name} has unsupported media type ${JSON.stringify(descriptor.mediaType)}`,
			);
		}
		const time = times[i];
		return { descriptor, diffId, ...(time === undefined || Number.isNaN(time) ? {} : { createdAt: time }) };
	});
}
