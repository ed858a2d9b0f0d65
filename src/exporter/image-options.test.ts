import assert from "node:assert/strict";
import { test } from "node:test";
import { annotationsFor } from "./annotations.ts";
import { buildResult, exportContext, fakeRef, layerOf, layerTar, platformResult } from "./export.fixture.ts";
import { resolveSource } from "./export-source.ts";
import { parseFlag, parseImageOptions } from "./image-options.ts";
import { type WriteImageOptions, writeImage } from "./image-writer.ts";

test("options have BuildKit's defaults, and what is none of them is left over", () => {
	const { options, rest } = parseImageOptions({ tar: "false", "containerimage.config": "{}" });
	assert.deepEqual(options, {
		name: "",
		compression: "gzip",
		level: undefined,
		forceCompression: false,
		ociTypes: true,
		preferNonDistributable: false,
		epoch: undefined,
		rewriteTimestamp: false,
		annotations: new Map(),
	});
	assert.deepEqual(rest, { tar: "false", "containerimage.config": "{}" });
});

test("options are read as Go reads them", () => {
	const { options } = parseImageOptions({
		name: "a,b",
		compression: "zstd",
		"compression-level": "0",
		"force-compression": "",
		"oci-mediatypes": "T",
		"prefer-nondist-layers": "1",
		"source-date-epoch": "",
	});
	assert.equal(options.compression, "zstd");
	assert.equal(options.level, 1);
	assert.equal(options.forceCompression, true);
	assert.equal(options.preferNonDistributable, true);
	assert.deepEqual(options.epoch, { seconds: undefined });
	assert.equal(parseFlag({ tar: "" }, "tar"), true);
	assert.equal(parseFlag({ tar: "0" }, "tar"), false);
	assert.equal(parseFlag({}, "tar"), undefined);
});

const bad = 'strconv.ParseBool: parsing "maybe": invalid syntax';
for (const [attrs, message] of [
	[{ compression: "lz4" }, "unsupported compression type lz4"],
	[
		{ compression: "estargz", "oci-mediatypes": "false" },
		'exporter option "compression=estargz" conflicts with "oci-mediatypes=false"',
	],
	[
		{ "oci-artifact": "true", "oci-mediatypes": "false" },
		'exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"',
	],
	[{ "oci-mediatypes": "maybe" }, `non-bool value specified for oci-mediatypes: ${bad}`],
	[{ "attestation-inline": "maybe" }, `non-bool value specified for attestation-inline: ${bad}`],
	[{ "force-compression": "maybe" }, `non-bool value maybe specified for force-compression: ${bad}`],
	[
		{ "compression-level": "x" },
		'non-integer value x specified for compression-level: strconv.ParseInt: parsing "x": invalid syntax',
	],
	[{ "compression-level": "10" }, "invalid compression level 10 for gzip: must be between 0 and 9"],
	[
		{ "source-date-epoch": "now" },
		'invalid source-date-epoch: strconv.ParseInt: parsing "now": invalid syntax: strconv.ParseInt: parsing "now": invalid syntax',
	],
	[{ "annotation-layer.a": "b" }, "unrecognized annotation type layer"],
] as const) {
	test(`options ${JSON.stringify(attrs)} are refused in BuildKit's words`, () => {
		assert.throws(() => parseImageOptions(attrs as Readonly<Record<string, string>>), {
			code: "invalid-argument",
			message,
		});
	});
}

test("annotations are told apart by place and platform", () => {
	const { options } = parseImageOptions({
		"annotation.a": "1",
		"annotation-manifest[linux/arm64].a": "2",
		"annotation[linux/amd64].b": "3",
		"annotation-index[linux/amd64].c": "4",
		"annotation-index-descriptor.d": "5",
		"annotation-manifest-descriptor.e.f": "6",
	});
	const { annotations } = options;
	assert.deepEqual(annotationsFor(annotations), {
		index: { c: "4" },
		indexDescriptor: { d: "5" },
		manifest: { a: "1" },
		manifestDescriptor: { "e.f": "6" },
	});
	assert.deepEqual(annotationsFor(annotations, { os: "linux", architecture: "arm64" }).manifest, { a: "2" });
	assert.deepEqual(annotationsFor(annotations, { os: "linux", architecture: "amd64" }).manifest, {
		a: "1",
		b: "3",
	});
});

