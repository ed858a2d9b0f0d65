import type { BlobSources } from "../content/blob-sources.ts";
import { chunksOf, readBlob, verified } from "../content/bytes.ts";
import type { ContentProvider, ContentReader } from "../content/content.ts";
import type { ImageStore } from "../content/image-store.ts";
import { withStatus } from "../exporter/status.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { maxManifestBytes } from "../oci/manifest.ts";
import {
	formatReference,
	parseReference,
	type Reference,
	referenceName,
	withDefaultTag,
} from "../oci/reference.ts";
import type { Repository } from "../registry/registry.ts";
import type { Session } from "../session/session.ts";
import type { StepContext } from "../solver/solver.ts";
import { writeArtifact } from "./artifact.ts";
import { readArtifact, showType } from "./artifact-reader.ts";
import { boolean, invalid, parseArtifactForm, parseBlobForm } from "./attributes.ts";
import { mountArtifact, mountConfigIn } from "./mounts.ts";
import type { ObjectStore } from "./objects.ts";
import type { CacheBackend, CacheOptions, ImportedCache } from "./remotecache.ts";

export interface RegistryBackendOptions {
	readonly openRepository: (
		name: Reference,
		options: { readonly session: Session; readonly insecure: boolean },
	) => Repository;
	/** Learns where blobs are, so that a push may mount them instead of sending them. */
	readonly sources: BlobSources;
	/** Images that are kept here: one of the name is looked into where the registry has none, or is out of reach. */
	readonly kept: { readonly images: Pick<ImageStore, "get">; readonly content: Pick<ContentReader, "read"> };
}

/** `type=registry,ref=…`: an artifact in a repository. */
export function createRegistryBackend({
	openRepository,
	sources,
	kept,
}: RegistryBackendOptions): CacheBackend {
	const open = (attrs: CacheOptions["attrs"], session: Session): Opened => {
		const reference = parseRef(attrs["ref"]);
		const insecure = boolean(attrs, "registry.insecure") ?? false;
		return { reference, repository: openRepository(reference, { session, insecure }) };
	};
	return {
		type: "registry",
		target: (attrs, session) => {
			const form = parseBlobForm(attrs);
			const artifactForm = parseArtifactForm(attrs);
			const { reference, repository } = open(attrs, session);
			const name = referenceName(reference);
			return {
				name: "exporting cache to registry",
				form,
				sendBlob: async ({ descriptor, provider }, { signal }) => {
					await repository.pushBlob(descriptor, () => provider.read(descriptor, { signal }), {
						signal,
						mountFrom: otherRepositories(sources, descriptor.digest, reference),
					});
					sources.add(descriptor.digest, name);
				},
				finish: async (cache, context) => {
					const { signal } = context;
					const { config, manifest } = writeArtifact(cache, artifactForm);
					await withStatus(context, `writing config ${config.descriptor.digest}`, () =>
						repository.pushBlob(config.descriptor, () => chunksOf(config.bytes), { signal }),
					);
					const { bytes, descriptor } = manifest;
					const what = artifactForm.imageManifest ? "cache image manifest" : "cache manifest";
					await withStatus(context, `writing ${what} ${descriptor.digest}`, () =>
						repository.pushManifest(
							{ bytes, mediaType: descriptor.mediaType },
							reference.tag === undefined ? [] : [reference.tag],
							{ signal },
						),
					);
					return { "cache.manifest": JSON.stringify(descriptor) };
				},
			};
		},
		mounts: (attrs, session) => {
			const { reference, repository } = open(attrs, session);
			return { name: "registry", open: async () => mountStore(repository, reference) };
		},
		origin: (attrs, session) => {
			const { reference, repository } = open(attrs, session);
			const name = referenceName(reference);
			return {
				name: attrs["ref"] ?? "",
				read: async (context) => {
					const { signal } = context;
					let found: Awaited<ReturnType<Repository["resolve"]>>;
					try {
						found =
							reference.digest === undefined
								? await repository.resolve(reference.tag ?? "latest", { signal, withBytes: true })
								: await repository.manifest(reference.digest, { signal });
					} catch (error) {
						signal.throwIfAborted();
						const caches = await readKept(formatReference(reference), kept, context);
						if (caches.length === 0) {
							throw error;
						}
						return caches;
					}
					const root = found.bytes ?? (await repository.manifest(found.descriptor.digest, { signal })).bytes;
					await showType(root, context);
					const caches = await readArtifact(
						root,
						{
							manifest: async ({ digest }, options) => (await repository.manifest(digest, options)).bytes,
							blobs: { read: (descriptor, options) => repository.blob(descriptor, options) },
						},
						{ signal },
					);
					for (const { blobs } of caches) {
						for (const digest of blobs.keys()) {
							sources.add(digest, name);
						}
					}
					return caches;
				},
			};
		},
	};
}

/** The caches that an image kept here carries; none if there is no such image. */
async function readKept(
	name: string,
	{ images, content }: RegistryBackendOptions["kept"],
	context: StepContext,
): Promise<readonly ImportedCache[]> {
	const { signal } = context;
	const image = images.get(name);
	if (image === undefined) {
		return [];
	}
	const manifest = ({ digest }: Descriptor): Promise<Uint8Array> =>
		readBlob(content, digest, { maxBytes: maxManifestBytes, signal });
	const root = await manifest(image.descriptor);
	await showType(root, context);
	const blobs: ContentProvider = { read: ({ digest }, options) => content.read(digest, options) };
	return await readArtifact(root, { manifest, blobs }, { signal });
}

/** Cache mounts as an artifact under the tag. */
function mountStore(repository: Repository, reference: Reference): ObjectStore {
	const tag = reference.tag ?? "latest";
	const blobs: ContentProvider = {
		read: (descriptor, options) => repository.blob(descriptor, options),
	};
	return {
		blobs,
		putBlob: async (descriptor, open, { signal }) => {
			await repository.pushBlob(descriptor, open, { signal });
		},
		putConfig: async (bytes, { signal }) => {
			const { config, manifest } = mountArtifact(bytes);
			await repository.pushBlob(config.descriptor, () => chunksOf(bytes), { signal });
			const { mediaType } = manifest.descriptor;
			return await repository.pushManifest({ bytes: manifest.bytes, mediaType }, [tag], { signal });
		},
		configs: async ({ signal }) => {
			const { descriptor, bytes } = await repository.resolve(tag, { signal, withBytes: true });
			const root = bytes ?? (await repository.manifest(descriptor.digest, { signal })).bytes;
			const config = mountConfigIn(root);
			return [verified(blobs.read(config, { signal }), config)];
		},
	};
}

interface Opened {
	readonly reference: Reference;
	readonly repository: Repository;
}

function parseRef(text: string | undefined): Reference {
	if (text === undefined || text === "") {
		throw invalid("missing ref");
	}
	const reference = parseReference(text);
	return reference.digest === undefined ? withDefaultTag(reference) : reference;
}

function otherRepositories(
	sources: BlobSources,
	digest: Parameters<BlobSources["repositories"]>[0],
	{ domain, path }: Reference,
): readonly string[] {
	return sources
		.repositories(digest)
		.map(parseReference)
		.filter((each) => each.domain === domain && each.path !== path)
		.map((each) => each.path);
}
