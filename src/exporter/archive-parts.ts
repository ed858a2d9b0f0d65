import { blockBytes } from "../archive/tar-format.ts";
import { encodeHeader, endOfArchive, tarHeader } from "../archive/tar-writer.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { algorithmOf, type Digest, encodedOf } from "../oci/digest.ts";
import { goJson } from "../oci/go-json.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { familiarReference, parseReference, withDefaultTag } from "../oci/reference.ts";
import { compareUtf8 } from "../oci/utf8-order.ts";
import { writeLayoutIndex } from "./documents.ts";
import type { WrittenImage, WrittenManifest } from "./image-writer.ts";

/** A piece of an archive in its order: bytes that are known, or a blob of the content store. */
export type ArchivePart =
	| { readonly kind: "bytes"; readonly bytes: Uint8Array }
	| { readonly kind: "blob"; readonly digest: Digest; readonly size: number };

export interface ArchiveOptions {
	/** Docker's has `manifest.json` besides, which `docker load` reads. */
	readonly variant: "oci" | "docker";
	/** Full references. */
	readonly names: readonly string[];
	/** Layers whose blobs are not written, as whoever reads the archive has them. */
	readonly leftOut?: ReadonlySet<string>;
}

interface Entry {
	readonly name: string;
	readonly mode: number;
	readonly content: Uint8Array | { readonly digest: Digest; readonly size: number } | undefined;
}

/**
 * The image as a tar of an OCI layout, as containerd's archive exporter writes it: entries sorted by name, without times and
 * owners. `root` is the image's root as `index.json` shall show it.
 */
export function archiveParts(
	image: WrittenImage,
	root: Descriptor,
	{ variant, names, leftOut }: ArchiveOptions,
): readonly ArchivePart[] {
	const entries = new Map<string, Entry>();
	const add = (name: string, mode: number, content: Entry["content"]): void => {
		entries.set(name, { name, mode, content });
	};
	for (const [digest, document] of image.documents) {
		add(blobPath(digest), 0o444, document);
	}
	for (const { digest, size } of image.manifests.flatMap(({ layers }) => layers)) {
		if (leftOut?.has(digest) !== true) {
			add(blobPath(digest), 0o444, { digest, size });
		}
	}
	add("blobs/", 0o755, undefined);
	for (const digest of [...image.documents.keys(), ...image.layers.keys()]) {
		add(`blobs/${algorithmOf(digest)}/`, 0o755, undefined);
	}
	add("oci-layout", 0o444, encode(goJson({ imageLayoutVersion: "1.0.0" })));
	add("index.json", 0o644, layoutIndex(root, names));
	const [manifest] = image.manifests;
	if (variant === "docker" && manifest !== undefined) {
		add("manifest.json", 0o644, dockerManifest(manifest, names));
	}
	const sorted = [...entries.values()].sort((one, other) => compareUtf8(one.name, other.name));
	return [...sorted.flatMap(entryParts), { kind: "bytes", bytes: endOfArchive }];
}

function entryParts({ name, mode, content }: Entry): readonly ArchivePart[] {
	const kind = content === undefined ? "directory" : "file";
	const isBytes = content instanceof Uint8Array;
	const size = content === undefined ? 0 : isBytes ? content.length : content.size;
	const header = encodeHeader(tarHeader({ kind, name, mode, size }));
	const padding = new Uint8Array((blockBytes - (size % blockBytes)) % blockBytes);
	if (content === undefined || isBytes) {
		return [{ kind: "bytes", bytes: Buffer.concat([header, content ?? new Uint8Array(), padding]) }];
	}
	return [
		{ kind: "bytes", bytes: header },
		{ kind: "blob", digest: content.digest, size },
		...(padding.length === 0 ? [] : [{ kind: "bytes" as const, bytes: padding }]),
	];
}

function layoutIndex(root: Descriptor, names: readonly string[]): Uint8Array {
	const named = names.map((name) => ({
		...root,
		annotations: {
			...root.annotations,
			"io.containerd.image.name": name,
			"org.opencontainers.image.ref.name": layoutReference(name),
		},
	}));
	return writeLayoutIndex({
		schemaVersion: 2,
		mediaType: mediaTypes.ociIndex,
		manifests: names.length === 0 ? [root] : named,
	});
}

/** A tag stands for itself in a layout; a name without one stays whole, because a bare digest is no reference there. */
function layoutReference(name: string): string {
	const { tag, digest } = parseReference(name);
	return tag === undefined ? name : tag + (digest === undefined ? "" : `@${digest}`);
}

function dockerManifest(manifest: WrittenManifest, names: readonly string[]): Uint8Array {
	const tags = names.map((name) => familiarReference(withDefaultTag(parseReference(name))));
	const layers = manifest.layers.map(({ digest }) => blobPath(digest));
	return encode(
		goJson([
			{
				Config: blobPath(manifest.config.digest),
				RepoTags: tags.length === 0 ? null : tags,
				Layers: layers.length === 0 ? null : layers,
			},
		]),
	);
}

function blobPath(digest: Digest): string {
	return `blobs/${algorithmOf(digest)}/${encodedOf(digest)}`;
}

function encode(text: string): Uint8Array {
	return new TextEncoder().encode(text);
}
