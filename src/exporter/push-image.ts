import type { LayerBlob } from "../cache/cache.ts";
import type { BlobSources } from "../content/blob-sources.ts";
import { chunksOf, verifyBlob } from "../content/bytes.ts";
import type { ReadOptions } from "../content/content.ts";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import {
	formatReference,
	parseReference,
	type Reference,
	referenceName,
	withDefaultTag,
	withDigest,
} from "../oci/reference.ts";
import type { Repository } from "../registry/registry.ts";
import type { ExportContext, ExporterServices } from "./exporter.ts";
import type { WrittenImage } from "./image-writer.ts";
import { discardDamaged } from "./layer-files.ts";
import { withStatus } from "./status.ts";

export interface PushOptions {
	/** The name must have no tag; the image is found by its digest only. */
	readonly byDigest: boolean;
	/** Any certificate, and plain http. */
	readonly insecure: boolean;
}

/**
 * Sends an image to the registry that its name names: first all blobs that are not there, several at a time, then manifests, an
 * index before nothing that it names. A blob that another repository of the same registry is known to have is mounted from
 * there; a layer that was never fetched is then not fetched either, and if it must be sent it passes through without being kept.
 */
export async function pushImage(
	name: string,
	image: WrittenImage,
	{ byDigest, insecure }: PushOptions,
	services: Pick<ExporterServices, "content" | "sources" | "openRepository">,
	context: ExportContext,
): Promise<void> {
	const target = targetOf(name, image.root.digest, byDigest);
	const repository = services.openRepository(target.reference, { session: context.session, insecure });
	try {
		await withStatus(context, "pushing layers", () =>
			pushBlobs(repository, target.reference, image, services, context),
		);
		await withStatus(context, `pushing manifest for ${target.shown}`, () =>
			pushManifests(repository, image, target.tag, context),
		);
	} catch (thrown) {
		throw wrap(thrown, `failed to push ${name}`);
	}
}

interface Target {
	readonly reference: Reference;
	/** Undefined: by digest. */
	readonly tag: string | undefined;
	/** As BuildKit shows it. */
	readonly shown: string;
}

function targetOf(name: string, digest: Digest, byDigest: boolean): Target {
	const reference = parseReference(name);
	if (byDigest) {
		checkByDigest(name);
		return { reference, tag: undefined, shown: referenceName(reference) };
	}
	// A digest in the name says nothing about what was built: the image's own takes its place.
	const named = reference.digest === undefined ? withDefaultTag(reference) : reference;
	return { reference: named, tag: named.tag, shown: formatReference(withDigest(named, digest)) };
}

/** What has a tag cannot be pushed by digest only. Throws `invalid-argument` with BuildKit's message. */
export function checkByDigest(name: string): void {
	const reference = parseReference(name);
	if (reference.tag !== undefined || reference.digest !== undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`can't push tagged ref ${formatReference(reference)} by digest`,
		);
	}
}

/** Throws `data-loss` if the bytes that could not be sent are not the layer's: of our own always, of a far place's if they were `refused`. */
async function checkBytes(
	{ descriptor, provider }: LayerBlob,
	content: ExporterServices["content"],
	{ refused, signal }: { readonly refused: boolean; readonly signal: AbortSignal },
): Promise<void> {
	const { digest } = descriptor;
	const isHere = (await content.info(digest)) !== undefined;
	const bytes = { read: (_: Digest, options: ReadOptions) => provider.read(descriptor, options) };
	if ((!isHere && !refused) || (await verifyBlob(isHere ? content : bytes, digest, { signal }))) {
		return;
	}
	throw isHere
		? await discardDamaged(content, { digest, found: "its bytes have another digest" })
		: new SlipwayError("data-loss", `layer ${digest} to push has other bytes where it comes from`);
}

/** One thing to send: a config that is in memory, or a layer. */
interface Piece {
	readonly descriptor: Pick<Descriptor, "digest" | "size">;
	readonly open: () => AsyncIterable<Uint8Array>;
	readonly layer: LayerBlob | undefined;
}

