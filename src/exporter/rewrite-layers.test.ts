import assert from "node:assert/strict";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { TarReader } from "../archive/tar-reader.ts";
import { readBlob } from "../content/bytes.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import {
	buildResult,
	createTestServices,
	exportContext,
	fakeRef,
	layerOf,
	layerTar,
	never,
	platformResult,
	statusNames,
	type TestServices,
} from "./export.fixture.ts";
import { resolveSource } from "./export-source.ts";
import { createImageExporter } from "./image-exporter.ts";
import { parseImageOptions } from "./image-options.ts";
import { type WrittenImage, writeImage } from "./image-writer.ts";

const base = layerOf(layerTar("base", "below", 1_600_000_000));
const top = layerOf(layerTar("top", "above", 1_700_000_000));
const old = layerOf(layerTar("old", "before", 100));
const baseConfig = JSON.stringify({
	architecture: "amd64",
	os: "linux",
	rootfs: { type: "layers", diff_ids: [base.digest] },
});

async function rewrite(
	services: TestServices,
	attrs: Readonly<Record<string, string>>,
	layers = [base, top, old],
): Promise<{
	readonly image: WrittenImage;
	readonly statuses: readonly string[];
	readonly warnings: readonly string[];
}> {
	const { options } = parseImageOptions({
		"rewrite-timestamp": "true",
		"source-date-epoch": "1500000000",
		compression: "uncompressed",
		...attrs,
	});
	const result = buildResult([platformResult("linux/amd64", fakeRef(layers), undefined, baseConfig)]);
	const context = exportContext();
	const image = await writeImage(
		resolveSource(result),
		{ ...options, services, put: async () => {} },
		context,
	);
	const warnings = context.events.flatMap((event) => (event.kind === "warning" ? [event.warning.short] : []));
	return { image, statuses: statusNames(context.events), warnings };
}

function timesOf(tar: Uint8Array): readonly number[] {
	const times: number[] = [];
	const reader = new TarReader({
		entry: ({ modified }) => void times.push(modified.seconds),
		data() {},
		hole() {},
		end() {},
	});
	reader.push(tar);
	reader.end();
	return times;
}

const read = (services: TestServices, digest: string): Promise<Uint8Array> =>
	readBlob(services.content, digest as Digest, { maxBytes: 1e6, signal: never });

test("rewrite-timestamp: no file of a new layer is younger than the epoch, the base's layers stay", async () => {
	await using services = await createTestServices();
	const { image, statuses } = await rewrite(services, {});
	const [below, above, before] = image.manifests[0]?.layers ?? [];
	assert.equal(below?.digest, base.digest);
	assert.notEqual(above?.digest, top.digest);
	assert.equal(above?.annotations?.["buildkit/rewritten-timestamp"], "1500000000");
	assert.deepEqual(timesOf(await read(services, above?.digest ?? "")), [1_500_000_000]);
	assert.equal(before?.digest, old.digest);
	assert.ok(
		statuses.includes("rewriting layers with source-date-epoch 1500000000 (2017-07-14 02:40:00 +0000 UTC)"),
		statuses.join(),
	);
	const config = JSON.parse(
		Buffer.from(image.documents.get(image.manifests[0]?.config.digest as Digest) ?? []).toString(),
	);
	assert.deepEqual(config.rootfs.diff_ids, [base.digest, above?.digest, before?.digest]);
});

test("rewrite-timestamp: the new blobs have the wanted compression", async () => {
	await using services = await createTestServices();
	const { image } = await rewrite(services, { compression: "gzip" }, [top]);
	const [layer] = image.manifests[0]?.layers ?? [];
	const tar = gunzipSync(await read(services, layer?.digest ?? ""));
	assert.equal(image.layers.get(layer?.digest as Digest)?.diffId, sha256(tar));
	assert.equal(layer?.mediaType, "application/vnd.oci.image.layer.v1.tar+gzip");
	assert.deepEqual(timesOf(tar), [1_500_000_000]);
});

test("rewrite-timestamp: a layer that was rewritten to the same epoch, or an export without one, is left alone", async () => {
	await using services = await createTestServices();
	const done = { ...top, annotations: { "buildkit/rewritten-timestamp": "1500000000" } };
	const { image } = await rewrite(services, {}, [done]);
	assert.equal(image.manifests[0]?.layers[0]?.digest, top.digest);
	const without = await rewrite(services, { "source-date-epoch": "" }, [top]);
	assert.equal(without.image.manifests[0]?.layers[0]?.digest, top.digest);
});

test("rewrite-timestamp: a layer that is no archive stays what it is, with a warning", async () => {
	await using services = await createTestServices();
	const strange = layerOf(Buffer.alloc(1024, "strange"));
	const { image, warnings } = await rewrite(services, {}, [strange, top]);
	const [first, second] = image.manifests[0]?.layers ?? [];
	assert.equal(first?.digest, strange.digest);
	assert.notEqual(second?.digest, top.digest);
	assert.equal(warnings.length, 1);
	assert.match(
		warnings[0] ?? "",
		/failed to rewrite layer 1 of 2 to the epoch, it is left as it is: .*invalid tar header/,
	);
});

test("rewrite-timestamp: conflicts with unpack", async () => {
	await using services = await createTestServices();
	const exporter = createImageExporter(services)({
		name: "a",
		unpack: "true",
		"rewrite-timestamp": "true",
		"source-date-epoch": "1",
	});
	const result = buildResult([platformResult("linux/amd64", fakeRef([top]))]);
	await assert.rejects(exporter.export(result, exportContext()), {
		code: "invalid-argument",
		message: 'exporter option "rewrite-timestamp" conflicts with "unpack"',
	});
});

test("estargz: asked for from the cache, or made by rewriting; its annotations stay in the manifest", async () => {
	await using services = await createTestServices();
	const { image } = await rewrite(services, { compression: "estargz" }, [top]);
	const [layer] = image.manifests[0]?.layers ?? [];
	assert.equal(layer?.mediaType, "application/vnd.oci.image.layer.v1.tar+gzip");
	assert.match(layer?.annotations?.["containerd.io/snapshot/stargz/toc.digest"] ?? "", /^sha256:/);
	const tar = gunzipSync(await read(services, layer?.digest ?? ""));
	assert.equal(layer?.annotations?.["io.containers.estargz.uncompressed-size"], String(tar.length));
	assert.equal(image.layers.get(layer?.digest as Digest)?.diffId, sha256(tar));
});

test("zstd: with Docker's media types it has one that few know besides BuildKit", async () => {
	await using services = await createTestServices();
	const { image } = await rewrite(services, { compression: "zstd", "oci-mediatypes": "false" }, [top]);
	assert.deepEqual(
		image.manifests[0]?.layers.map(({ mediaType }) => mediaType),
		["application/vnd.docker.image.rootfs.diff.tar.zstd"],
	);
});
