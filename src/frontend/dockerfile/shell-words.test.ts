// biome-ignore-all lint/suspicious/noTemplateCurlyInString: shell words are what is tested
import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "../../errors/errors.ts";
import {
	emptyEnvironment,
	expandWord,
	mapEnvironment,
	processWord,
	type ShellLexer,
	splitWords,
} from "./shell-words.ts";

const lexer: ShellLexer = { escapeToken: "\\" };
const env = mapEnvironment(
	new Map([
		["a", "one"],
		["empty", ""],
		["spaces", "x  y"],
		["path", "/usr/local/lib"],
		["lines", "a1\nb1"],
		["한", "韓"],
	]),
);

function expand(word: string): string {
	return expandWord(lexer, word, env);
}

function reason(word: string): string {
	return (processWord(lexer, word, env).error?.message ?? "").replace(/^failed to process ".*": /s, "");
}

test("expandWord replaces variables and removes quotes", () => {
	for (const [word, expected] of [
		["$a ${a}b $ab", "one oneb "],
		["'$a' \"$a\" \"'$a'\"", "$a one 'one'"],
		['\\$a \\" "\\$a \\" \\a" \'\\\'', '$a " $a " \\a \\'],
		["$ $. a$", "$ $. a$"],
		["$1 $10x $* $@ $$x", " x   x"],
		["$한 ${한}", "韓 韓"],
		["tail\\", "tail"],
		["\ufeff\ufeff", "\ufeff"],
	] as const) {
		assert.equal(expand(word), expected, word);
	}
});

test("expandWord applies modifiers", () => {
	for (const [word, expected] of [
		["${a:-x} ${u:-x} ${empty:-x} ${empty-x} ${u-}", "one x x  "],
		["${a:+x} ${u:+x} ${empty:+x} ${empty+x}", "x   x"],
		["${a:?m} ${empty?m}", "one "],
		['${u:-${a:-b}} ${u:-"a b"} ${u:-\\}}', "one a b }"],
		["${path#*/} ${path##*/} ${path%/*} ${path%%/*}", "usr/local/lib lib /usr/local "],
		["${path#/???} ${a%?} ${a#\\*}", "/local/lib on one"],
		["${path/\\//-} ${path//\\//-} ${path//l*l/L}", "-usr/local/lib -usr-local-lib /usr/Lib"],
		["${lines//?1/[\\$0]}", "[\\a1]\n[\\b1]"],
		["${a//*/x} ${a//o/}", "x ne"],
		["${lines%%1*} ${lines#*1}", "a1\nb \nb1"],
	] as const) {
		assert.equal(expand(word), expected, word);
	}
});

test("expandWord says what is wrong", () => {
	for (const [word, expected] of [
		["'a", "unexpected end of statement while looking for matching single-quote"],
		['"a', "unexpected end of statement while looking for matching double-quote"],
		["${", "syntax error: missing '}'"],
		["${a:-b", "syntax error: missing '}'"],
		["${a/b", "syntax error: missing '/' in ${}"],
		["${a/b/c", "syntax error: missing '}'"],
		["${} x", "syntax error: bad substitution"],
		["${a", "unsupported modifier (\ufffd) in substitution"],
		["${a=b}", "unsupported modifier (=) in substitution"],
		["${a:=b}", "unsupported modifier (:=) in substitution"],
		["${a:#b}", "unsupported modifier (:#) in substitution"],
		["${u?}", "u: is not allowed to be unset"],
		["${empty:?}", "empty: is not allowed to be empty"],
		["${u:?no $a} ", "u: no one"],
		["${a#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"],
	] as const) {
		assert.equal(reason(word), expected, word);
	}
	assert.equal(
		processWord(lexer, 'a"\n', env).error?.message,
		'failed to process "a\\"\\n": unexpected end of statement while looking for matching double-quote',
	);
});

test("processWord names what it looked up, on error too", () => {
	const { matched, unmatched } = processWord(lexer, "$a ${u:-$v} ${a", env);
	assert.deepEqual([...matched], ["a"]);
	assert.deepEqual([...unmatched], ["v", "u"]);
});

test("splitWords splits outside quotes, and what variables bring", () => {
	for (const [word, expected] of [
		["a b\tc", ["a", "b", "c"]],
		["$spaces \"$spaces\" 'a b'\\ c", ["x", "y", "x  y", "a b c"]],
		["80 $empty 90", ["80", "90"]],
		['"" a', ["a"]],
		["cat << EOF", ["cat", "<< EOF"]],
		// The quirk of BuildKit's shared buffer.
		["a${u:-b}", ["b"]],
	] as const) {
		assert.deepEqual(splitWords(lexer, word, env), expected, word);
	}
});

test("the lexer's modes keep what they name", () => {
	const word = "'$a' \"\\$a\" \\x $u ${u:-b}";
	const results = [
		{ rawQuotes: true },
		{ rawEscapes: true },
		{ skipProcessQuotes: true },
		{ skipUnsetEnv: true },
	].map((mode) => expandWord({ ...lexer, ...mode }, word, env));
	assert.deepEqual(results, [
		"'$a' \"$a\" x  b",
		"$a \\$a \\x  b",
		"'one' \"$a\" x  b",
		"$a $a x $u ${u:-b}",
	]);
	assert.equal(expandWord({ escapeToken: "`" }, "`$a \\$a", env), "$a \\one");
});

test("expandWord stays within its bounds for hostile words", () => {
	const deep = 100_000;
	assert.equal(expandWord(lexer, `${"${u:-".repeat(deep)}x${"}".repeat(deep)}`, emptyEnvironment), "x");
	assert.equal(reason("${u:-".repeat(deep)), "syntax error: missing '}'");
	const value = mapEnvironment(new Map([["v", "a".repeat(60_000)]]));
	assert.equal(expandWord(lexer, `\${v//${"*a".repeat(10_000)}*b/x}`, value).length, 60_000);
	assert.equal(expandWord(lexer, `\${v%%${"*a".repeat(10_000)}}`, value), "");
	for (const word of [
		`\${v//a?${"a".repeat(30_000)}b/x}`,
		`\${v//a/${"b".repeat(1000)}}`,
		"$v".repeat(1000),
	]) {
		assert(hasCode(processWord(lexer, word, value).error, "resource-exhausted"), word.slice(0, 20));
	}
});
