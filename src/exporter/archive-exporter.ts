import { verifyBlob } from "../content/bytes.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { formatGoTime } from "../oci/go-time.ts";
import type { ImageOffer, OutputStore } from "../session/session.ts";
import { type ArchivePart, archiveParts } from "./archive-parts.ts";
import { writeDescriptor } from "./documents.ts";
import { resolveSource } from "./export-source.ts";
import type { ExportContext, Exporter, ExporterFactory, ExporterServices } from "./exporter.ts";
import { parseFlag, parseImageOptions } from "./image-options.ts";
import { type WrittenImage, writeImage } from "./image-writer.ts";
import { discardDamaged, fetchLayers } from "./layer-files.ts";
import { checkNames, namesOf, normalizeNames } from "./names.ts";
import { archiveChunks, outputOf, withStream, writeArchive } from "./output.ts";
import { imageResponse } from "./response.ts";
import { withStatus } from "./status.ts";

const createdKey = "org.opencontainers.image.created";

/** `oci` and `docker`: the image as an archive, or blob by blob into a store of the client (`tar=false`). */
export function createArchiveExporter(
	variant: "oci" | "docker",
	services: ExporterServices,
): ExporterFactory {
	return (attrs): Exporter => {
		const { options, rest } = parseImageOptions(attrs);
		const asTar = parseFlag(rest, "tar") ?? true;
		const { tar: _, ...overrides } = rest;
		checkNames(options.name);
		return {
			name: `exporting to ${variant} image format`,
			async export(result, context) {
				if (variant === "docker" && result.refs.size > 0) {
					throw new SlipwayError(
						"invalid-argument",
						"docker exporter does not currently support exporting manifest lists",
					);
				}
				const source = resolveSource(result, overrides);
				const image = await writeImage(source, { ...options, services, put: async () => {} }, context);
				const root = withCreation(image, services.now?.() ?? Date.now());
				const names = normalizeNames(namesOf(options.name, source.metadata));
				const response = imageResponse(image, root, names.length === 0 ? undefined : names.join(","));
				const fetch = (leftOut: ReadonlySet<string> = new Set()): Promise<void> =>
					fetchLayers(image.layers, services.content, { ...context, leftOut });
				if (asTar) {
					const output = outputOf(context, "stream", variant);
					const partsWithout = (leftOut: ReadonlySet<string>): readonly ArchivePart[] =>
						archiveParts(image, root, { variant, names, leftOut });
					const { takeImage } = output;
					if (takeImage === undefined) {
						await fetch();
						await withStream(output, response, (stream) =>
							withStatus(context, "sending tarball", () =>
								writeArchive(stream, partsWithout(new Set()), services, context.signal),
							),
						);
					} else {
						const offer = offerOf(image, names, async function* (leftOut) {
							await fetch(leftOut);
							yield* archiveChunks(partsWithout(leftOut), services.content, context.signal);
						});
						await withStatus(context, "sending tarball", () => takeImage(offer, context));
					}
				} else {
					const { store } = outputOf(context, "store", variant);
					await fetch();
					await writeToStore(store, image, services, context);
					await store.setRoot(writeDescriptor(root), names);
				}
				return response;
			},
		};
	};
}

function offerOf(
	{ manifests, layers }: WrittenImage,
	names: readonly string[],
	archive: ImageOffer["archive"],
): ImageOffer {
	return {
		names,
		archive,
		images: manifests.map((manifest) => ({
			configDigest: manifest.config.digest,
			layers: manifest.layers.map(({ digest }) => ({ digest, diffId: layers.get(digest)?.diffId ?? "" })),
		})),
	};
}

/** When the image was made, for whoever reads the layout's index. */
function withCreation({ root, epochSeconds }: WrittenImage, nowMs: number): Descriptor {
	if (root.annotations?.[createdKey] !== undefined) {
		return root;
	}
	const seconds = epochSeconds ?? Math.floor(nowMs / 1000);
	return { ...root, annotations: { ...root.annotations, [createdKey]: formatGoTime({ seconds, nanos: 0 }) } };
}

/** What a document names is there before the document. */
async function writeToStore(
	store: OutputStore,
	{ layers, documents, manifests }: WrittenImage,
	{ content }: ExporterServices,
	{ signal }: ExportContext,
): Promise<void> {
	for (const [digest, { descriptor }] of layers) {
		if (await store.has(digest)) {
			continue;
		}
		try {
			await store.write({ digest, size: descriptor.size }, content.read(digest, { signal }), { signal });
		} catch (thrown) {
			// The store judges what it takes, so only after a failure is there a reason to look at our own bytes.
			if (!signal.aborted && !(await verifyBlob(content, digest, { signal }))) {
				throw await discardDamaged(content, { digest, found: "its bytes have another digest" });
			}
			throw toError(thrown);
		}
	}
	const configs = new Set(manifests.map(({ config }) => config.digest));
	// The index is the last of the documents, after all manifests.
	const sorted = [...documents].sort(
		([one], [other]) => Number(configs.has(other)) - Number(configs.has(one)),
	);
	for (const [digest, document] of sorted) {
		if (!(await store.has(digest))) {
			await store.write({ digest, size: document.length }, single(document), { signal });
		}
	}
}

async function* single(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
	yield bytes;
}
