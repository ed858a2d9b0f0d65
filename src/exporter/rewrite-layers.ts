import type { ByteSource } from "../archive/archive.ts";
import type { LayerBlob } from "../cache/cache.ts";
import { hasCode, toError, wrap } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { parseImageConfig } from "../oci/image-config.ts";
import { compressionOf, layerMediaType } from "../oci/media-types.ts";
import type { StepContext } from "../solver/solver.ts";
import type { ExporterServices } from "./exporter.ts";
import type { ImageOptions } from "./image-options.ts";
import { withStatus } from "./status.ts";

/** By which BuildKit knows a layer that it has rewritten; it is left in manifests. */
const rewrittenKey = "buildkit/rewritten-timestamp";
const tocDigestKey = "containerd.io/snapshot/stargz/toc.digest";
const tocSizeKey = "io.containers.estargz.uncompressed-size";

/**
 * The layers with no time later than the epoch, as new blobs in the wanted compression. The base image's own layers, from the first on
 * as long as they are its, stay what they are: their digests are known to others.
 */
export async function rewriteLayers(
	layers: readonly LayerBlob[],
	baseConfig: Uint8Array | undefined,
	epochSeconds: number,
	options: Pick<ImageOptions, "compression" | "level"> & {
		readonly services: Pick<ExporterServices, "archiver" | "content">;
	},
	context: StepContext,
): Promise<readonly LayerBlob[]> {
	const base = baseConfig === undefined || baseConfig.length === 0 ? [] : baseDiffIds(baseConfig);
	let diverged = false;
	const work = layers.map((layer, index) => {
		const wasDiverged = diverged;
		diverged ||= layer.diffId !== base[index];
		// A layer of the base that became eStargz is another one, and all above it are rewritten, but it is not (as in BuildKit).
		const isBase = !wasDiverged && layer.plainDiffId !== undefined && layer.plainDiffId === base[index];
		return { layer, isRewritten: diverged && !isBase };
	});
	const id = `rewriting layers with source-date-epoch ${epochSeconds} (${goTimeString(epochSeconds)})`;
	const others = new AbortController();
	const signal = AbortSignal.any([context.signal, others.signal]);
	return await withStatus(context, id, async () => {
		const rewritten = work.map(async ({ layer, isRewritten }, index) => {
			try {
				return isRewritten ? await rewriteLayer(layer, epochSeconds, options, signal) : layer;
			} catch (thrown) {
				const what = `failed to rewrite layer ${index + 1} of ${layers.length} to the epoch`;
				if (signal.aborted || !isUnreadable(thrown)) {
					throw wrap(thrown, what);
				}
				// As in BuildKit, which only says so in the daemon's log. If the bytes are damaged, whoever delivers them finds that out.
				const short = `${what}, it is left as it is: ${toError(thrown).message}`;
				const { progress, vertex } = context;
				progress.write({ kind: "warning", warning: { vertex, level: 1, short, detail: [] } });
				return layer;
			}
		});
		try {
			return await Promise.all(rewritten);
		} catch (thrown) {
			others.abort(thrown);
			await Promise.allSettled(rewritten);
			throw thrown;
		}
	});
}

/** No archive that could be rewritten: a base image may have layers of kinds that only others know. */
function isUnreadable(thrown: unknown): boolean {
	return (["data-loss", "invalid-argument", "unimplemented"] as const).some((code) => hasCode(thrown, code));
}

function baseDiffIds(config: Uint8Array): readonly Digest[] {
	try {
		return parseImageConfig(config).rootfs?.diff_ids ?? [];
	} catch (thrown) {
		throw wrap(thrown, "failed to unmarshal base image config");
	}
}

async function rewriteLayer(
	layer: LayerBlob,
	epochSeconds: number,
	{ compression, level, services }: Parameters<typeof rewriteLayers>[3],
	signal: AbortSignal,
): Promise<LayerBlob> {
	const { archiver, content } = services;
	const { descriptor } = layer;
	const { digest, size, annotations = {} } = descriptor;
	const kind = annotations[tocDigestKey] === undefined ? compressionOf(descriptor.mediaType) : "estargz";
	if (kind === compression && annotations[rewrittenKey] === String(epochSeconds)) {
		return layer;
	}
	const isHere = (await content.info(digest))?.size === size;
	const source: ByteSource = isHere
		? { kind: "file", path: content.path(digest) }
		: { kind: "stream", chunks: layer.provider.read(descriptor, { signal }) };
	const dest = content.temporaryPath();
	const written = await archiver.convertLayer(
		{
			source,
			dest,
			compression: { kind: compression, ...(level === undefined ? {} : { level }) },
			expected: { digest, size },
			maxModifiedSeconds: epochSeconds,
		},
		{ signal },
	);
	const made: Descriptor = {
		mediaType: layerMediaType(written.compression, "oci"),
		digest: written.digest as Digest,
		size: written.size,
		annotations: {
			[rewrittenKey]: String(epochSeconds),
			...(written.toc === undefined
				? {}
				: { [tocDigestKey]: written.toc.digest, [tocSizeKey]: String(written.uncompressedSize) }),
		},
	};
	await content.adopt(dest, made);
	return {
		...layer,
		descriptor: made,
		diffId: written.diffId as Digest,
		provider: { read: (_, readOptions) => content.read(made.digest, readOptions) },
	};
}

/** As Go prints a time. */
function goTimeString(seconds: number): string {
	return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} +0000 UTC`;
}
