import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { makeTar } from "../archive/tar-fixture.ts";
import { chunksOf } from "../content/bytes.ts";
import { parseDigest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import type { BlobOptions } from "./cache.ts";
import { openFixture } from "./cache-fixture.ts";

const tocKey = "containerd.io/snapshot/stargz/toc.digest";

test("blobs: eStargz has a diff ID of its own, other compressions of the same layer share one", async () => {
	await using fixture = await openFixture();
	const { signal } = fixture;
	const ref = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/file`, "content"));
	const { id } = ref;
	const only = async (compression: BlobOptions["compression"], force: boolean) => {
		const held = await fixture.cache.get(id);
		assert.ok(held !== undefined);
		await using _ = held;
		const [blob] = await held.blobs({ compression, force, signal });
		assert.ok(blob !== undefined);
		return blob;
	};
	const stargz = await only("estargz", false);
	const whole = gunzipSync(readFileSync(fixture.content.path(stargz.descriptor.digest)));
	assert.equal(stargz.diffId, sha256(whole));
	assert.match(stargz.descriptor.annotations?.[tocKey] ?? "", /^sha256:/);
	assert.equal(
		stargz.descriptor.annotations?.["io.containers.estargz.uncompressed-size"],
		String(whole.length),
	);
	assert.equal(
		(await only("gzip", false)).descriptor.digest,
		stargz.descriptor.digest,
		"the first one stays",
	);
	const gzip = await only("gzip", true);
	assert.equal(gzip.diffId, stargz.plainDiffId);
	assert.equal(gzip.plainDiffId, undefined);
	const plain = await only("uncompressed", true);
	assert.equal(plain.diffId, plain.descriptor.digest);
	assert.equal(plain.diffId, gzip.diffId);
	await ref.release();
	await fixture.reopen();
	assert.equal(
		(await only("gzip", false)).descriptor.digest,
		stargz.descriptor.digest,
		"also after a restart",
	);
	assert.equal((await only("estargz", true)).descriptor.digest, stargz.descriptor.digest);
	assert.equal((await only("estargz", true)).diffId, stargz.diffId);
});

test("blobs: an eStargz layer of an image is unpacked, and converted without its table", async () => {
	await using fixture = await openFixture();
	const { signal, cache, content } = fixture;
	const made = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/file`, "content"));
	const [stargz] = await made.blobs({ compression: "estargz", force: true, signal });
	assert.ok(stargz?.plainDiffId !== undefined);
	const bytes = readFileSync(content.path(stargz.descriptor.digest));
	const { "containerd.io/uncompressed": _, ...annotations } = stargz.descriptor.annotations ?? {};
	await using pulled = await cache.fromLayers(
		[{ descriptor: { ...stargz.descriptor, annotations }, diffId: stargz.diffId }],
		{ provider: { read: () => chunksOf(bytes) }, description: "image", signal },
	);
	assert.ok(pulled !== undefined && pulled.id !== made.id);
	assert.deepEqual(await fixture.read(pulled, (dir) => readFileSync(`${dir}/file`, "utf8")), "content");
	const [gzip] = await pulled.blobs({ compression: "gzip", force: true, signal });
	assert.equal(gzip?.diffId, stargz.plainDiffId);
	await made.release();
});

test("fromLayers: what a manifest says about a layer's diff ID is not believed", async () => {
	await using fixture = await openFixture();
	const { signal, cache, warnings } = fixture;
	const honest = makeTar({ name: "honest", data: "1" });
	const forged = makeTar({ name: "forged", data: "2" });
	const descriptor = {
		mediaType: mediaTypes.ociLayer,
		digest: sha256(forged),
		size: forged.length,
		annotations: { "containerd.io/uncompressed": sha256(forged) },
	};
	await using ref = await cache.fromLayers([{ descriptor, diffId: sha256(honest) }], {
		provider: { read: () => chunksOf(forged) },
		description: "forged",
		signal,
	});
	await assert.rejects(async () => ref?.mounts({ signal }), /expected sha256:|uncompressed digest/);
	assert.equal(await fixture.content.info(parseDigest(descriptor.digest)), undefined);
	assert.deepEqual(warnings, []);
});
