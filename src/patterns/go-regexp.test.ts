import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { compileGoRegExp } from "./go-regexp.ts";

/** Expected values are those of Go's `regexp`. */
suite("regular expressions of Go", () => {
	test("matches, leftmost and first", () => {
		const cases: readonly (readonly [string, string, readonly (string | undefined)[] | undefined])[] = [
			["(a|ab)(c|bcd)(d*)", "abcd", ["abcd", "a", "bcd", ""]],
			["(?i)ALPINE", "my alpine", ["alpine"]],
			["(?P<n>[a-z]+):(?<v>\\d+)", "Alpine:12", ["lpine:12", "lpine", "12"]],
			["a{2,3}?", "aaa", ["aa"]],
			["(?U)a+", "aaa", ["a"]],
			["(|a)*", "aaa", ["", ""]],
			["(a*)+", "b", ["", ""]],
			["[^[:^digit:]]+", "a12", ["12"]],
			["[]a]+", "x]a", ["]a"]],
			["\\p{Greek}+", "éαβ", ["αβ"]],
			["\\Qa.b\\E+", "axb a.bb", ["a.bb"]],
			["(?m)^b$", "a\nb\nc", ["b"]],
			[".+", "a\nb", ["a"]],
			["a\\z", "a\n", undefined],
			["\\bfoo\\b", "food foo", ["foo"]],
			["(?i)a(?-i)b", "AB Ab", ["Ab"]],
			["(a)|(b)", "b", ["b", undefined, "b"]],
			["\\x41\\x{42}\\103", "ABC", ["ABC"]],
		];
		for (const [source, text, groups] of cases) {
			assert.deepEqual(compileGoRegExp(source).find(text)?.groups, groups, source);
		}
	});

	test("what Go does not know is an error in its words", () => {
		const cases: readonly (readonly [string, string])[] = [
			["(?=x)", "invalid or unsupported Perl syntax: `(?=`"],
			["(", "missing closing ): `(`"],
			["a)", "unexpected ): `a)`"],
			["*a", "missing argument to repetition operator: `*`"],
			["a**", "invalid nested repetition operator: `**`"],
			["a{1001}", "invalid repeat count: `{1001}`"],
			["(a{100}){100}", "invalid repeat count: `{100}`"],
			["[z-a]", "invalid character class range: `z-a`"],
			["[", "missing closing ]: `[`"],
			["\\1", "invalid escape sequence: `\\1`"],
			["\\", "trailing backslash at end of expression: ``"],
			["\\p{Nope}", "invalid character class range: `\\p{Nope}`"],
		];
		for (const [source, message] of cases) {
			assert.throws(() => compileGoRegExp(source), { code: "invalid-argument", message }, source);
		}
	});

	test("takes time in proportion to expression and text", () => {
		assert.equal(compileGoRegExp("^(a+)+$").test(`${"a".repeat(5000)}b`), false);
		assert.equal(compileGoRegExp("(a?){30}a{30}").test("a".repeat(30)), true);
		assert.throws(() => compileGoRegExp("a".repeat(5000)), /expression too large/);
		assert.throws(() => compileGoRegExp(`${"a?".repeat(900)}`).test("a".repeat(20_000)), {
			code: "resource-exhausted",
		});
	});
});
