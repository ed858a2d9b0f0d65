import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { removeTree } from "./remove.ts";

test("removeTree: files and directories that were made immutable or append-only go too; links are not followed", () => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-remove-"));
	const outside = mkdtempSync(join(tmpdir(), "slipway-outside-"));
	mkdirSync(join(dir, "a/b"), { recursive: true });
	for (const path of [join(dir, "a/b/file"), join(dir, "a/log"), join(outside, "kept")]) {
		writeFileSync(path, "x");
	}
	symlinkSync(outside, join(dir, "a/link"));
	const change = (flag: string, path: string): void => {
		assert.equal(spawnSync("chattr", [flag, path]).status, 0, `chattr ${flag} ${path}`);
	};
	try {
		change("+i", join(dir, "a/b/file"));
		change("+a", join(dir, "a/log"));
		change("+i", join(dir, "a"));
		change("+i", join(outside, "kept"));
		removeTree(dir);
		assert.equal(existsSync(dir), false);
		assert.equal(existsSync(join(outside, "kept")), true);
		assert.match(spawnSync("lsattr", [join(outside, "kept")], { encoding: "utf8" }).stdout, /^-*i/);
		removeTree(dir);
	} finally {
		removeTree(dir);
		removeTree(outside);
	}
});
