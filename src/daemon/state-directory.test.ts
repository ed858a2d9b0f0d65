import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
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
