import { SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { goJson } from "../oci/go-json.ts";
import type { ImageConfig } from "../oci/image-config.ts";
import type { Platform } from "../oci/platform.ts";

/** The first key of an image: what its name points to, and for which platform. The text is BuildKit's, so that caches travel. */
export function manifestKey(root: Digest, platform: Platform, layerLimit: number | undefined): Digest {
	const { os, architecture, variant } = platform;
	const version = platform["os.version"];
	const features = platform["os.features"];
	return sha256(
		goJson({
			Digest: root,
			OS: os,
			Arch: architecture,
			Variant: variant === "" ? undefined : variant,
			OSVersion: version === "" ? undefined : version,
			OSFeatures: features === undefined || features.length === 0 ? undefined : features,
			Limit: layerLimit,
		}),
	);
}

/** The second key: the layers themselves, which many names and platforms may share. Undefined for an image without layers. */
export function layersKey(config: ImageConfig, layerLimit: number | undefined): Digest | undefined {
	const diffIds = config.rootfs?.diff_ids ?? [];
	if (layerLimit !== undefined && diffIds.length < layerLimit) {
		throw new SlipwayError("invalid-argument", `image has ${diffIds.length} layers, limit is ${layerLimit}`);
	}
	return chainId(diffIds.slice(0, layerLimit));
}

/** OCI image spec, config.md, "Layer ChainID". */
function chainId(diffIds: readonly Digest[]): Digest | undefined {
	let chain: Digest | undefined;
	for (const diffId of diffIds) {
		chain = chain === undefined ? diffId : sha256(`${chain} ${diffId}`);
	}
	return chain;
}
