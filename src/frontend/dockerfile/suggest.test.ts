import assert from "node:assert/strict";
import { test } from "node:test";
import { suggest, withSuggestion } from "./suggest.ts";

test("suggest finds the nearest option within two edits", () => {
	const options = ["target", "source", "from"];
	assert.equal(suggest("traget", options, { caseSensitive: true }), "target");
	assert.equal(suggest("form", options, { caseSensitive: true }), "from");
	assert.equal(suggest("frmxx", options, { caseSensitive: true }), undefined);
	assert.equal(suggest("Source", options, { caseSensitive: true }), "source");
});

test("suggest is silent for a word that is an option", () => {
	assert.equal(suggest("a", ["b", "a"], { caseSensitive: true }), undefined);
});

test("suggest answers in the case of the word", () => {
	for (const [word, expected] of [
		["CPY", "COPY"],
		["cpy", "copy"],
		["Cpy", "copy"],
	] as const) {
		assert.equal(suggest(word, ["COPY"], { caseSensitive: false }), expected);
	}
	assert.equal(withSuggestion("no X", "cpy", ["copy"]), "no X (did you mean copy?)");
});

test("suggest takes linear time for long words", () => {
	const long = "a".repeat(100_000);
	assert.equal(suggest(`${long}b`, [`b${long}`], { caseSensitive: true }), `b${long}`);
	assert.equal(suggest(long, ["x"], { caseSensitive: true }), undefined);
});
