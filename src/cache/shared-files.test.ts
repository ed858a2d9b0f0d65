import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeSharedFiles, encodeSharedFiles } from "./shared-files.ts";

test("shared files come back from their encoding, by inode number", () => {
	const files = Float64Array.from([2 ** 50 + 1, 512, 7, 0, 128, 4096, 129, 2 ** 45]);
	assert.deepEqual(
		[...decodeSharedFiles(encodeSharedFiles(files))],
		[7, 0, 128, 4096, 129, 2 ** 45, 2 ** 50 + 1, 512],
	);
	assert.equal(encodeSharedFiles(new Float64Array()).length, 0);
	assert.equal(decodeSharedFiles(new Uint8Array()).length, 0);
});
