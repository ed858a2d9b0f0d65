import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { ContentProvider } from "../content/content.ts";
import { hasCode } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { writeArtifact } from "./artifact.ts";
import { readArtifact } from "./artifact-reader.ts";
import { CacheChains } from "./chains.ts";
import { parseConfig, toConfig, writeConfig, zeroTime } from "./config.ts";
import { chainsOf } from "./imported-source.ts";
import type { CacheConfig, ImportedCache } from "./remotecache.ts";

/** Exported by BuildKit (mode=max) from a build of two stages with RUN, WORKDIR and COPY in each. */
const recorded = (name: string): Uint8Array => readFileSync(join(import.meta.dirname, "recorded", name));
const { signal } = new AbortController();

function provider(...blobs: readonly Uint8Array[]): ContentProvider {
	return {
		read: async function* ({ digest }) {
			const found = blobs.find((bytes) => sha256(bytes) === digest);
			assert.ok(found, `${digest} is read`);
			yield found;
		},
	};
}

async function readRecorded(): Promise<ImportedCache> {
	const source = {
		manifest: () => assert.fail("there is only one manifest"),
		blobs: provider(recorded("max-config.blob")),
	};
	const [cache, ...others] = await readArtifact(recorded("max-manifest.blob"), source, { signal });
	assert.ok(cache !== undefined && others.length === 0);
	return cache;
}

test("what BuildKit has exported comes out as the same bytes after a way through the graph", async () => {
	const imported = await readRecorded();
	const exported = toConfig(chainsOf(imported));
	const text = (bytes: Uint8Array): unknown => JSON.parse(withoutFractions(bytes));
	assert.deepEqual(text(writeConfig(exported.config)), text(recorded("max-config.blob")));
	assert.equal(
		withoutFractions(writeConfig(exported.config)),
		withoutFractions(recorded("max-config.blob")),
		"in the same order",
	);
	const { manifest } = writeArtifact(exported, { ociTypes: true, imageManifest: true });
	const config = JSON.parse(new TextDecoder().decode(manifest.bytes)).config;
	assert.equal(config.digest, sha256(writeConfig(exported.config)));
	assert.equal(
		withoutFractions(manifest.bytes).replace(config.digest, ""),
		withoutFractions(recorded("max-manifest.blob"))
			.replace(sha256(recorded("max-config.blob")), "")
			.replace('"size":3201', `"size":${config.size}`),
	);
});

/** A double has microseconds of today's time; BuildKit writes nanoseconds. */
function withoutFractions(bytes: Uint8Array): string {
	return new TextDecoder().decode(bytes).replaceAll(/(T\d\d:\d\d:\d\d)\.\d+Z/g, "$1Z");
}

test("the forms of an artifact differ in media types and in where the config stands", async () => {
	const cache = await readRecorded();
	const form = (ociTypes: boolean) =>
		JSON.parse(
			new TextDecoder().decode(writeArtifact(cache, { ociTypes, imageManifest: false }).manifest.bytes),
		);
	const index = form(true);
	assert.equal(index.mediaType, "application/vnd.oci.image.index.v1+json");
	assert.equal(index.manifests.length, 10);
	assert.equal(index.manifests.at(-1).mediaType, "application/vnd.buildkit.cacheconfig.v0");
	const list = form(false);
	assert.equal(list.mediaType, "application/vnd.docker.distribution.manifest.list.v2+json");
	assert.equal(list.manifests[0].mediaType, "application/vnd.docker.image.rootfs.diff.tar.gzip");
	assert.ok(list.manifests[0].annotations["containerd.io/uncompressed"]);
	const toc = { "containerd.io/snapshot/stargz/toc.digest": sha256("toc") };
	const stargz = new Map(
		[...cache.blobs].map(([digest, blob]) => [
			digest,
			{ ...blob, descriptor: { ...blob.descriptor, annotations: toc } },
		]),
	);
	const kept = writeArtifact({ ...cache, blobs: stargz }, { ociTypes: false, imageManifest: false });
	assert.match(
		new TextDecoder().decode(kept.manifest.bytes),
		/"containerd.io\/snapshot\/stargz\/toc.digest":/,
	);
	const read = await readArtifact(
		new TextEncoder().encode(JSON.stringify(list)),
		{ manifest: () => assert.fail(), blobs: provider(writeConfig(cache.config)) },
		{ signal },
	);
	assert.ok(read[0] !== undefined);
	assert.deepEqual(writeConfig(read[0].config), writeConfig(cache.config));
	assert.equal(read[0].blobs.size, 9);
});

