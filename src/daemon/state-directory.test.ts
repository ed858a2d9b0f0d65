import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openStateDirectory } from "./state-directory.ts";

test("openStateDirectory makes parents, and tells where it can't", () => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-state-"));
	try {
		const root = join(dir, "a/b");
		openStateDirectory(root)[Symbol.dispose]();
		assert.equal(statSync(root).mode & 0o777, 0o700);
		assert.throws(
			() => openStateDirectory(join(root, "owner")),
			/state directory .*owner cannot be made or written; choose another/,
		);
		assert.throws(() => openStateDirectory(join(root, "owner/x")), /cannot be made or written/);
	} finally {
		rmSync(dir, { recursive: true });
	}
	assert.throws(
		() => openStateDirectory("/proc/slipway/x"),
		/cannot be made or written; choose another with --root/,
	);
});

test("openStateDirectory: a full disk still opens, so that there can be made room", () => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-state-"));
	execFileSync("mount", ["-t", "tmpfs", "-o", "size=6m", "slipway-test", dir]);
	try {
		openStateDirectory(dir)[Symbol.dispose]();
		const fill = (): void => {
			assert.throws(() => writeFileSync(join(dir, "filler"), new Uint8Array(8 << 20)), { code: "ENOSPC" });
		};
		fill();
		{
			using state = openStateDirectory(dir);
			state.database.define("CREATE TABLE IF NOT EXISTS things (name TEXT)");
			state.database.run("INSERT INTO things VALUES (?)", "a");
		}
		assert(!existsSync(join(dir, "reserve")), "spent");
		rmSync(join(dir, "filler"));
		openStateDirectory(dir)[Symbol.dispose]();
		assert.equal(statSync(join(dir, "reserve")).size, 1 << 20, "put back");
	} finally {
		execFileSync("umount", [dir]);
		rmSync(dir, { recursive: true });
	}
});
