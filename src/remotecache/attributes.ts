import { SlipwayError } from "../errors/errors.ts";
import { parseGoBool } from "../exporter/go-values.ts";
import { parseImageOptions } from "../exporter/image-options.ts";
import type { ArtifactForm } from "./artifact.ts";
import type { BlobForm, CacheOptions } from "./remotecache.ts";

type Attrs = CacheOptions["attrs"];

/** `compression`, `force-compression`, `compression-level`, with BuildKit's messages. */
export function parseBlobForm(attrs: Attrs): BlobForm {
	const own = Object.entries(attrs).filter(([key]) => compressionKeys.has(key));
	const { compression, level, forceCompression } = parseImageOptions(Object.fromEntries(own)).options;
	return { compression, level, force: forceCompression };
}

const compressionKeys: ReadonlySet<string> = new Set([
	"compression",
	"force-compression",
	"compression-level",
]);

export function parseArtifactForm(attrs: Attrs): ArtifactForm {
	const ociTypes = boolean(attrs, "oci-mediatypes") ?? true;
	const imageManifest = boolean(attrs, "image-manifest") ?? ociTypes;
	if (imageManifest && !ociTypes) {
		throw invalid(
			"invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
		);
	}
	return { ociTypes, imageManifest };
}

/** Go's booleans. */
export function boolean(attrs: Attrs, key: string): boolean | undefined {
	const text = attrs[key];
	if (text === undefined) {
		return undefined;
	}
	return parseGoBool(text, `failed to parse ${key}`);
}

export function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