test("equal graphs give equal bytes, in whatever order they were made", () => {
	const make = (order: readonly number[]): string => {
		const chains = new CacheChains();
		const roots = ["a", "b", "c"].map((name) => () => chains.add(sha256(name), [], []));
		for (const index of order) {
			roots[index]?.();
		}
		const [a, b, c] = roots.map((root) => root());
		assert.ok(a && b && c);
		const alternatives = [
			{ from: a, selector: "" },
			{ from: b, selector: "s" },
		];
		chains.add(sha256("x"), [order[0] === 0 ? alternatives : alternatives.toReversed()], []);
		chains.add(sha256("x"), [[{ from: c, selector: "" }]], []);
		return new TextDecoder().decode(writeConfig(toConfig(chains).config));
	};
	assert.equal(make([0, 1, 2]), make([2, 1, 0]));
});

test("parseConfig reads what Go leaves out and writes as null", () => {
	const config = parseConfig(
		new TextEncoder().encode(
			`{"layers":[{"blob":"${sha256("l")}"}],"records":[{"digest":"${sha256("r")}","layers":null,"inputs":[[{}]]}]}`,
		),
	);
	assert.deepEqual(config, {
		layers: [{ blob: sha256("l"), parent: 0 }],
		records: [{ digest: sha256("r"), results: [], chains: [], inputs: [[{ selector: "", link: 0 }]] }],
	} satisfies CacheConfig);
	assert.equal(zeroTime, -62_135_596_800_000);
});

for (const [what, text] of Object.entries({
	"random bytes": "\u0000\ufffd\u0001",
	"a list": "[]",
	"a number for a record": '{"records":[1]}',
	"a record without a digest": '{"records":[{}]}',
	"a blob that is no digest": '{"layers":[{"blob":"../../etc/passwd"}]}',
	"a parent that is no number": `{"layers":[{"blob":"${sha256("")}","parent":"0"}]}`,
	"an input that is no list": `{"records":[{"digest":"x","inputs":[{}]}]}`,
})) {
	test(`a config of ${what} is invalid`, () => {
		assert.throws(
			() => parseConfig(new TextEncoder().encode(text)),
			(error: unknown) => hasCode(error, "invalid-argument"),
		);
	});
}

function importedOf(config: Partial<CacheConfig>): ImportedCache {
	return { config: { layers: [], records: [], ...config }, blobs: new Map() };
}

const record = (digest: string, ...links: readonly number[]) => ({
	digest,
	results: [],
	chains: [],
	inputs: links.map((link) => [{ selector: "", link }]),
});

test("chainsOf refuses records above themselves, empty inputs, and what is not there", () => {
	const refused = (config: Partial<CacheConfig>, pattern: RegExp): void => {
		assert.throws(() => chainsOf(importedOf(config)), pattern);
	};
	refused({ records: [record("a", 0)] }, /record 0 is above itself/);
	refused({ records: [record("a", 1), record("b", 2), record("c", 0)] }, /is above itself/);
	refused({ records: [record("a", 7)] }, /there is no record 7/);
	refused({ records: [{ ...record("a"), inputs: [[]] }] }, /has an input without records/);
	const results = [{ layer: 0, createdAt: 0 }];
	refused({ records: [{ ...record("a"), results }] }, /there is no layer 0/);
	refused(
		{
			layers: [
				{ blob: sha256("1"), parent: 1 },
				{ blob: sha256("2"), parent: 0 },
			],
			records: [{ ...record("a"), results }],
		},
		/layer 0 is above itself/,
	);
});

