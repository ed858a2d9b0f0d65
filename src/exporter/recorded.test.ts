import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDigest, sha256 } from "../oci/digest.ts";
import { createArchiveExporter } from "./archive-exporter.ts";
import {
	buildResult,
	createTestServices,
	exportContext,
	fakeRef,
	layerOf,
	layerTar,
	memoryOutput,
	platformResult,
} from "./export.fixture.ts";
import { resolveSource } from "./export-source.ts";
import type { PlatformResult } from "./exporter.ts";
import { parseImageOptions } from "./image-options.ts";
import { type WriteImageOptions, writeImage } from "./image-writer.ts";

/**
 * Digests that BuildKit v0.32 gave for the same inputs, recorded with `buildctl build --output type=oci,compression=uncompressed`
 * and the options named in each test. The layer is `COPY a.txt /` of a file with `hello`, modified at 1700000000.
 */

const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const tar = layerTar("a.txt", "hello\n");
const layer = layerOf(tar);

/** The Dockerfile frontend's config for `FROM scratch`, `COPY a.txt /`. */
function scratchResult(architecture: string): PlatformResult {
	const config = {
		architecture,
		os: "linux",
		config: { Env: [path], WorkingDir: "/" },
		rootfs: { type: "layers", diff_ids: null },
		history: [{ created_by: "COPY a.txt / # buildkit", comment: "buildkit.dockerfile.v0" }],
	};
	return platformResult(`linux/${architecture}`, fakeRef([layer]), JSON.stringify(config));
}

async function archive(
	type: "oci" | "docker",
	attrs: Readonly<Record<string, string>>,
	result: ReturnType<typeof buildResult>,
): Promise<Uint8Array> {
	await using services = await createTestServices();
	const client = memoryOutput();
	const exporter = createArchiveExporter(type, services)({ compression: "uncompressed", ...attrs });
	await exporter.export(result, exportContext(client.output));
	return Buffer.concat(client.chunks);
}

test("the layer of these tests is BuildKit's", () => {
	assert.equal(layer.digest, "sha256:6097b86cf2d24993f329214acc9323692941ceee5adde9344b9bcf90ffa40f6f");
});

test("oci: the whole archive equals BuildKit's, with annotations and the frontend's epoch", async () => {
	const bytes = await archive(
		"oci",
		{ "annotation.a": "b", "annotation-manifest-descriptor.c": "d" },
		buildResult([scratchResult("amd64")], { metadata: { "source.date.epoch": "1600000000" } }),
	);
	assert.equal(sha256(bytes), "sha256:b7294fe836fc5e76fea67eada077de909009d59c8487922882e5477baa4e9224");
});

test("oci: the whole archive of an index equals BuildKit's", async () => {
	const bytes = await archive(
		"oci",
		{ "source-date-epoch": "1600000000", "annotation-index.i": "j", "annotation-index-descriptor.k": "l" },
		buildResult([scratchResult("amd64"), scratchResult("arm64")], { multiPlatform: true }),
	);
	assert.equal(sha256(bytes), "sha256:c7969ca865e361cb76ff1d912a87789b1adbe9ba193cdc9ca5e7426139eebef8");
});

test("docker: the whole archive with Docker's media types equals BuildKit's", async () => {
	const bytes = await archive(
		"docker",
		{ "oci-mediatypes": "false", "source-date-epoch": "1600000000" },
		buildResult([scratchResult("amd64")]),
	);
	assert.equal(sha256(bytes), "sha256:a2514dc5aa0b7642ec376d8a7ec5bfb41feea659a37087a54800c05cbf3aee89");
});

/** Layers of these tests are only described. */
const unused = {} as WriteImageOptions["services"];

async function manifestDigest(
	entry: PlatformResult,
	attrs: Readonly<Record<string, string>>,
): Promise<{ readonly root: string; readonly config: string }> {
	const { options, rest } = parseImageOptions({ compression: "uncompressed", ...attrs });
	const source = resolveSource(buildResult([entry]), rest);
	const image = await writeImage(
		source,
		{ ...options, services: unused, put: async () => {} },
		exportContext(),
	);
	return { root: image.root.digest, config: image.manifests[0]?.config.digest ?? "" };
}

