import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSourceExcerpt } from "./source-excerpt.ts";

function excerpt(text: string, ...lines: readonly number[]): string {
	return formatSourceExcerpt({
		kind: "source",
		file: { filename: "Dockerfile", data: new TextEncoder().encode(text) },
		ranges: lines.map((line) => ({ start: { line, character: 0 }, end: { line, character: 0 } })),
	});
}

test("formatSourceExcerpt marks one line among four others", () => {
	const expected = [
		"Dockerfile:3",
		"--------------------",
		"   1 |     FROM alpine",
		"   2 |     ",
		"   3 | >>> RUN exit 1",
		"   4 |     ",
		"--------------------",
		"",
	].join("\n");
	assert.equal(excerpt("FROM alpine\n\nRUN exit 1\n", 3), expected);
});

test("formatSourceExcerpt shows less around several lines", () => {
	const text = Array.from({ length: 9 }, (_, index) => `l${index + 1}`).join("\n");
	const marks = excerpt(text, 4, 6).split("\n").slice(2, -2);
	assert.deepEqual(marks, [
		"   3 |     l3",
		"   4 | >>> l4",
		"   5 |     l5",
		"   6 | >>> l6",
		"   7 |     l7",
	]);
});

test("formatSourceExcerpt is empty for a place outside the file", () => {
	assert.equal(excerpt("a\nb", 3), "");
	assert.equal(excerpt("a\nb", 0), "");
	assert.equal(excerpt("a\nb"), "");
	assert.equal(excerpt("a", 1), "Dockerfile:1\n--------------------\n   1 | >>> a\n--------------------\n");
});
