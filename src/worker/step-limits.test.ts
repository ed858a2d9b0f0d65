import assert from "node:assert/strict";
import { test } from "node:test";
import { createTimeLimit, formatTimeout, stepLimitsOf } from "./step-limits.ts";

test("stepLimitsOf: from a build's options", () => {
	assert.equal(stepLimitsOf({ target: "x" }), undefined);
	assert.equal(stepLimitsOf({ "step-timeout": "1500ms" })?.timeoutMs, 1500);
	assert.notEqual(stepLimitsOf({ "max-parallelism": "2" })?.slots, undefined);
	assert.throws(() => stepLimitsOf({ "step-timeout": "soon" }), /invalid step-timeout value: soon/);
	assert.throws(() => stepLimitsOf({ "max-parallelism": "0" }), /invalid max-parallelism value: 0/);
});

test("createTimeLimit: runs from its start, and tells its end from another's", async () => {
	const outer = new AbortController();
	using limit = createTimeLimit(1, outer.signal);
	await new Promise((resolve) => setTimeout(resolve, 5));
	assert.equal(limit.signal.aborted, false);
	limit.start();
	await new Promise((resolve) => limit.signal.addEventListener("abort", resolve));
	assert.equal(limit.isOver(), true);
	using other = createTimeLimit(100_000, outer.signal);
	other.start();
	outer.abort();
	assert.deepEqual([other.signal.aborted, other.isOver()], [true, false]);
	using none = createTimeLimit(undefined, outer.signal);
	assert.equal(none.signal, outer.signal);
});

test("formatTimeout: as it was written", () => {
	for (const [ms, text] of [
		[500, "500ms"],
		[1500, "1.5s"],
		[90_000, "90s"],
		[600_000, "10m"],
		[7_200_000, "2h"],
	] as const) {
		assert.equal(formatTimeout(ms), text);
	}
});