test("a result whose blob nobody has described is left out, its record stays", () => {
	const chains = chainsOf(
		importedOf({
			layers: [{ blob: sha256("1") as Digest, parent: -1 }],
			records: [{ ...record(sha256("a")), results: [{ layer: 0, createdAt: 0 }] }],
		}),
	);
	assert.deepEqual(
		[...chains.items].map(({ results }) => results),
		[[]],
	);
});

test("a chain of 20,000 records is read and written without recursion", () => {
	const records = Array.from({ length: 20_000 }, (_, index) =>
		index === 0 ? record(sha256("0")) : record(sha256(String(index)), index - 1),
	).reverse();
	const turned = records.map((each) => ({
		...each,
		inputs: each.inputs.map((links) => links.map(({ link }) => ({ selector: "", link: 19_999 - link }))),
	}));
	const { config } = toConfig(chainsOf(importedOf({ records: turned })));
	assert.equal(config.records.length, 20_000);
});

test("a root document that is random bytes, and a config that has other bytes, are refused", async () => {
	const source = { manifest: () => assert.fail(), blobs: provider() };
	await assert.rejects(readArtifact(Buffer.from("\u0000\u0001"), source, { signal }));
	const lying: ContentProvider = {
		read: async function* () {
			yield new Uint8Array(3201);
		},
	};
	await assert.rejects(
		readArtifact(recorded("max-manifest.blob"), { ...source, blobs: lying }, { signal }),
		(error: unknown) => hasCode(error, "data-loss"),
	);
});

test("chainsOf: a config whose few megabytes stand for billions of layers is refused, not carried out", () => {
	const names = Array.from({ length: 20_000 }, (_, index) => sha256(`layer ${index}`));
	const layers = names.map((blob, index) => ({ blob, parent: index - 1 }));
	const blobs = new Map(
		names.map((digest) => [
			digest,
			{
				descriptor: { mediaType: mediaTypes.ociLayerGzip, digest, size: 1 },
				diffId: digest,
				createdAt: undefined,
				description: undefined,
				provider: provider(),
			},
		]),
	);
	const results = layers.map((_, layer) => ({ layer, createdAt: 0 }));
	const deep = { layers, records: [{ ...record(sha256("a")), results }] };
	assert.throws(() => chainsOf({ ...importedOf(deep), blobs }), /its results have more than 2000000 layers/);
	const chains = Array.from({ length: 200 }, () => ({
		layers: layers.map((_, index) => index),
		createdAt: 0,
	}));
	const wide = { layers, records: [{ ...record(sha256("a")), chains }] };
	assert.throws(() => chainsOf({ ...importedOf(wide), blobs }), /its results have more than 2000000 layers/);
});

test("indexes that are deep, wide or name themselves end soon", async () => {
	const indexOf = (manifests: readonly object[]): Uint8Array =>
		Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }));
	const entry = (digest: string) => ({ mediaType: mediaTypes.ociIndex, digest, size: 1 });
	let asked = 0;
	const read = (root: Uint8Array, below: () => Uint8Array) =>
		readArtifact(
			root,
			{
				manifest: async () => {
					asked++;
					return below();
				},
				blobs: provider(),
			},
			{ signal },
		);
	const self = indexOf([entry(sha256("self"))]);
	assert.deepEqual(await read(self, () => self), []);
	assert.equal(asked, 1);
	asked = 0;
	let depth = 0;
	assert.deepEqual(
		await read(indexOf([entry(sha256("first"))]), () => indexOf([entry(sha256(`${depth++}`))])),
		[],
	);
	assert.ok(asked <= 4, `${asked} documents of a deep index`);
	asked = 0;
	const wide = indexOf(Array.from({ length: 4000 }, (_, index) => entry(sha256(`${index}`))));
	assert.deepEqual(await read(wide, () => indexOf([])), []);
	assert.equal(asked, 64);
});
