import assert from "node:assert/strict";
import { test } from "node:test";
import { pairSteps } from "./explain-pairs.ts";
import type { StepNote } from "./explain-steps.ts";

/** `stage:command` each. */
function steps(...texts: readonly string[]): readonly StepNote[] {
	return texts.map((text) => {
		const [stage = "", command = ""] = text.split(":");
		return { name: `[${stage} 1/9] ${command}`, command, stage, kind: "exec", fields: {}, inputs: [] };
	});
}

const pairsOf = (before: readonly StepNote[], now: readonly StepNote[]): readonly string[] =>
	[...pairSteps(before, now)]
		.sort(([a], [b]) => a - b)
		.map(
			([index, { before: old, sameText }]) =>
				`${now[index]?.command} ${sameText ? "=" : "was"} ${old.command}`,
		);

test("pairSteps knows steps by their text, whatever is put between or taken away", () => {
	assert.deepEqual(pairsOf(steps("s:a", "s:b", "s:c"), steps("s:a", "s:new", "s:b", "s:c")), [
		"a = a",
		"b = b",
		"c = c",
	]);
	assert.deepEqual(pairsOf(steps("s:a", "s:b", "s:c"), steps("s:c")), ["c = c"]);
	assert.deepEqual(pairsOf(steps("s:a", "s:a"), steps("s:a", "s:a", "s:a")), ["a = a", "a = a"]);
});

test("pairSteps takes a new text between known ones for the edited one that stood there", () => {
	assert.deepEqual(pairsOf(steps("s:a", "s:b", "s:c"), steps("s:a", "s:edited", "s:c")), [
		"a = a",
		"edited was b",
		"c = c",
	]);
	assert.deepEqual(pairsOf(steps("s:a"), steps("s:edited", "s:more")), ["edited was a"]);
});

test("pairSteps keeps to a stage", () => {
	assert.deepEqual(pairsOf(steps("s:a", "t:b"), steps("t:a", "s:b")), ["a was b", "b was a"]);
	assert.deepEqual(pairsOf(steps("s:a"), steps("u:a")), []);
});

test("pairSteps takes long stages in its stride", () => {
	const long = Array.from({ length: 5000 }, (_, at) => `s:${at}`);
	const pairs = pairSteps(steps(...long), steps(...long.slice(0, 2500), "s:new", ...long.slice(2500)));
	assert.ok(pairs.size >= 2500);
});
