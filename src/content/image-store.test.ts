import assert from "node:assert/strict";
import { test } from "node:test";
import { openDatabase } from "../database/database.ts";
import { hasCode } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { chunksOf } from "./bytes.ts";
import { imageClosure } from "./image-closure.ts";
import { createImageStore } from "./image-store.ts";
import { createMemoryContentStore } from "./memory.ts";

const signal = new AbortController().signal;
const descriptor: Descriptor = { mediaType: mediaTypes.ociManifest, digest: sha256("m"), size: 1 };

test("image store: put, get, replace, list and delete", () => {
	using database = openDatabase(":memory:");
	let time = 1000;
	const store = createImageStore(database, { now: () => time });
	store.put("docker.io/library/b:latest", descriptor);
	time = 2000;
	store.put("docker.io/library/a:latest", descriptor);
	const replacement = { ...descriptor, digest: sha256("n"), annotations: { k: "ü" } };
	store.put("docker.io/library/b:latest", replacement);
	assert.deepEqual(store.get("docker.io/library/b:latest"), {
		name: "docker.io/library/b:latest",
		descriptor: replacement,
		createdAt: 1000,
		updatedAt: 2000,
	});
	assert.deepEqual(
		createImageStore(database)
			.list()
			.map((image) => image.name),
		["docker.io/library/a:latest", "docker.io/library/b:latest"],
	);
	assert.equal(store.delete("docker.io/library/b:latest"), true);
	assert.equal(store.delete("docker.io/library/b:latest"), false);
	assert.equal(store.get("docker.io/library/b:latest"), undefined);
});

async function document(
	store: ReturnType<typeof createMemoryContentStore>,
	mediaType: string,
	value: object,
): Promise<Descriptor> {
	const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...value }));
	const info = await store.write(chunksOf(bytes), { signal });
	return { mediaType, ...info };
}

const layer = (name: string): Descriptor => ({
	mediaType: mediaTypes.ociLayerGzip,
	digest: sha256(name),
	size: 3,
});
const config: Descriptor = { mediaType: mediaTypes.ociConfig, digest: sha256("config"), size: 2 };

test("image closure: index, manifests, configs and layers, each once, missing manifests named", async () => {
	const store = createMemoryContentStore();
	const one = await document(store, mediaTypes.ociManifest, { config, layers: [layer("a"), layer("b")] });
	const two = await document(store, mediaTypes.ociManifest, { config, layers: [layer("b"), layer("c")] });
	const missing = { ...descriptor, digest: sha256("not here") };
	const root = await document(store, mediaTypes.ociIndex, { manifests: [one, two, missing, one] });
	const closure = await imageClosure(store, root, { signal });
	const expected = [root, one, two, missing, config, layer("a"), layer("b"), layer("c")].map(
		(each) => each.digest,
	);
	assert.deepEqual([...closure.keys()].sort(), expected.sort());
});

test("image closure: a document that is not what it says is entered no further", async () => {
	const store = createMemoryContentStore();
	const lying = await document(store, mediaTypes.ociIndex, { manifests: [descriptor] });
	const root = { ...lying, mediaType: mediaTypes.ociManifest };
	assert.deepEqual([...(await imageClosure(store, root, { signal })).keys()], [root.digest]);
});

test("image closure: indexes nested too deep and images with too many blobs fail", async () => {
	const store = createMemoryContentStore();
	let deep = await document(store, mediaTypes.ociIndex, { manifests: [] });
	for (let i = 0; i < 10; i++) {
		deep = await document(store, mediaTypes.ociIndex, { manifests: [deep] });
	}
	await assert.rejects(imageClosure(store, deep, { signal }), /nested deeper than 8 levels/);
	const indexes: Descriptor[] = [];
	for (let i = 0; i < 17; i++) {
		const manifests = Array.from({ length: 4000 }, (_, n) => ({
			...descriptor,
			digest: sha256(`${i} ${n}`),
		}));
		indexes.push(await document(store, mediaTypes.ociIndex, { manifests }));
	}
	const wide = await document(store, mediaTypes.ociIndex, { manifests: indexes });
	await assert.rejects(imageClosure(store, wide, { signal }), (thrown) =>
		hasCode(thrown, "resource-exhausted"),
	);
});
