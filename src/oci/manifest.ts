import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import {
	integerField,
	type JsonObject,
	objectField,
	objectsField,
	parseJsonObject,
	placeOf,
	replaceFields,
	stringField,
	stringMapField,
	stringsField,
} from "./json-document.ts";
import { isIndexType, isManifestType, mediaTypes } from "./media-types.ts";
import type { Platform } from "./platform.ts";

/** OCI image spec, manifest.md; Docker's manifest v2 schema 2 has the same shape. */
export interface Manifest {
	readonly schemaVersion: 2;
	readonly mediaType?: string;
	readonly artifactType?: string;
	readonly config: Descriptor;
	readonly layers: readonly Descriptor[];
	readonly subject?: Descriptor;
	readonly annotations?: Readonly<Record<string, string>>;
}

/** OCI image spec, image-index.md; Docker's manifest list has the same shape. */
export interface ImageIndex {
	readonly schemaVersion: 2;
	readonly mediaType?: string;
	readonly artifactType?: string;
	readonly manifests: readonly Descriptor[];
	readonly subject?: Descriptor;
	readonly annotations?: Readonly<Record<string, string>>;
}

/** What registries accept at most; the OCI distribution spec asks for at least this. */
export const maxManifestBytes: number = 4 * 1024 * 1024;
const maxEntries = 4096;

export type ManifestDocument =
	| { readonly kind: "manifest"; readonly mediaType: string; readonly manifest: Manifest }
	| { readonly kind: "index"; readonly mediaType: string; readonly index: ImageIndex };

/**
 * Reads a manifest or an index and tells which it is: by `mediaType` (from the descriptor or the registry's header)
 * if that is given and known, else by what the document says and contains. A document that could be read as the one
 * and as the other is refused, because its digest would stand for two images (CVE-2021-41190). Throws
 * `invalid-argument`.
 */
export function parseManifestDocument(bytes: Uint8Array, mediaType?: string): ManifestDocument {
	const document = parseJsonObject(bytes, { what: "manifest", maxBytes: maxManifestBytes });
	const actual = detectMediaType(document);
	const stated = mediaType ?? "";
	if (isManifestType(stated) && isIndexType(actual)) {
		throw invalid(`media-type: expected manifest but found index (${stated})`);
	}
	if (isIndexType(stated) && isManifestType(actual)) {
		throw invalid(`media-type: expected index but found manifest (${stated})`);
	}
	const type = isManifestType(stated) || isIndexType(stated) ? stated : actual;
	return isIndexType(type)
		? { kind: "index", mediaType: type, index: readIndex(document) }
		: { kind: "manifest", mediaType: type, manifest: readManifest(document) };
}

/** Reads a document that must be an image manifest. Throws `invalid-argument`. */
export function parseManifest(bytes: Uint8Array): Manifest {
	const document = parseManifestDocument(bytes);
	if (document.kind === "index") {
		throw invalid(`media-type: expected manifest but found index (${document.mediaType})`);
	}
	return document.manifest;
}

/** Reads a document that must be an index. Throws `invalid-argument`. */
export function parseIndex(bytes: Uint8Array): ImageIndex {
	const document = parseManifestDocument(bytes);
	if (document.kind === "manifest") {
		throw invalid(`media-type: expected index but found manifest (${document.mediaType})`);
	}
	return document.index;
}

/** The keys that decide what the document is. Go takes them in any case, so a second spelling would be a second truth. */
const decidingKeys: ReadonlySet<string> = new Set(["mediatype", "config", "layers", "manifests", "fslayers"]);

function detectMediaType(document: JsonObject): string {
	const { fields } = document;
	for (const key of Object.keys(fields)) {
		const lower = key.toLowerCase();
		if (decidingKeys.has(lower) && key !== "mediaType" && key !== "fsLayers" && key !== lower) {
			throw invalid(`manifest has an ambiguous key ${JSON.stringify(key)}`);
		}
	}
	if (Object.hasOwn(fields, "fsLayers")) {
		throw invalid("media-type: schema 1 not supported");
	}
	const looksLikeManifest = Object.hasOwn(fields, "config") || Object.hasOwn(fields, "layers");
	const looksLikeIndex = Object.hasOwn(fields, "manifests");
	if (looksLikeManifest && looksLikeIndex) {
		throw invalid("invalid ambiguous manifest and manifest list");
	}
	const own = stringField(document, "mediaType") ?? "";
	if (looksLikeManifest ? isIndexType(own) : isManifestType(own)) {
		throw invalid("mediaType in manifest does not match manifest contents");
	}
	if (isManifestType(own) || isIndexType(own)) {
		return own;
	}
	return looksLikeManifest ? mediaTypes.dockerManifest : mediaTypes.dockerManifestList;
}

function readManifest(document: JsonObject): Manifest {
	const config = objectField(document, "config");
	if (config === undefined) {
		throw invalid("manifest has no config");
	}
	return replaceFields(document, {
		...readCommon(document),
		config: readDescriptor(config),
		layers: (objectsField(document, "layers", maxEntries) ?? []).map(readDescriptor),
	}) as unknown as Manifest;
}

function readIndex(document: JsonObject): ImageIndex {
	return replaceFields(document, {
		...readCommon(document),
		manifests: (objectsField(document, "manifests", maxEntries) ?? []).map(readDescriptor),
	}) as unknown as ImageIndex;
}

function readCommon(document: JsonObject): Record<string, unknown> {
	const version = integerField(document, "schemaVersion");
	if (version !== undefined && version !== 2) {
		throw invalid(`${placeOf(document, "schemaVersion")} must be 2 but is ${version}`);
	}
	const subject = objectField(document, "subject");
	return {
		schemaVersion: 2,
		mediaType: stringField(document, "mediaType"),
		artifactType: stringField(document, "artifactType"),
		subject: subject === undefined ? undefined : readDescriptor(subject),
		annotations: stringMapField(document, "annotations"),
	};
}

function readDescriptor(object: JsonObject): Descriptor {
	const digest = stringField(object, "digest") ?? "";
	if (!isDigest(digest)) {
		throw invalid(`${object.where}: invalid digest ${JSON.stringify(digest)}`);
	}
	const size = integerField(object, "size") ?? 0;
	if (size < 0 || !Number.isSafeInteger(size)) {
		throw invalid(`${placeOf(object, "size")} must be a number of bytes but is ${size}`);
	}
	const platform = objectField(object, "platform");
	return replaceFields(object, {
		mediaType: stringField(object, "mediaType") ?? "",
		digest,
		size,
		urls: stringsField(object, "urls", maxEntries),
		annotations: stringMapField(object, "annotations"),
		data: stringField(object, "data"),
		platform: platform === undefined ? undefined : readPlatform(platform),
		artifactType: stringField(object, "artifactType"),
	}) as unknown as Descriptor;
}

function readPlatform(object: JsonObject): Platform {
	return replaceFields(object, {
		architecture: stringField(object, "architecture") ?? "",
		os: stringField(object, "os") ?? "",
		"os.version": stringField(object, "os.version"),
		"os.features": stringsField(object, "os.features", maxEntries),
		variant: stringField(object, "variant"),
	}) as unknown as Platform;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
