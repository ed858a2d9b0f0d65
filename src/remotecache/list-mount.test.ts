import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "./list-mount.job.ts";
import { mountArtifact, mountConfigIn, parseMountConfig, writeMountConfig } from "./mounts.ts";

const context = { signal: new AbortController().signal, throwIfAborted: () => {}, post: () => {} };

test("a mount's files are grouped by name, so that one more file changes few groups", () => {
	const root = mkdtempSync(join(tmpdir(), "slipway-list-mount-"));
	try {
		const block = new Uint8Array(64 << 10);
		for (let index = 0; index < 4000; index++) {
			const dir = join(root, `d${index % 20}`);
			mkdirSync(dir, { recursive: true });
			writeFileSync(join(dir, `f${index}`), index % 10 === 0 ? block : "x");
		}
		symlinkSync("d1", join(root, "link"));
		chmodSync(root, 0o2750);
		const before = run(root, context);
		assert.equal(before.root.mode, 0o2750);
		assert.ok(before.groups.length > 3, `${before.groups.length} groups`);
		const files = before.groups.slice(0, -1).flatMap(({ changes }) => changes);
		assert.equal(files.length, 4001);
		assert.equal(before.groups.at(-1)?.changes.length, 20, "folders are the last group");
		writeFileSync(join(root, "d0/a-new-one"), "x");
		const after = run(root, context);
		const names = new Set(before.groups.map((group) => group.names));
		const renamed = after.groups.filter((group) => !names.has(group.names));
		assert.ok(renamed.length <= 2, `${renamed.length} of ${after.groups.length} groups have other names`);
		const states = new Set(before.groups.map((group) => group.state));
		const changed = after.groups.filter((group) => !states.has(group.state));
		assert.ok(changed.length <= 3, `${changed.length} of ${after.groups.length} groups changed`);
	} finally {
		rmSync(root, { recursive: true, force: true });
	}
});

test("the list of mounts is read as it was written; other documents are refused", () => {
	const root = { mode: 0o750, uid: 1, gid: 2 };
	const digest = `sha256:${"0".repeat(64)}` as Parameters<
		typeof writeMountConfig
	>[0]["mounts"][number]["layers"][number]["digest"];
	const layers = [
		{ digest, size: 7 },
		{ digest, size: 8, names: "aa" },
	];
	const config = { mounts: [{ name: "//root/.npm", layers, root }] };
	const bytes = writeMountConfig(config);
	assert.deepEqual(parseMountConfig(bytes), config);
	const { manifest } = mountArtifact(bytes);
	assert.equal(mountConfigIn(manifest.bytes).size, bytes.length);
	const image = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"${digest}","size":2},"layers":[]}`;
	assert.throws(() => mountConfigIn(new TextEncoder().encode(image)), /something else/);
	for (const text of [
		"",
		"[]",
		"\u0000",
		'{"mounts":[{}]}',
		'{"mounts":[{"name":"x","layers":[{"digest":"y","size":1}]}]}',
	]) {
		assert.throws(() => parseMountConfig(new TextEncoder().encode(text)), /invalid list of cache mounts/);
	}
});
