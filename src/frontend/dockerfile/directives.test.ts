import assert from "node:assert/strict";
import { test } from "node:test";
import { detectCheck, detectSyntax } from "./directives.ts";

function syntax(text: string): readonly unknown[] | undefined {
	const found = detectSyntax(new TextEncoder().encode(text));
	return found && [found.ref, found.cmdline, found.ranges[0]?.start.line];
}

test("detectSyntax finds the directive in comments of two kinds and in JSON", () => {
	assert.deepEqual(syntax("# check=skip=all\n#Syntax = a/b:1  x \n"), ["a/b:1", "a/b:1  x", 2]);
	assert.deepEqual(syntax("// syntax=y"), ["y", "y", 1]);
	assert.deepEqual(syntax('{"syntax": "z w", "x": [1]}'), ["z w", "z w", 0]);
	assert.deepEqual(syntax("\ufeff#!/bin/sh\r\n# syntax=a\r\n"), ["a", "a", 2]);
});

test("detectSyntax finds none elsewhere", () => {
	for (const text of [
		"",
		"FROM a\n# syntax=b",
		" # syntax=b",
		"\n# syntax=b",
		'{"syntax":1}',
		"[]",
		"null",
		"# syntax=",
	]) {
		assert.equal(syntax(text), undefined, text);
	}
});

test("detectCheck returns the options up to the first blank", () => {
	assert.equal(
		detectCheck(new TextEncoder().encode("# syntax=a\n# check=skip=A;error=true x\n")),
		"skip=A;error=true",
	);
	assert.equal(detectCheck(new TextEncoder().encode("RUN a\n# check=skip=A")), undefined);
});
