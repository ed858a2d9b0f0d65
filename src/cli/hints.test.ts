import assert from "node:assert/strict";
import { test } from "node:test";
import { withHint } from "./hints.ts";

test("withHint adds what can be done, where it is known", () => {
	assert.match(
		withHint("failed to load LLB: security.insecure is not allowed"),
		/is not allowed; if the step may have it, build with --allow security\.insecure$/,
	);
	assert.match(withHint("metadata database /x: database or disk is full"), /; free space .*slipway prune/);
	assert.match(withHint('could not copy "a": ENOSPC: no space left on device, write'), /; free space/);
	assert.equal(withHint('"/nothing": not found'), '"/nothing": not found');
	assert.equal(withHint("device x is not allowed here"), "device x is not allowed here");
});