/** Layers of these tests are only described. */
const unused = {} as WriteImageOptions["services"];

async function write(
	attrs: Readonly<Record<string, string>>,
	result: ReturnType<typeof buildResult>,
): ReturnType<typeof writeImage> {
	const { options, rest } = parseImageOptions(attrs);
	const source = resolveSource(result, rest);
	return await writeImage(source, { ...options, services: unused, put: async () => {} }, exportContext());
}

const single = buildResult([platformResult("linux/amd64", undefined)]);
const several = buildResult(
	[platformResult("linux/amd64", undefined), platformResult("linux/arm64", undefined)],
	{
		multiPlatform: true,
	},
);

for (const [title, attrs, result, message] of [
	[
		"index annotations of one platform",
		{ "annotation-index.a": "b" },
		single,
		"index annotations not supported for single platform export",
	],
	[
		"annotations of a platform that is not built",
		{ "annotation[linux/s390x].a": "b" },
		several,
		"invalid annotation: no platform linux/s390x found in source",
	],
	[
		"annotations that Docker's documents have no place for",
		{ "annotation-manifest-descriptor.a": "b", "oci-mediatypes": "false" },
		single,
		'cannot export annotations with "oci-mediatypes=false"',
	],
	[
		"several platforms in a result for one",
		{
			"refs.platforms":
				'{"Platforms":[{"ID":"a","Platform":{"os":"linux","architecture":"amd64"}},{"ID":"b","Platform":{"os":"linux","architecture":"arm64"}}]}',
		},
		single,
		"cannot export multiple platforms without multi-platform enabled",
	],
	[
		"a config without architecture",
		{ "containerimage.config": '{"os":"linux"}' },
		single,
		"invalid image config: os and architecture must be specified together",
	],
	[
		"a config without both",
		{ "containerimage.config": "{}" },
		single,
		"invalid image config for export: missing os",
	],
	["a null config", { "containerimage.config": "null" }, single, "invalid null image config for export"],
	[
		"an epoch of the frontend that is none",
		{},
		{ ...single, metadata: { ...single.metadata, "source.date.epoch": Buffer.from("x") } },
		'invalid SOURCE_DATE_EPOCH from frontend: "x": invalid : strconv.ParseInt: parsing "x": invalid syntax: strconv.ParseInt: parsing "x": invalid syntax',
	],
] as const) {
	test(`writeImage refuses ${title}`, async () => {
		await assert.rejects(write(attrs as Readonly<Record<string, string>>, result), {
			code: "invalid-argument",
			message,
		});
	});
}

test("writeImage: the platform of a config given as an option is the image's", async () => {
	const image = await write({ "containerimage.config": '{"os":"linux","architecture":"riscv64"}' }, single);
	assert.deepEqual(image.root.platform, { os: "linux", architecture: "riscv64" });
});

test("writeImage: layers lose what builders note on them, and are distributable unless asked otherwise", async () => {
	const layer = {
		...layerOf(layerTar("a", "")),
		mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		urls: ["https://example.com/layer"],
		annotations: {
			"containerd.io/uncompressed": "sha256:1",
			"buildkit/createdat": "now",
			"containerd.io/distribution.source.docker.io": "library/a",
			"containerd.io/snapshot/stargz/toc.digest": "kept",
		},
	};
	const result = buildResult([platformResult("linux/amd64", fakeRef([layer]))]);
	const common = { digest: layer.digest, size: layer.size };
	const layersFor = async (attrs: Readonly<Record<string, string>>): Promise<unknown> =>
		(await write(attrs, result)).manifests[0]?.layers;
	const annotations = { "containerd.io/snapshot/stargz/toc.digest": "kept" };
	const { urls } = layer;
	assert.deepEqual(await layersFor({}), [
		{ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...common, annotations },
	]);
	assert.deepEqual(await layersFor({ "prefer-nondist-layers": "true" }), [
		{
			mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
			...common,
			urls,
			annotations,
		},
	]);
	assert.deepEqual(await layersFor({ "oci-mediatypes": "false" }), [
		{ mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", ...common },
	]);
	assert.deepEqual(await layersFor({ "oci-mediatypes": "false", "prefer-nondist-layers": "true" }), [
		{ mediaType: layer.mediaType, ...common, urls },
	]);
});
