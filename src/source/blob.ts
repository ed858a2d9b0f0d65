import type { CacheManager } from "../cache/cache.ts";
import { canceled, SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { sha256 } from "../oci/digest.ts";
import { goJson } from "../oci/go-json.ts";
import { formatReference, parseReference, type Reference } from "../oci/reference.ts";
import type { RegistryClient } from "../registry/registry.ts";
import type { Session } from "../session/session.ts";
import { parseInteger } from "./http-attrs.ts";
import { saveDownload } from "./http-download.ts";
import { safeFileName } from "./http-filename.ts";
import { parseRecordType } from "./image.ts";
import { findStore } from "./oci-layout.ts";
import { openRepository } from "./registry-origin.ts";
import type { Source, SourceInstance, SourceOptions, SourceRequest } from "./source.ts";

export interface BlobSourceOptions {
	readonly registry: RegistryClient;
	readonly cache: Pick<CacheManager, "createMutable">;
	/** Bytes of the largest blob that is taken. Default 32 GiB, as for downloads. */
	readonly maxBytes?: number;
}

const registryScheme = "docker-image+blob";
const layoutScheme = "oci-layout+blob";

/**
 * `docker-image+blob://name@digest` and `oci-layout+blob://name@digest`: one blob of a registry, or of a content store that a
 * client lends, as one file. The key is made of the digest, so that nobody is asked until somebody wants the file.
 */
export function createBlobSource(options: BlobSourceOptions): Source {
	return {
		schemes: [registryScheme, layoutScheme],
		open: (request) => createInstance(parseBlob(request), request.sessions, options),
	};
}

interface Blob {
	readonly identifier: string;
	readonly reference: Reference;
	readonly digest: Digest;
	/** Whose content store it is in; undefined: it is in a registry. */
	readonly store: { readonly sessionId: string | undefined; readonly storeId: string } | undefined;
	/** Empty: the digest names the file. */
	readonly filename: string;
	/** 0 is the default, 0600. */
	readonly perm: number;
	readonly uid: number;
	readonly gid: number;
}

/** Where its bytes are, now that they are wanted. */
interface FoundBlob {
	readonly size: number;
	read(options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>;
}

function createInstance(
	blob: Blob,
	sessions: () => readonly Session[],
	{ registry, cache, maxBytes = 32 * 2 ** 30 }: BlobSourceOptions,
): SourceInstance {
	const { identifier, reference, digest, store } = blob;

	const find = async (signal: AbortSignal): Promise<FoundBlob> => {
		if (store === undefined) {
			const repository = openRepository(reference, { registry }, sessions);
			const size = await repository.blobSize(digest, { signal });
			return { size, read: (options) => repository.blob({ digest, size }, options) };
		}
		const reader = findStore(identifier, sessions(), store);
		const info = await reader.info(digest);
		if (info === undefined) {
			throw new SlipwayError("not-found", `content ${digest}: not found`);
		}
		return { size: info.size, read: (options) => reader.read(digest, options) };
	};

	return {
		cacheKey: async () => ({ key: cacheKeyOf(blob), last: true }),
		snapshot: async (options: SourceOptions) => {
			const { size, read } = await find(options.signal);
			const stopped = new AbortController();
			const { ref } = await saveDownload(
				{
					status: 200,
					header: (name) => (name === "content-length" ? String(size) : undefined),
					body: read({ signal: AbortSignal.any([options.signal, stopped.signal]) }),
					discard: () => stopped.abort(canceled()),
				},
				{
					...options,
					cache,
					download: { ...blob, url: identifier },
					description: `blob ${formatReference(reference)}`,
					filename: blob.filename || digest.slice(digest.indexOf(":") + 1),
					wanted: digest,
					maxBytes,
				},
			);
			return ref;
		},
	};
}

/** BuildKit's key, so that caches travel. */
function cacheKeyOf({ digest, filename, perm, uid, gid }: Blob): Digest {
	return sha256(goJson({ Digest: digest, Filename: filename, Perm: perm, UID: uid, GID: gid }));
}

/** The name, permission bits and owner of the file come in the attributes of downloads. */
function parseBlob({ identifier, attrs }: SourceRequest): Blob {
	const [scheme = "", name = ""] = identifier.split("://", 2);
	const reference = parseReference(name);
	const { digest, tag } = reference;
	if (digest === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			tag === undefined ? "object required" : "invalid reference digest: invalid checksum digest format",
		);
	}
	if (tag !== undefined) {
		throw new SlipwayError("invalid-argument", `invalid image blob reference ${name}`);
	}
	parseRecordType(attrs["image.recordtype"] ?? "");
	const storeId = attrs["oci.store"] ?? "";
	if (scheme === layoutScheme && storeId === "") {
		throw new SlipwayError("invalid-argument", "oci-layout blob source requires store id");
	}
	const filename = attrs["http.filename"];
	return {
		identifier,
		reference,
		digest,
		store: scheme === layoutScheme ? { sessionId: attrs["oci.session"] || undefined, storeId } : undefined,
		filename: filename === undefined ? "" : safeFileName(filename),
		perm: parseInteger(attrs, "http.perm"),
		uid: parseInteger(attrs, "http.uid"),
		gid: parseInteger(attrs, "http.gid"),
	};
}