async function pushBlobs(
	repository: Repository,
	reference: Reference,
	image: WrittenImage,
	services: Pick<ExporterServices, "content" | "sources">,
	{ signal }: ExportContext,
): Promise<void> {
	const { sources, content } = services;
	const others = new AbortController();
	const any = AbortSignal.any([signal, others.signal]);
	const pushes = piecesOf(image, any).map(async ({ descriptor, open, layer }) => {
		try {
			await repository.pushBlob(descriptor, open, {
				signal: any,
				mountFrom: layer === undefined ? [] : mountSources(sources, descriptor.digest, reference),
			});
		} catch (thrown) {
			// The registry judges what it gets; only after a failure is there a reason to look at our own bytes.
			if (layer !== undefined && !any.aborted) {
				await checkBytes(layer, content, { refused: hasCode(thrown, "invalid-argument"), signal: any });
			}
			throw toError(thrown);
		}
		if (layer !== undefined) {
			sources.add(descriptor.digest, referenceName(reference));
		}
	});
	try {
		await Promise.all(pushes);
	} catch (thrown) {
		others.abort(toError(thrown));
		await Promise.allSettled(pushes);
		throw thrown;
	}
}

/** Blobs below this are sent first: storing one takes a registry as long as it takes to send some megabytes, which others can do meanwhile. */
const smallBytes = 1 << 20;

/** What a registry must not pass on is left where its URLs say it is. */
function piecesOf({ layers, manifests, documents }: WrittenImage, signal: AbortSignal): readonly Piece[] {
	const kept = new Map(
		manifests
			.flatMap((manifest) => manifest.layers)
			.filter(({ mediaType }) => !isNonDistributable(mediaType))
			.map(({ digest }) => [digest, layers.get(digest)]),
	);
	const pieces: Piece[] = [];
	for (const layer of kept.values()) {
		if (layer !== undefined) {
			const { descriptor, provider } = layer;
			pieces.push({ descriptor, layer, open: () => provider.read(descriptor, { signal, reuse: true }) });
		}
	}
	for (const { config } of new Map(manifests.map((each) => [each.config.digest, each])).values()) {
		const bytes = documents.get(config.digest);
		if (bytes !== undefined) {
			pieces.push({ descriptor: config, layer: undefined, open: () => chunksOf(bytes) });
		}
	}
	const isLarge = ({ descriptor }: Piece): number => (descriptor.size < smallBytes ? 0 : 1);
	return pieces.sort((a, b) => isLarge(a) - isLarge(b));
}

/** containerd's rule (images.IsNonDistributable). */
function isNonDistributable(mediaType: string): boolean {
	return (
		mediaType.startsWith("application/vnd.oci.image.layer.nondistributable.") ||
		mediaType.startsWith("application/vnd.docker.image.rootfs.foreign.")
	);
}

/** Paths of repositories of the target's registry that have the blob. */
function mountSources(sources: BlobSources, digest: Digest, { domain, path }: Reference): readonly string[] {
	return sources
		.repositories(digest)
		.map(parseReference)
		.filter((each) => each.domain === domain && each.path !== path)
		.map((each) => each.path);
}

async function pushManifests(
	repository: Repository,
	{ root, manifests, documents }: WrittenImage,
	tag: string | undefined,
	{ signal }: ExportContext,
): Promise<void> {
	const push = async ({ digest, mediaType }: Descriptor, tags: readonly string[]): Promise<void> => {
		const bytes = documents.get(digest);
		if (bytes === undefined) {
			throw new SlipwayError("internal", `document ${digest} of the image is not there`);
		}
		await repository.pushManifest({ bytes, mediaType }, tags, { signal });
	};
	const children = new Map(manifests.map(({ descriptor }) => [descriptor.digest, descriptor]));
	children.delete(root.digest);
	await Promise.all([...children.values()].map((child) => push(child, [])));
	await push(root, tag === undefined ? [] : [tag]);
}
