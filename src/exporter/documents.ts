import type { Descriptor } from "../oci/descriptor.ts";
import { type GoJson, goJson, goMap } from "../oci/go-json.ts";
import type { ImageIndex, Manifest } from "../oci/manifest.ts";

/** Documents in the bytes that Go's types of the OCI spec give, on which the digests of images depend. */

/** As in the room's manifests: two spaces of indentation. */
export function writeManifest(manifest: Manifest): Uint8Array {
	const { schemaVersion, mediaType, artifactType, config, layers, subject, annotations } = manifest;
	return encode({
		schemaVersion,
		mediaType,
		artifactType,
		config: descriptorJson(config),
		// A list that was never appended to.
		layers: layers.length === 0 ? null : layers.map(descriptorJson),
		subject: subject === undefined ? undefined : descriptorJson(subject),
		annotations: goMap(annotations),
	});
}

export function writeIndex(index: ImageIndex): Uint8Array {
	return encode(indexJson(index));
}

/** `index.json` of a layout has no white space. */
export function writeLayoutIndex(index: ImageIndex): Uint8Array {
	return new TextEncoder().encode(goJson(indexJson(index)));
}

export function writeDescriptor(descriptor: Descriptor): string {
	return goJson(descriptorJson(descriptor));
}

function indexJson(index: ImageIndex): GoJson {
	const { schemaVersion, mediaType, artifactType, manifests, subject, annotations } = index;
	return {
		schemaVersion,
		mediaType,
		artifactType,
		manifests: manifests.map(descriptorJson),
		subject: subject === undefined ? undefined : descriptorJson(subject),
		annotations: goMap(annotations),
	};
}

function descriptorJson(descriptor: Descriptor): GoJson {
	const { mediaType, digest, size, urls, annotations, data, platform, artifactType } = descriptor;
	return {
		mediaType,
		digest,
		size,
		urls: urls?.length === 0 ? undefined : urls,
		annotations: goMap(annotations),
		data,
		platform:
			platform === undefined
				? undefined
				: {
						architecture: platform.architecture,
						os: platform.os,
						"os.version": platform["os.version"],
						"os.features": platform["os.features"],
						variant: platform.variant,
					},
		artifactType,
	};
}

function encode(value: GoJson): Uint8Array {
	return new TextEncoder().encode(goJson(value, { indent: "  " }));
}
