import type { CacheManager, RecordType } from "../cache/cache.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { hostPlatform } from "../oci/platform.ts";
import { parseReference, type Reference } from "../oci/reference.ts";
import { createImageInstance } from "./image-instance.ts";
import { type ImageAccess, imageOrigin } from "./registry-origin.ts";
import type { ResolveMode, Source, SourceRequest } from "./source.ts";

export interface ImageSourceOptions extends ImageAccess {
	readonly cache: Pick<CacheManager, "fromLayers">;
}

const scheme = "docker-image://";

/** `docker-image://`: images in registries, and those kept here. */
export function createImageSource(options: ImageSourceOptions): Source {
	return {
		schemes: ["docker-image"],
		open: (request) => {
			const { attrs } = request;
			const origin = imageOrigin(
				parseImageReference(identifierOf(request, scheme)),
				parseResolveMode(attrs["image.resolvemode"] ?? ""),
				options,
				request.sessions,
			);
			return createImageInstance({
				origin,
				platform: request.platform ?? hostPlatform(),
				cache: options.cache,
				layerLimit: parseLayerLimit(attrs["image.layerlimit"]),
				checksum: parseChecksum(attrs["image.checksum"]),
				recordType: parseRecordType(attrs["image.recordtype"] ?? ""),
			});
		},
	};
}

export function identifierOf({ identifier }: SourceRequest, prefix: string): string {
	if (!identifier.startsWith(prefix)) {
		throw new SlipwayError("invalid-argument", `source ${JSON.stringify(identifier)} is not ${prefix}`);
	}
	return identifier.slice(prefix.length);
}

export function parseImageReference(text: string): Reference {
	try {
		return parseReference(text);
	} catch (thrown) {
		throw wrap(thrown, `could not parse reference ${JSON.stringify(text)}`);
	}
}

export function parseResolveMode(text: string): ResolveMode {
	switch (text) {
		case "":
		case "default":
			return "default";
		case "pull":
		case "local":
			return text;
		default:
			throw new SlipwayError("invalid-argument", `invalid resolvemode: ${text}`);
	}
}

export function parseLayerLimit(text: string | undefined): number | undefined {
	if (text === undefined) {
		return undefined;
	}
	const limit = /^\+?\d{1,9}$/.test(text) ? Number(text) : 0;
	if (limit <= 0) {
		throw new SlipwayError("invalid-argument", `invalid layer limit ${text}`);
	}
	return limit;
}

function parseChecksum(text: string | undefined): Digest | undefined {
	if (text !== undefined && !isDigest(text)) {
		throw new SlipwayError("invalid-argument", `invalid image checksum ${text}`);
	}
	return text;
}

export function parseRecordType(text: string): RecordType {
	switch (text) {
		case "":
		case "regular":
			return "regular";
		case "internal":
		case "frontend":
			return text;
		default:
			throw new SlipwayError("invalid-argument", `invalid record type ${text}`);
	}
}
