import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { annotationOptions } from "./annotation-options.ts";
import { type OutputRequest, planOutputs } from "./output-plan.ts";

const terminal: OutputRequest["terminal"] = {
	stdout: { write: () => {}, writeBytes: async () => {} },
	cwd: "/",
	env: {},
	interrupted: new AbortController().signal,
};

async function plan(
	specs: readonly string[],
	request: Partial<OutputRequest> = {},
): Promise<readonly (readonly [type: string, attrs: object])[]> {
	const { exporters } = await planOutputs({
		specs,
		tags: [],
		push: false,
		load: false,
		annotations: {},
		allowDelete: false,
		wantsImageId: false,
		terminal,
		...request,
	});
	return exporters.map(({ type, attrs }) => [type, attrs] as const);
}

const tags = ["docker.io/library/a:1"];
const name = tags[0];

test("outputs: registry and --push are images that are pushed and not unpacked", async () => {
	const pushed = { push: "true", unpack: "false", name };
	assert.deepEqual(await plan(["type=registry"], { tags }), [["image", pushed]]);
	assert.deepEqual(await plan([], { tags, push: true }), [["image", pushed]]);
	assert.deepEqual(await plan(["type=image,unpack=true,name=other"], { tags, push: true }), [
		["image", { ...pushed, unpack: "true" }],
	]);
	assert.deepEqual(await plan(["type=oci,dest=x"], { tags, push: true }), [
		["oci", { name }],
		["image", pushed],
	]);
	assert.deepEqual(await plan(["type=image,push=true,name=b"]), [["image", { push: "true", name: "b" }]]);
	await assert.rejects(plan([], { push: true }), { message: "tag is needed when pushing to registry" });
	await assert.rejects(plan(["type=image,push=true"]), { message: "tag is needed when pushing to registry" });
});

test("outputs: annotations go to images, tags name them, and a tag alone keeps the image", async () => {
	const annotations = { "annotation-index.a": "b" };
	assert.deepEqual(await plan(["type=oci,dest=x", "type=local,dest=y"], { tags, annotations }), [
		["oci", { name, ...annotations }],
		["local", {}],
	]);
	assert.deepEqual(await plan([], { tags }), [["image", { name }]]);
	assert.deepEqual(await plan([]), []);
	assert.deepEqual(await plan(["type=cacheonly"], { tags }), []);
});

test("outputs: what cannot be written is refused", async () => {
	for (const [spec, message] of [
		["type=local", "dest is required for local exporter"],
		["type=local,dest=-", "dest cannot be stdout for local exporter"],
		["type=oci,tar=false", "dest is required for oci exporter"],
		["type=docker,tar=false,dest=-", "dest cannot be stdout for docker exporter"],
		["type=image,dest=x", "dest is not used by the image output: it goes to the image store"],
	] as const) {
		await assert.rejects(plan([spec]), { code: "invalid-argument", message });
	}
	await assert.rejects(plan(["type=oci", "-"]), {
		message: "multiple outputs configured to write to stdout",
	});
	await assert.rejects(plan(["out"], { wantsImageId: true }), {
		message: "local and tar exporters are incompatible with image ID file",
	});
	const isTty = { ...terminal, stdout: { ...terminal.stdout, isTTY: true } };
	await assert.rejects(plan(["type=oci"], { terminal: isTty }), /refusing to write to console/);
});

test("outputs: a mirror deletes only inside of the directory, unless that is allowed", async () => {
	const cwd = realpathSync(mkdtempSync(join(tmpdir(), "slipway-plan-")));
	try {
		const here = { ...terminal, cwd: join(cwd, "here") };
		mkdirSync(here.cwd);
		const mirror = (dest: string, allowDelete = false) =>
			plan([`type=local,dest=${dest},mode=delete`], { terminal: here, allowDelete });
		assert.equal((await mirror("out/below")).length, 1);
		for (const dest of [".", "..", "../beside", "/"]) {
			await assert.rejects(mirror(dest), /requires --allow=buildx\.local\.delete/);
			assert.equal((await mirror(dest, true)).length, 1);
		}
	} finally {
		rmSync(cwd, { recursive: true });
	}
});

test("annotations: places and platforms, as buildx reads them", () => {
	assert.deepEqual(annotationOptions(["a=b=c", "index,manifest[linux/arm64]:x=y", ""]), {
		"annotation.a": "b=c",
		"annotation-index.x": "y",
		"annotation-manifest[linux/arm64].x": "y",
	});
	for (const [text, message] of [
		["a", 'parse annotations: invalid annotation "a", expected key=value'],
		["layer:a=b", 'parse annotations: unknown annotation type "layer"'],
		[
			"Index:a=b",
			'parse annotations: invalid annotation type "Index", expected type and optional platform in square brackets',
		],
	] as const) {
		assert.throws(() => annotationOptions([text]), { code: "invalid-argument", message });
	}
});
