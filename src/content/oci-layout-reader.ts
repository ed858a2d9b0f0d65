import { readFileSync, statSync } from "node:fs";
import { SlipwayError, wrap } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { algorithmOf, type Digest, encodedOf } from "../oci/digest.ts";
import { maxManifestBytes, parseIndex } from "../oci/manifest.ts";
import type { ContentReader } from "./content.ts";
import { fileInfo, readFileChunks } from "./file-chunks.ts";

/**
 * A directory in OCI image layout (image-layout.md) that somebody else wrote, such as the client's. Nothing in it was
 * verified: whoever reads must check digests. Files are never followed out of the directory, since names are made of
 * parsed digests only.
 */
export interface OciLayoutReader extends ContentReader {
	/** The descriptors in `index.json`. */
	roots(): readonly Descriptor[];
	/**
	 * The root that a tag names: first by containerd's full image name, then by the OCI reference name. Without a tag the
	 * only root. Undefined if there is none.
	 */
	find(tag: string | undefined): Descriptor | undefined;
}

const imageNameAnnotation = "io.containerd.image.name";
const refNameAnnotation = "org.opencontainers.image.ref.name";

export function openOciLayout(directory: string): OciLayoutReader {
	const pathOf = (digest: Digest): string => `${directory}/blobs/${algorithmOf(digest)}/${encodedOf(digest)}`;
	const roots = (): readonly Descriptor[] => readIndex(`${directory}/index.json`);
	return {
		info: async (digest) => fileInfo(pathOf(digest), digest),
		roots,
		find: (tag) => {
			const all = roots();
			if (tag === undefined) {
				return all.length === 1 ? all[0] : undefined;
			}
			return (
				all.find((root) => root.annotations?.[imageNameAnnotation] === tag) ??
				all.find((root) => root.annotations?.[refNameAnnotation] === tag)
			);
		},
		read: (digest, options) => readFileChunks(pathOf(digest), digest, options),
	};
}

function readIndex(file: string): readonly Descriptor[] {
	try {
		const { size } = statSync(file);
		if (size > maxManifestBytes) {
			throw new SlipwayError("invalid-argument", `index has ${size} bytes, more than ${maxManifestBytes}`);
		}
		return parseIndex(readFileSync(file)).manifests;
	} catch (thrown) {
		throw wrap(thrown, `could not read ${file}`);
	}
}
