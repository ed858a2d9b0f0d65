import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "./digest.ts";
import { parseImageConfig } from "./image-config.ts";
import { parseIndex, parseManifest, parseManifestDocument } from "./manifest.ts";
import { mediaTypes } from "./media-types.ts";

const bytes = (value: unknown): Uint8Array =>
	new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

const digest = sha256("x");
const descriptor = { mediaType: "x", digest, size: 3 };

test("parseImageConfig: known keys checked, unknown ones kept, null counts as absent", () => {
	const config = parseImageConfig(
		bytes({
			created: "2023-01-01T00:00:00Z",
			architecture: "amd64",
			os: "linux",
			moby: { more: [1] },
			config: { Env: ["A=1"], Cmd: null, Labels: { "1": "x" }, Volumes: { "/v": null }, Extra: true },
			rootfs: { type: "layers", diff_ids: [digest] },
			history: [{ created_by: "x", empty_layer: true, note: 1 }],
		}),
	);
	assert.deepEqual(config, {
		created: "2023-01-01T00:00:00Z",
		architecture: "amd64",
		os: "linux",
		moby: { more: [1] },
		config: { Env: ["A=1"], Labels: { "1": "x" }, Volumes: { "/v": {} }, Extra: true },
		rootfs: { type: "layers", diff_ids: [digest] },
		history: [{ created_by: "x", empty_layer: true, note: 1 }],
	});
	assert.deepEqual(parseImageConfig(bytes("{}")), { architecture: "", os: "" });
	assert.equal(
		parseImageConfig(bytes({ rootfs: { type: "layers", diff_ids: null } })).rootfs?.diff_ids,
		null,
	);
});

test("parseImageConfig: messages name the place", () => {
	const cases: readonly (readonly [document: unknown, message: RegExp])[] = [
		["{", /^image config is not JSON: /],
		["\ufeff{}", /^image config is not JSON: /],
		[[], /^image config must be an object but is an array$/],
		[{ os: 1 }, /^image config: os must be a string but is of type number$/],
		[{ created: "yesterday" }, /^image config: created: invalid RFC 3339 time "yesterday"$/],
		[
			{ config: { Env: ["A=1", 2] } },
			/^image config: config: Env\[1\] must be a string but is of type number$/,
		],
		[{ config: { Labels: { a: [] } } }, /^image config: config: Labels: a must be a string but is an array$/],
		[
			{ config: { StopTimeout: 1.5 } },
			/^image config: config: StopTimeout must be a whole number but is 1.5$/,
		],
		[{ rootfs: { type: "other" } }, /^image config: rootfs: type must be "layers" but is "other"$/],
		[{ rootfs: { type: "layers", diff_ids: ["x"] } }, /^image config: rootfs: diff_ids: invalid digest "x"$/],
		[{ history: [{}, 1] }, /^image config: history\[1\] must be an object but is of type number$/],
		["[".repeat(100_000), /^image config is nested deeper than 200 levels$/],
		[" ".repeat(9 * 1024 * 1024), /^image config has 9437184 bytes, more than 8388608$/],
	];
	for (const [document, message] of cases) {
		assert.throws(() => parseImageConfig(bytes(document)), { code: "invalid-argument", message });
	}
});

test("parseImageConfig: brackets in strings are not levels, __proto__ is a key as any other", () => {
	const config = parseImageConfig(bytes(`{"author":"${"[".repeat(500)}\\"[","__proto__":{"os":"evil"}}`));
	assert.equal(config.os, "");
	assert.ok(Object.hasOwn(config, "__proto__"));
});

test("parseManifestDocument: tells manifest from index as BuildKit does", () => {
	const manifest = { schemaVersion: 2, config: descriptor, layers: [descriptor] };
	const index = {
		schemaVersion: 2,
		manifests: [{ ...descriptor, platform: { architecture: "arm", os: "linux" } }],
	};
	const typeOf = (value: unknown, mediaType?: string): string =>
		parseManifestDocument(bytes(value), mediaType).mediaType;
	assert.equal(typeOf(manifest), mediaTypes.dockerManifest);
	assert.equal(typeOf(index), mediaTypes.dockerManifestList);
	assert.equal(typeOf({ ...manifest, mediaType: mediaTypes.ociManifest }), mediaTypes.ociManifest);
	assert.equal(typeOf({ ...index, mediaType: mediaTypes.ociIndex }), mediaTypes.ociIndex);
	assert.equal(typeOf(manifest, mediaTypes.ociManifest), mediaTypes.ociManifest);
	assert.equal(typeOf(manifest, "application/json"), mediaTypes.dockerManifest);
	assert.deepEqual(parseManifest(bytes(manifest)), manifest);
	assert.deepEqual(parseIndex(bytes(index)), index);
	assert.deepEqual(parseManifest(bytes({ ...manifest, annotations: null, x: 1 })), { ...manifest, x: 1 });
});

test("parseManifestDocument: refuses what could be read in two ways", () => {
	const manifest = { schemaVersion: 2, config: descriptor, layers: [] };
	const cases: readonly (readonly [document: unknown, mediaType: string, message: string])[] = [
		[{ ...manifest, manifests: [] }, "", "invalid ambiguous manifest and manifest list"],
		[{ ...manifest, Manifests: [] }, "", 'manifest has an ambiguous key "Manifests"'],
		[{ ...manifest, fsLayers: [] }, "", "media-type: schema 1 not supported"],
		[
			{ ...manifest, mediaType: mediaTypes.ociIndex },
			"",
			"mediaType in manifest does not match manifest contents",
		],
		[
			{ schemaVersion: 2, manifests: [], mediaType: mediaTypes.ociManifest },
			"",
			"mediaType in manifest does not match manifest contents",
		],
		[manifest, mediaTypes.ociIndex, `media-type: expected index but found manifest (${mediaTypes.ociIndex})`],
		[
			{ schemaVersion: 2, manifests: [] },
			mediaTypes.ociManifest,
			`media-type: expected manifest but found index (${mediaTypes.ociManifest})`,
		],
		[{ schemaVersion: 2, layers: [] }, "", "manifest has no config"],
		[{ ...manifest, schemaVersion: 1 }, "", "manifest: schemaVersion must be 2 but is 1"],
		[
			{ ...manifest, config: { ...descriptor, digest: "sha256:x" } },
			"",
			'manifest: config: invalid digest "sha256:x"',
		],
		[
			{ ...manifest, layers: [{ ...descriptor, size: -1 }] },
			"",
			"manifest: layers[0]: size must be a number of bytes but is -1",
		],
		[
			{ schemaVersion: 2, manifests: new Array(5000).fill(descriptor) },
			"",
			"manifest: manifests has 5000 entries, more than 4096",
		],
	];
	for (const [document, mediaType, message] of cases) {
		assert.throws(() => parseManifestDocument(bytes(document), mediaType), {
			code: "invalid-argument",
			message,
		});
	}
	assert.throws(
		() => parseManifest(bytes({ schemaVersion: 2, manifests: [] })),
		/expected manifest but found index/,
	);
	assert.throws(() => parseIndex(bytes(manifest)), /expected index but found manifest/);
});
