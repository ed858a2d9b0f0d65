import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { findDetail } from "../errors/errors.ts";
import { bindMount, listMounts, mount, unmount } from "./mount.ts";
import { mountLayerByLayer, mountThroughLinks } from "./mount-layers.ts";

let folder = "";
const at = (name: string): string => {
	mkdirSync(join(folder, name), { recursive: true });
	return join(folder, name);
};

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sys-mount-"));
	mount({ type: "tmpfs", source: "tmpfs", options: ["mode=755"] }, folder);
});

afterEach(() => {
	for (const { target } of listMounts(folder).reverse()) {
		unmount(target, { detach: true });
	}
	rmSync(folder, { recursive: true, force: true });
});

test("mount and unmount are seen in the mount table", () => {
	const target = at("with space");
	mount({ type: "tmpfs", source: "none", options: ["nosuid", "nodev", "size=64k", "rprivate"] }, target);
	const [entry] = listMounts(target);
	assert.equal(entry?.type, "tmpfs");
	assert.equal(entry?.target, target);
	assert.ok(entry?.options.includes("nosuid") && entry.options.includes("nodev"));
	assert.equal(statfsSync(target).blocks * statfsSync(target).bsize, 64 << 10);
	assert.equal(unmount(target), true);
	assert.equal(unmount(target), false);
	assert.deepEqual(listMounts(target), []);
});

test("bind with ro cannot be written to, its source can", () => {
	const source = at("source");
	const target = at("target");
	bindMount(source, target, ["ro", "nosuid"]);
	writeFileSync(join(source, "a"), "1");
	assert.equal(readFileSync(join(target, "a"), "utf8"), "1");
	assert.throws(() => writeFileSync(join(target, "b"), ""), /EROFS/);
});

test("an error names type, target and errno", () => {
	assert.throws(
		() => mount({ type: "tmpfs", source: "none", options: ["size=nonsense"] }, at("x")),
		(error: Error) => {
			assert.equal(error.message, `mount tmpfs on ${folder}/x: EINVAL: invalid argument`);
			return findDetail(error, "errno")?.errno === "EINVAL";
		},
	);
});

function layers(count: number): { readonly options: string[]; readonly merged: string } {
	const lowers = Array.from({ length: count }, (_, index) => {
		const layer = at(`layer:${index}-${"x".repeat(30)}`);
		writeFileSync(join(layer, `file${index}`), `${index}`);
		return layer.replaceAll(":", "\\:");
	});
	return {
		options: [`lowerdir=${lowers.join(":")}`, `upperdir=${at("upper")}`, `workdir=${at("work")}`],
		merged: at("merged"),
	};
}

test("an overlay of a few layers shows all of them", () => {
	const { options, merged } = layers(3);
	mount({ type: "overlay", source: "overlay", options }, merged);
	assert.equal(readFileSync(join(merged, "file2"), "utf8"), "2");
	writeFileSync(join(merged, "new"), "");
	assert.ok(existsSync(join(folder, "upper/new")));
});

test("an overlay of 150 layers shows all of them", () => {
	const { options, merged } = layers(150);
	assert.ok(options.join(",").length > 4096);
	mount({ type: "overlay", source: "overlay", options }, merged);
	assert.equal(readFileSync(join(merged, "file149"), "utf8"), "149");
});

test("both ways to mount many layers work here", () => {
	for (const way of [mountLayerByLayer, mountThroughLinks]) {
		const { options, merged } = layers(100);
		way({ source: "overlay", flags: 2, data: options }, merged, "mount overlay");
		assert.equal(readFileSync(join(merged, "file99"), "utf8"), "99");
		assert.ok(listMounts(merged)[0]?.options.includes("nosuid"));
		unmount(merged);
	}
});

test("a layer that is missing fails with the kernel's words", () => {
	const { options, merged } = layers(100);
	rmSync(join(folder, `layer:50-${"x".repeat(30)}`), { recursive: true });
	assert.throws(
		() => mount({ type: "overlay", source: "overlay", options }, merged),
		/^SlipwayError: mount overlay on .*ENOENT/,
	);
	assert.deepEqual(listMounts(merged), []);
});
