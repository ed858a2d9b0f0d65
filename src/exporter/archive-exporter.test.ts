import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
	closeSync,
	existsSync,
	mkdirSync,
	openSync,
	readFileSync,
	truncateSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { canceled, hasCode } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { layoutOutput } from "../session/layout-output.ts";
import { fileOutput } from "../session/outputs.ts";
import type { SessionOutput } from "../session/session.ts";
import { createArchiveExporter } from "./archive-exporter.ts";
import {
	buildResult,
	createTestServices,
	exportContext,
	fakeRef,
	layerOf,
	layerTar,
	memoryOutput,
	memoryStore,
	platformResult,
	statusNames,
	type TestServices,
} from "./export.fixture.ts";

const config = JSON.stringify({ architecture: "amd64", os: "linux", config: { Cmd: ["sh"] } });
const layers = [layerOf(layerTar("a", "one")), layerOf(layerTar("b", "two".repeat(200_000)))];

function result(): ReturnType<typeof buildResult> {
	return buildResult([platformResult("linux/amd64", fakeRef(layers), config)]);
}

function run(
	services: TestServices,
	output: SessionOutput | undefined,
	attrs: Readonly<Record<string, string>> = {},
	type: "oci" | "docker" = "oci",
): Promise<Readonly<Record<string, string>>> {
	return createArchiveExporter(type, services)(attrs).export(result(), exportContext(output));
}

test("oci: the file that threads write and the stream in memory have the same bytes", async () => {
	await using services = await createTestServices();
	const client = memoryOutput();
	await run(services, client.output, { name: "foo" });
	const file = join(services.directory, "image.tar");
	await run(services, fileOutput(file), { name: "foo" });
	assert.equal(sha256(readFileSync(file)), sha256(Buffer.concat(client.chunks)));
	assert.deepEqual(client.calls, ["open", "close"]);
});

test("oci: answers with digests, descriptor and names, and tells the client the same", async () => {
	await using services = await createTestServices();
	const client = memoryOutput();
	const response = await run(services, client.output, { name: "foo,localhost:5000/x:y" });
	assert.equal(response["image.name"], "docker.io/library/foo:latest,localhost:5000/x:y");
	const descriptor = JSON.parse(
		Buffer.from(response["containerimage.descriptor"] ?? "", "base64").toString(),
	) as object;
	assert.deepEqual(descriptor, {
		mediaType: "application/vnd.oci.image.manifest.v1+json",
		digest: response["containerimage.digest"],
		size: 658,
		annotations: { "org.opencontainers.image.created": "2023-11-14T22:13:20Z" },
		platform: { architecture: "amd64", os: "linux" },
	});
	assert.deepEqual(Object.keys(response).sort(), [
		"containerimage.config.digest",
		"containerimage.descriptor",
		"containerimage.digest",
		"image.name",
	]);
	assert.deepEqual(client.metadata, response);
});

test("oci: reports the phases that BuildKit reports", async () => {
	await using services = await createTestServices();
	const context = exportContext(memoryOutput().output);
	const response = await createArchiveExporter("oci", services)({}).export(result(), context);
	assert.deepEqual(statusNames(context.events), [
		"exporting layers",
		`exporting manifest ${response["containerimage.digest"]}`,
		`exporting config ${response["containerimage.config.digest"]}`,
		"sending tarball",
	]);
});

test("docker: manifest.json has familiar tags; skopeo reads the archive", async () => {
	await using services = await createTestServices();
	const file = join(services.directory, "image.tar");
	await run(services, fileOutput(file), { name: "foo,localhost:5000/x:y" }, "docker");
	const listed = execFileSync("tar", ["tf", file], { encoding: "utf8" }).trim().split("\n");
	assert.deepEqual(listed, [...listed].sort());
	const [entry] = JSON.parse(execFileSync("tar", ["xOf", file, "manifest.json"], { encoding: "utf8" })) as {
		RepoTags: string[];
		Layers: string[];
	}[];
	assert.deepEqual(entry?.RepoTags, ["foo:latest", "localhost:5000/x:y"]);
	assert.deepEqual(
		entry?.Layers,
		layers.map(({ digest }) => `blobs/${digest.replace(":", "/")}`),
	);
	const inspected = JSON.parse(
		execFileSync("skopeo", ["inspect", "--config", `docker-archive:${file}`], { encoding: "utf8" }),
	) as { rootfs: { diff_ids: string[] } };
	assert.deepEqual(
		inspected.rootfs.diff_ids,
		layers.map(({ digest }) => digest),
	);
});

test("docker: refuses a result for several platforms", async () => {
	await using services = await createTestServices();
	await assert.rejects(
		createArchiveExporter(
			"docker",
			services,
		)({}).export(
			buildResult([platformResult("linux/amd64", undefined)], { multiPlatform: true }),
			exportContext(memoryOutput().output),
		),
		{ message: "docker exporter does not currently support exporting manifest lists" },
	);
});

test("oci with tar=false: a layout that skopeo and umoci read", async () => {
	await using services = await createTestServices();
	const layout = join(services.directory, "layout");
	await run(services, layoutOutput(layout), { tar: "false", name: "foo:1" });
	const inspected = JSON.parse(
		execFileSync("skopeo", ["inspect", `oci:${layout}:1`], { encoding: "utf8" }),
	) as { Layers: string[] };
	assert.deepEqual(
		inspected.Layers,
		layers.map(({ digest }) => digest),
	);
	const bundle = join(services.directory, "bundle");
	execFileSync("umoci", ["unpack", "--rootless", "--image", `${layout}:1`, bundle], { stdio: "pipe" });
	assert.equal(readFileSync(join(bundle, "rootfs/a"), "utf8"), "one");
});

