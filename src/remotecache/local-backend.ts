import { chunksOf, collect, verified } from "../content/bytes.ts";
import type { ContentProvider, ContentReader } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import { withStatus } from "../exporter/status.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { maxManifestBytes } from "../oci/manifest.ts";
import type { BlobWriter, Session } from "../session/session.ts";
import { writeArtifact } from "./artifact.ts";
import { readArtifact, showType } from "./artifact-reader.ts";
import { invalid, parseArtifactForm, parseBlobForm } from "./attributes.ts";
import { mountArtifact, mountConfigIn } from "./mounts.ts";
import type { ObjectStore } from "./objects.ts";
import type { CacheBackend, CacheOptions } from "./remotecache.ts";

/** The client's content store for a directory; the name is BuildKit's. */
export function localStoreId(directory: string): string {
	return `local:${directory}`;
}

/**
 * `type=local,dest=…` and `src=…,digest=…`: an artifact in a directory of the client, which lends it as a content store. The client
 * itself keeps the directory's index: it finds the digest for an import, and writes that of the response after an export.
 */
export function createLocalBackend(): CacheBackend {
	return {
		type: "local",
		target: (attrs, session) => {
			const { dest } = attrs;
			if (dest === undefined || dest === "") {
				throw invalid("local cache exporter requires dest");
			}
			const form = parseBlobForm(attrs);
			const artifactForm = parseArtifactForm(attrs);
			const writer = writerOf(session, dest);
			const put = async (
				digest: Digest,
				size: number,
				chunks: () => AsyncIterable<Uint8Array>,
				signal: AbortSignal,
			): Promise<void> => {
				if (!(await writer.has(digest))) {
					await writer.write({ digest, size }, chunks(), { signal });
				}
			};
			return {
				name: "exporting cache to client directory",
				form,
				sendBlob: async ({ descriptor, provider }, { signal }) =>
					put(descriptor.digest, descriptor.size, () => provider.read(descriptor, { signal }), signal),
				finish: async (cache, context) => {
					const { signal } = context;
					const { config, manifest } = writeArtifact(cache, artifactForm);
					const what = artifactForm.imageManifest ? "cache image manifest" : "cache manifest";
					for (const [kind, { descriptor, bytes }] of [
						["config", config],
						[what, manifest],
					] as const) {
						await withStatus(context, `writing ${kind} ${descriptor.digest}`, () =>
							put(descriptor.digest, bytes.length, () => chunksOf(bytes), signal),
						);
					}
					return { "cache.manifest": JSON.stringify(manifest.descriptor) };
				},
			};
		},
		mounts: (attrs, session) => ({
			name: "client directory",
			open: async () => mountStore(session, attrs),
		}),
		origin: (attrs, session) => {
			const { digest, src } = attrs;
			if (digest === undefined || digest === "") {
				throw invalid("local cache importer requires explicit digest");
			}
			if (!isDigest(digest)) {
				throw invalid(`local cache importer has an invalid digest ${JSON.stringify(digest)}`);
			}
			if (src === undefined || src === "") {
				throw invalid("local cache importer requires src");
			}
			return {
				name: `local:${src}`,
				read: async (context) => {
					const { signal } = context;
					const store = readerOf(session, src);
					const root = await document(store, digest, signal);
					await showType(root, context);
					return await readArtifact(
						root,
						{
							manifest: (descriptor, options) => document(store, descriptor.digest, options.signal),
							blobs: { read: (descriptor, options) => store.read(descriptor.digest, options) },
						},
						{ signal },
					);
				},
			};
		},
	};
}

/** For an export the client gives `dest`, for an import `src` and `digest`. */
function mountStore(session: Session, { dest, src, digest }: CacheOptions["attrs"]): ObjectStore {
	const blobs: ContentProvider = {
		read: (descriptor, options) => readerOf(session, src ?? "").read(descriptor.digest, options),
	};
	const put: ObjectStore["putBlob"] = async (descriptor, open, { signal }) => {
		const writer = writerOf(session, dest ?? "");
		if (!(await writer.has(descriptor.digest))) {
			await writer.write(descriptor, open(), { signal });
		}
	};
	return {
		blobs,
		putBlob: put,
		putConfig: async (bytes, options) => {
			const { config, manifest } = mountArtifact(bytes);
			for (const each of [config, manifest]) {
				await put(each.descriptor, () => chunksOf(each.bytes), options);
			}
			return manifest.descriptor;
		},
		configs: async ({ signal }) => {
			if (digest === undefined || !isDigest(digest)) {
				throw invalid(`no digest of cache mounts in ${src}`);
			}
			const root = await document(readerOf(session, src ?? ""), digest, signal);
			const config = mountConfigIn(root);
			return [verified(blobs.read(config, { signal }), config)];
		},
	};
}

function writerOf(session: Session, directory: string): BlobWriter {
	const writer = session.contentWriter?.(localStoreId(directory));
	if (writer === undefined) {
		throw new SlipwayError("not-found", `the client lends no content store for ${directory}`);
	}
	return writer;
}

function readerOf(session: Session, directory: string): ContentReader {
	const reader = session.contentStore(localStoreId(directory));
	if (reader === undefined) {
		throw new SlipwayError("not-found", `the client lends no content store for ${directory}`);
	}
	return reader;
}

async function document(store: ContentReader, digest: Digest, signal: AbortSignal): Promise<Uint8Array> {
	const what = `document ${digest}`;
	return await collect(verified(store.read(digest, { signal }), { digest }), {
		maxBytes: maxManifestBytes,
		what,
	});
}
