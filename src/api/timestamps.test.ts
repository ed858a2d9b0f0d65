import assert from "node:assert/strict";
import { test } from "node:test";
import { millisecondsOf, timestampOf } from "./timestamps.ts";

test("a timestamp of milliseconds and back: whole, with fractions, before the epoch", () => {
	assert.deepEqual(timestampOf(1_763_719_200_250), { seconds: 1_763_719_200, nanos: 250_000_000 });
	assert.deepEqual(timestampOf(-1), { seconds: -1, nanos: 999_000_000 });
	for (const value of [0, -1500, 1_763_719_200_250.5, 1_763_719_200_999.999]) {
		assert.ok(Math.abs(millisecondsOf(timestampOf(value)) - value) < 0.001);
	}
	assert.equal(millisecondsOf(undefined), undefined);
});
