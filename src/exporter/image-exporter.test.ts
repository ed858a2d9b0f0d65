import assert from "node:assert/strict";
import { test } from "node:test";
import { readBlob } from "../content/bytes.ts";
import { parseDigest } from "../oci/digest.ts";
import { formatPlatform, hostPlatform } from "../oci/platform.ts";
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
} from "./export.fixture.ts";
import { createImageExporter } from "./image-exporter.ts";

const host = formatPlatform(hostPlatform());
const layer = layerOf(layerTar("a", "one"));

function result(directory?: string): ReturnType<typeof buildResult> {
	return buildResult([platformResult(host, fakeRef([layer], directory))]);
}

test("image: documents, layers and each normalised name are kept", async () => {
	await using services = await createTestServices();
	const context = exportContext();
	const exporter = createImageExporter(services)({ name: "foo,localhost:5000/x:y" });
	const response = await exporter.export(result(), context);
	assert.equal(exporter.name, "exporting to image");
	assert.deepEqual([...services.stored.keys()], ["docker.io/library/foo:latest", "localhost:5000/x:y"]);
	assert.equal(response["image.name"], "foo,localhost:5000/x:y");
	const root = parseDigest(response["containerimage.digest"] ?? "");
	assert.equal(services.stored.get("localhost:5000/x:y")?.descriptor.digest, root);
	const manifest = JSON.parse(
		Buffer.from(await readBlob(services.content, root, { maxBytes: 10_000, signal: never })).toString(),
	) as { config: { digest: string }; layers: { digest: string }[] };
	for (const digest of [manifest.config.digest, layer.digest]) {
		assert.ok(await services.content.info(parseDigest(digest)));
	}
	assert.deepEqual(statusNames(context.events), [
		"exporting layers",
		`exporting manifest ${root}`,
		`exporting config ${manifest.config.digest}`,
		"naming to foo",
		"naming to localhost:5000/x:y",
	]);
});

test("image: without a config the machine's own platform and BuildKit's defaults", async () => {
	await using services = await createTestServices();
	const response = await createImageExporter(services)({ name: "foo" }).export(result(), exportContext());
	const bytes = await readBlob(
		services.content,
		parseDigest(response["containerimage.config.digest"] ?? ""),
		{ maxBytes: 10_000, signal: never },
	);
	const { architecture } = hostPlatform();
	assert.equal(
		Buffer.from(bytes).toString(),
		`{"architecture":"${architecture}","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"},"created":"2023-11-14T22:13:21.25Z","history":[{"created":"2023-11-14T22:13:21.25Z","created_by":"created by buildkit","comment":"buildkit.exporter.image.v0"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["${layer.digest}"]}}`,
	);
});

for (const [title, attrs, stored, named] of [
	["store=false keeps nothing", { name: "foo", store: "false" }, [], "foo"],
	["no name keeps nothing", {}, [], undefined],
	[
		"name-canonical also names the digest",
		{ name: "foo:1", "name-canonical": "" },
		["docker.io/library/foo:1", "docker.io/library/foo:1@DIGEST"],
		"foo:1",
	],
	[
		"dangling-name-prefix adds a name",
		{ name: "foo", "dangling-name-prefix": "moby" },
		["docker.io/library/foo:latest", "docker.io/library/moby@DIGEST"],
		"foo,moby@DIGEST",
	],
	[
		"dangling-name-prefix names what has no name",
		{ "dangling-name-prefix": "moby", "danging-name-empty-only": "", "name-canonical": "true" },
		["docker.io/library/moby@DIGEST"],
		"moby@DIGEST",
	],
	[
		"danging-name-empty-only leaves a name alone",
		{ name: "foo", "dangling-name-prefix": "moby", "danging-name-empty-only": "true" },
		["docker.io/library/foo:latest"],
		"foo",
	],
] as const) {
	test(`image: ${title}`, async () => {
		await using services = await createTestServices();
		const response = await createImageExporter(services)(attrs as Readonly<Record<string, string>>).export(
			result(),
			exportContext(),
		);
		const digest = response["containerimage.digest"] ?? "";
		assert.deepEqual(
			[...services.stored.keys()],
			stored.map((name) => name.replace("DIGEST", digest)),
		);
		assert.equal(response["image.name"], named?.replace("DIGEST", digest));
		const blobs = [];
		for await (const blob of services.content.list()) {
			blobs.push(blob);
		}
		assert.equal(blobs.length, stored.length === 0 ? 0 : 3);
	});
}

test("image: name=* takes the frontend's names", async () => {
	await using services = await createTestServices();
	await createImageExporter(services)({ name: "*" }).export(
		{ ...result(), metadata: { "image.name": new TextEncoder().encode("bar:2") } },
		exportContext(),
	);
	assert.deepEqual([...services.stored.keys()], ["docker.io/library/bar:2"]);
});

test("image: unpack makes the files for this machine real", async () => {
	await using services = await createTestServices();
	const context = exportContext();
	await createImageExporter(services)({ name: "foo", unpack: "true" }).export(result(), context);
	assert.equal(statusNames(context.events).at(-1), "unpacking to foo");
});

test("image: bad names are refused before the build", async () => {
	await using services = await createTestServices();
	const make = createImageExporter(services);
	assert.throws(() => make({ name: "Foo" }), {
		message: "failed to parse Foo: invalid reference format: repository name (library/Foo) must be lowercase",
	});
	assert.throws(() => make({ name: "foo:1", push: "true", "push-by-digest": "true" }), {
		code: "invalid-argument",
		message: "can't push tagged ref docker.io/library/foo:1 by digest",
	});
	make({ name: "foo", push: "false", "registry.insecure": "true" });
});
