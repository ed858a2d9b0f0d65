import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makeDirectories } from "./make-directories.ts";

test("makeDirectories makes all that is missing, and is content with what is there", () => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-make-"));
	try {
		makeDirectories(join(dir, "a/b/c"), 0o700);
		makeDirectories(join(dir, "a/b/c"), 0o755);
		assert.equal(statSync(join(dir, "a/b/c")).mode & 0o777, 0o700);
		writeFileSync(join(dir, "file"), "");
		assert.throws(() => makeDirectories(join(dir, "file/x")), { code: "ENOTDIR", path: join(dir, "file") });
		assert.throws(() => makeDirectories(join(dir, "file")), { code: "ENOTDIR" });
	} finally {
		rmSync(dir, { recursive: true, force: true });
	}
});

test("makeDirectories ends where the kernel makes no directories", () => {
	assert.throws(() => makeDirectories("/proc/slipway/deep"), { code: "ENOENT" });
});
