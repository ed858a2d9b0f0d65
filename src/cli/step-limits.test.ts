import assert from "node:assert/strict";
import { test } from "node:test";
import { buildFlags } from "./build-flags.ts";
import { parseFlags } from "./flags.ts";
import { stepLimitOptions } from "./step-limits.ts";

function options(...argv: readonly string[]): Readonly<Record<string, string>> {
	return stepLimitOptions(parseFlags([...argv, "."], buildFlags));
}

test("stepLimitOptions: times in Go's words, or in seconds", () => {
	assert.deepEqual(options(), {});
	for (const [text, ms] of [
		["90", 90_000],
		["90s", 90_000],
		["1h30m", 5_400_000],
		["1.5s", 1500],
		["20ms", 20],
	] as const) {
		assert.deepEqual(options("--step-timeout", text), { "step-timeout": `${ms}ms` });
	}
	for (const text of ["", "0", "-1s", "fast", "1x", "s", "1s x"]) {
		assert.throws(() => options(`--step-timeout=${text}`), /invalid duration/, text);
	}
});

test("stepLimitOptions: at least one step at once", () => {
	assert.deepEqual(options("--max-parallelism", "3"), { "max-parallelism": "3" });
	for (const text of ["0", "-1", "x", "1.5"]) {
		assert.throws(() => options(`--max-parallelism=${text}`), /invalid value .* for --max-parallelism/);
	}
});
