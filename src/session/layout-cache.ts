import { readdirSync, readFileSync, rmSync } from "node:fs";
import type { ContentReader } from "../content/content.ts";
import { openOciLayout } from "../content/oci-layout-reader.ts";
import { wrap } from "../errors/errors.ts";
import { algorithmOf, type Digest, encodedOf } from "../oci/digest.ts";
import { parseManifestDocument } from "../oci/manifest.ts";
import { isIndexType, isManifestType } from "../oci/media-types.ts";
import { layoutOutput } from "./layout-output.ts";
import type { BlobWriter } from "./session.ts";

/** A directory of the client that keeps exported caches, as an OCI layout whose index has a tag for each. */
export interface LayoutCache {
	readonly reader: ContentReader;
	readonly writer: BlobWriter;
	/** The digest that the tag stands for. Throws if the directory is no layout. */
	find(tag: string): Digest | undefined;
	/** `descriptor` is JSON of an OCI descriptor. */
	setTag(descriptor: string, tag: string): Promise<void>;
	/** Deletes the blobs that nothing in the index needs. */
	sweep(): void;
}

export function openLayoutCache(directory: string): LayoutCache {
	const layout = openOciLayout(directory);
	const { store } = layoutOutput(directory);
	return {
		reader: layout,
		writer: store,
		find: (tag) => layout.find(tag)?.digest,
		setTag: (descriptor, tag) => store.setRoot(descriptor, [], { tag }),
		sweep: () => {
			try {
				sweep(directory, reachable(directory, layout.roots()));
			} catch (error) {
				throw wrap(error, `could not remove old blobs from ${directory}`);
			}
		},
	};
}

interface Node {
	readonly digest: Digest;
	readonly mediaType: string;
}

function reachable(directory: string, roots: readonly Node[]): ReadonlySet<string> {
	const found = new Set<string>();
	const pending = [...roots];
	for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
		if (found.has(node.digest)) {
			continue;
		}
		found.add(node.digest);
		if (isManifestType(node.mediaType) || isIndexType(node.mediaType)) {
			const document = parseManifestDocument(readFileSync(pathOf(directory, node.digest)), node.mediaType);
			pending.push(
				...(document.kind === "index"
					? document.index.manifests
					: [document.manifest.config, ...document.manifest.layers]),
			);
		}
	}
	return found;
}

function sweep(directory: string, needed: ReadonlySet<string>): void {
	for (const algorithm of readdirSync(`${directory}/blobs`)) {
		for (const name of readdirSync(`${directory}/blobs/${algorithm}`)) {
			if (!needed.has(`${algorithm}:${name}`)) {
				rmSync(`${directory}/blobs/${algorithm}/${name}`, { force: true });
			}
		}
	}
}

function pathOf(directory: string, digest: Digest): string {
	return `${directory}/blobs/${algorithmOf(digest)}/${encodedOf(digest)}`;
}