test("an epoch leaves the history of the base image as it is", async () => {
	const baseHistory = [{ created: "2023-11-14T22:13:20Z", created_by: "busybox-static rootfs" }];
	const step = (created_by: string, empty_layer?: true): object => ({
		created_by,
		comment: "buildkit.dockerfile.v0",
		...(empty_layer === true ? { empty_layer } : {}),
	});
	const config = {
		architecture: "amd64",
		os: "linux",
		config: {
			Env: [path, "A=<b>&c"],
			Cmd: ["sh"],
			WorkingDir: "/w/x",
			Labels: { k: "v" },
			ArgsEscaped: true,
		},
		rootfs: { type: "layers", diff_ids: null },
		history: [
			...baseHistory,
			step("ENV A=<b>&c", true),
			step("COPY a.txt /a/ # buildkit"),
			step("WORKDIR /w/x"),
			step("LABEL k=v", true),
			step("COPY a.txt b.txt # buildkit"),
			step('CMD ["sh"]', true),
		],
	};
	const sizes: Readonly<Record<string, number>> = {
		"sha256:b84dea3dab61f06b7b65adb2c3a43098ddc3ae0b9846adff150275a1830674a8": 2_129_920,
		"sha256:30547da22af601be96dce67200041e1d2113de0b69c95ac438ce5cc83c0cf7b3": 2560,
		"sha256:7defcb909ccbc8d6da57d5a7513d7f78337ee51f24dd288114c57fc3fd784ad3": 2048,
		"sha256:efc41e568c6611b9a7a5511ac5ca1ca113c9f7037e3fcb3a2f66514ef6d917ea": 3072,
	};
	const layers = Object.entries(sizes).map(([digest, size]) => ({
		digest: parseDigest(digest),
		size,
		annotations: { "containerd.io/uncompressed": digest, "buildkit/createdat": "2026-11-21T07:47:45Z" },
	}));
	const base = JSON.stringify({ architecture: "amd64", os: "linux", history: baseHistory });
	const entry = platformResult("linux/amd64", fakeRef(layers), JSON.stringify(config), base);
	assert.deepEqual(await manifestDigest(entry, { "source-date-epoch": "1600000000" }), {
		root: "sha256:113c4684c25b8896bddca0bede465b2e72931959ccae0d0ed73d45a9069539b9",
		config: "sha256:79b22773b1eb3963b237cef8faf68e8ce51aa13d225964f1aa66d63a42943116",
	});
});

test("a config given as an option keeps its unknown values as they are written", async () => {
	const config = String.raw`{ "os":"linux", "architecture":"amd64", "zeta": 1.0, "10": {}, "big": 12345678901234567890, "esc":"\u0041\/<&>é", "obj": {"b":1,"a":[1, 2, " }x" ]}, "history":[{"created":"2021-01-01T00:00:00.120+02:00","created_by":"x","author":"me","empty_layer":true,"foo":1},{"created_by":"y"},{"empty_layer":true},{"created_by":"z","empty_layer":false}], "created":"2019-01-01T00:00:00.000Z"}`;
	assert.deepEqual(
		await manifestDigest(scratchResult("amd64"), {
			"source-date-epoch": "1609459200",
			"containerimage.config": config,
		}),
		{
			root: "sha256:0fd66982944a1e4004c816cd74b507732f49cc67d3295ba3ffb33887bcc5a61a",
			config: "sha256:eb2e63f430c03b4fdadffeb0faf82042ee295922527eff7348184f17d785557c",
		},
	);
});

test("an image without layers has null where Go has a list that was never made", async () => {
	const config = {
		architecture: "amd64",
		os: "linux",
		config: { Env: [path], WorkingDir: "/", Labels: { x: "y" } },
		history: [{ created_by: "LABEL x=y", comment: "buildkit.dockerfile.v0", empty_layer: true }],
	};
	const entry = platformResult("linux/amd64", undefined, JSON.stringify(config));
	assert.deepEqual(await manifestDigest(entry, { "oci-mediatypes": "false" }), {
		root: "sha256:90827d5c8ac82a72b87f39b2d6550f80031e5298feed91917eeed74a390c8b83",
		config: "sha256:766e6b4c93497ec8254e767917706cd8f8043330bf3c8616a5a85dd74b8acb21",
	});
});