test("oci with tar=false: each blob is sent once and the manifest is the last", async () => {
	await using services = await createTestServices();
	const client = memoryStore();
	const response = await run(services, client.output, { tar: "false" });
	assert.deepEqual(
		[...client.blobs.keys()],
		[
			...layers.map(({ digest }) => digest),
			response["containerimage.config.digest"],
			response["containerimage.digest"],
		],
	);
	assert.equal(
		Buffer.from(client.roots[0]?.descriptor ?? "").toString("base64"),
		response["containerimage.descriptor"],
	);
	assert.deepEqual(client.roots[0]?.names, []);
});

for (const [how, damage] of [
	["cut", (path: string) => truncateSync(path, 100)],
	["changed", (path: string) => writeFileSync(path, new Uint8Array(layers[0]?.size ?? 0))],
] as const) {
	for (const form of ["file", "stream", "store"] as const) {
		test(`a layer that is ${how} on disk fails the export to a ${form}, which leaves nothing`, async () => {
			await using services = await createTestServices();
			const digest = layers[0]?.digest ?? sha256("");
			await run(services, memoryOutput().output);
			const path = services.content.path(digest);
			damage(path);
			const file = join(services.directory, "out", "image.tar");
			mkdirSync(join(services.directory, "out"));
			const stream = memoryOutput();
			const store = memoryStore();
			const strict = layoutOutput(join(services.directory, "layout"));
			const outputs = { file: fileOutput(file), stream: stream.output, store: strict };
			await assert.rejects(
				run(services, outputs[form], form === "store" ? { tar: "false" } : {}),
				(error: Error) =>
					hasCode(error, "data-loss") &&
					error.message.startsWith(`blob ${digest} was damaged in the content store (`) &&
					error.message.endsWith("has been removed: run the build again to make it anew"),
			);
			assert.equal(existsSync(path), false);
			assert.deepEqual(execFileSync("ls", ["-A", join(services.directory, "out")], { encoding: "utf8" }), "");
			assert.ok(!stream.calls.includes("close"));
			assert.equal(store.roots.length, 0);
			await run(services, outputs[form], form === "store" ? { tar: "false" } : {});
		});
	}
}

test("a large layer that nobody knows is hashed beside its copy, once", async () => {
	await using services = await createTestServices();
	const bytes = new Uint8Array(9 << 20).fill(7);
	const large = layerOf(bytes);
	const path = services.content.path(large.digest);
	writeFileSync(path, bytes);
	const whole = buildResult([platformResult("linux/amd64", fakeRef([large]), config)]);
	const file = join(services.directory, "image.tar");
	const exportIt = (): Promise<unknown> =>
		createArchiveExporter("oci", services)({}).export(whole, exportContext(fileOutput(file)));
	assert.equal(services.content.isConfirmed(large.digest), false);
	await exportIt();
	assert.equal(services.content.isConfirmed(large.digest), true);
	bytes[5_000_000] = 8;
	writeFileSync(path, bytes);
	utimesSync(path, 1, 1);
	await assert.rejects(exportIt(), {
		code: "data-loss",
		message: `blob ${large.digest} was damaged in the content store (its bytes have digest ${sha256(bytes)}) and has been removed: run the build again to make it anew`,
	});
	assert.deepEqual(execFileSync("ls", ["-A", services.directory], { encoding: "utf8" }).split("\n"), [
		"content",
		"image.tar",
		"",
	]);
});

test("an abort while threads write leaves no file", async () => {
	await using services = await createTestServices();
	const file = join(services.directory, "image.tar");
	const controller = new AbortController();
	const output = fileOutput(file);
	const aborting: SessionOutput = {
		kind: "stream",
		open: async (metadata) => {
			const stream = await output.open(metadata);
			queueMicrotask(() => controller.abort(canceled()));
			return stream;
		},
	};
	await assert.rejects(
		createArchiveExporter(
			"oci",
			services,
		)({}).export(result(), exportContext(aborting, { signal: controller.signal })),
		{ code: "canceled" },
	);
	assert.deepEqual(execFileSync("ls", ["-A", services.directory], { encoding: "utf8" }).trim().split("\n"), [
		"content",
	]);
});

test("a client that has the result already is content", async () => {
	await using services = await createTestServices();
	const { SlipwayError } = await import("../errors/errors.ts");
	const output: SessionOutput = {
		kind: "stream",
		open: async () => {
			throw new SlipwayError("already-exists", "target already exists");
		},
	};
	const response = await run(services, output);
	assert.ok(response["containerimage.digest"]);
});

test("a missing or wrong place for the output is an error of the client", async () => {
	await using services = await createTestServices();
	await assert.rejects(run(services, undefined), {
		message: "output file writer is required for oci exporter",
	});
	await assert.rejects(run(services, memoryStore().output), {
		message: "output store is not supported by oci exporter",
	});
	await assert.rejects(run(services, memoryOutput().output, { tar: "false" }), {
		message: "output file writer is not supported by oci exporter",
	});
});

test("a descriptor that is no regular file is written to by this thread", async () => {
	await using services = await createTestServices();
	const fd = openSync("/dev/null", "w");
	try {
		const client = memoryOutput(fd);
		await run(services, client.output);
		assert.ok(client.chunks.length > 0);
	} finally {
		closeSync(fd);
	}
});
