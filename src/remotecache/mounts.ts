import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { parseManifest } from "../oci/manifest.ts";
import { type Artifact, describe } from "./artifact.ts";
import { maxConfigBytes } from "./config.ts";

/**
 * Cache mounts that travel: the directories of `RUN --mount=type=cache` as layers, listed by a document of our own. Each layer is a
 * tar of some of the files; which ones depends on their names alone, so that what did not change has the same layers again. The
 * last one has the folders, with their owners, modes and times.
 */
export interface MountConfig {
	readonly mounts: readonly PackedMount[];
}

export interface PackedMount {
	/** Of the mount; with the content that it begins with behind an `@` if it does not begin empty. */
	readonly name: string;
	readonly layers: readonly PackedLayer[];
	/** Of the directory itself. */
	readonly root: RootAttributes;
}

export interface PackedLayer {
	readonly digest: Digest;
	readonly size: number;
	/** Stands for the names of its files (`MountGroup.names`); lists of before it was written do not have it. */
	readonly names?: string;
}

export interface RootAttributes {
	/** Permissions, as a number. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
}

const artifactType = "application/vnd.slipway.cachemounts.v1+json";
const configType = "application/vnd.slipway.cachemounts.config.v1+json";
const layerType = "application/vnd.slipway.cachemounts.layer.v1.tar+zstd";
const manifestType = "application/vnd.oci.image.manifest.v1+json";

/** Equal mounts give equal bytes. */
export function writeMountConfig({ mounts }: MountConfig): Uint8Array {
	const sorted = [...mounts].sort((a, b) => (a.name < b.name ? -1 : 1));
	return new TextEncoder().encode(JSON.stringify({ mounts: sorted }));
}

/** Throws `invalid-argument` for what is no such document. */
export function parseMountConfig(bytes: Uint8Array): MountConfig {
	if (bytes.length > maxConfigBytes) {
		throw invalid("it is too large");
	}
	let document: { readonly mounts?: unknown } | null;
	try {
		document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as typeof document;
	} catch (error) {
		throw invalid((error as Error).message, error);
	}
	const mounts: unknown = document?.mounts;
	if (!Array.isArray(mounts)) {
		throw invalid("it has no list of mounts");
	}
	return { mounts: mounts.map(readMount) };
}

function readMount(value: unknown, index: number): PackedMount {
	const { name, layers, root } = (value ?? {}) as Readonly<Record<string, unknown>>;
	if (typeof name !== "string" || name === "" || !Array.isArray(layers)) {
		throw invalid(`mount ${index} has no name or no layers`);
	}
	const { mode, uid, gid } = (root ?? {}) as Readonly<Record<string, unknown>>;
	return {
		name,
		layers: layers.map(parseLayer),
		root: {
			mode: isSize(mode) ? mode & 0o7777 : 0o755,
			uid: isSize(uid) ? uid : 0,
			gid: isSize(gid) ? gid : 0,
		},
	};
}

/** Throws `invalid-argument` for what is no such description. */
export function parseLayer(layer: unknown): PackedLayer {
	const { digest, size, names } = (layer ?? {}) as Readonly<Record<string, unknown>>;
	if (typeof digest !== "string" || !isDigest(digest) || !isSize(size)) {
		throw invalid("a layer has no digest or no size");
	}
	return { digest, size, ...(typeof names === "string" ? { names } : {}) };
}

function isSize(value: unknown): value is number {
	return Number.isSafeInteger(value) && (value as number) >= 0;
}

function invalid(reason: string, cause?: unknown): SlipwayError {
	return new SlipwayError("invalid-argument", `invalid list of cache mounts: ${reason}`, { cause });
}

/** The document as an OCI artifact, for places that want to know what they keep. */
export function mountArtifact(config: Uint8Array): Artifact {
	const layers = new Map(
		parseMountConfig(config)
			.mounts.flatMap(({ layers: all }) => all)
			.map((each) => [each.digest, each]),
	);
	const descriptor = describe(configType, config);
	const bytes = new TextEncoder().encode(
		JSON.stringify({
			schemaVersion: 2,
			mediaType: manifestType,
			artifactType,
			config: descriptor,
			layers: [...layers.values()].map(({ digest, size }) => ({ mediaType: layerType, digest, size })),
		}),
	);
	return {
		config: { descriptor, bytes: config },
		manifest: { descriptor: describe(manifestType, bytes), bytes },
	};
}

/** The config of such an artifact. Throws `invalid-argument` for a manifest of something else. */
export function mountConfigIn(manifest: Uint8Array): Descriptor {
	const { config } = parseManifest(manifest);
	if (config.mediaType !== configType) {
		throw invalid("the manifest is one of something else");
	}
	return config;
}
