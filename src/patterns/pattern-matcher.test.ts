import assert from "node:assert/strict";
import { test } from "node:test";
import { cleanPath } from "./clean-path.ts";
import { followLinks, type LinkTree } from "./follow-links.ts";
import { compileGlob } from "./glob.ts";
import { parseIgnoreFile } from "./ignore-file.ts";
import { createPathFilter } from "./path-filter.ts";
import { createPatternMatcher } from "./pattern-matcher.ts";

/** Pattern, path, expected: the dialect of moby's patternmatcher. */
const globs: readonly [string, string, boolean][] = [
	["**", "file", true],
	["**", "dir/file", true],
	["**/", "file", true],
	["**/**", "dir/file", true],
	["dir/**", "dir/file", true],
	["dir/**", "dir/dir2/file", true],
	["dir/**", "dirx", false],
	["**/dir2/*", "dir/dir2/file", true],
	["**/dir2/*", "dir/dir2/dir2/file", true],
	["**file", "dir/file", true],
	["**file", "xfile", true],
	["**/file", "dir/dir/file", true],
	["**/file", "file", true],
	["**/file*", "dir/dir/file.txt", true],
	["**/file*txt", "dir/dir/file.txt", true],
	["**/file*.txt*", "dir/dir/file.txt", true],
	["**/**/*.txt", "dir/dir/file.txt", true],
	["**/**/*.txt2", "dir/dir/file.txt", false],
	["**/*.txt", "file.txt", true],
	["a**/*.txt", "a/file.txt", true],
	["a**/*.txt", "a/dir/file.txt", true],
	["a/**/*.txt", "a/file.txt", true],
	["a/*.txt", "a/dir/file.txt", false],
	["a/**/b", "ab", false],
	["a[b-d]e", "ace", true],
	["a[b-d]e", "aae", false],
	["a[^b]e", "abe", false],
	["a[^b]e", "aze", true],
	["a\\*b", "a*b", true],
	["a\\*b", "axb", false],
	["*.go", ".go", true],
	["a?c", "a/c", false],
	["?", "\u{1f600}", true],
	["abc.def", "abcdef", false],
	["*a**b", "aab", true],
	["*a**b", "aab/b", true],
];

for (const [pattern, path, expected] of globs) {
	test(`compileGlob: ${pattern} ${expected ? "matches" : "does not match"} ${path}`, () => {
		assert.equal(compileGlob(pattern).matches(path), expected);
	});
}

test("compileGlob takes no exponential time for many stars", () => {
	assert.equal(compileGlob(`${"*a".repeat(30)}b`).matches("a".repeat(2000)), false);
});

test("createPatternMatcher: the last match wins and directories match what is below", () => {
	const matcher = createPatternMatcher(["docs", "!docs/README.md", "*.log"]);
	assert.equal(matcher.matches("docs/guide/index.md"), true);
	assert.equal(matcher.matches("docs/README.md"), false);
	assert.equal(matcher.matches("a/b.log"), false);
	assert.equal(matcher.matches("b.log"), true);
	assert.throws(() => createPatternMatcher(["!"]), /illegal exclusion pattern: "!"/);
	assert.throws(() => createPatternMatcher(["[a"]), /syntax error in pattern "\[a"/);
});

test("matchesWithParent gives what matches gives", () => {
	const matcher = createPatternMatcher(["*", "!a", "a/*/c", "!a/b/c/d"]);
	for (const path of ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/e", "x", "x/y"]) {
		let state: ReturnType<typeof matcher.matchesWithParent> | undefined;
		const parts = path.split("/");
		for (let i = 1; i <= parts.length; i++) {
			state = matcher.matchesWithParent(parts.slice(0, i).join("/"), state);
		}
		assert.equal(state?.matched, matcher.matches(path), path);
	}
});

test("createPathFilter cuts directories that can have nothing to show", () => {
	const filter = createPathFilter({
		include: ["src/app"],
		exclude: ["src/app/node_modules", "!src/app/node_modules/keep"],
	});
	const src = filter.visit("src", true, undefined);
	assert.deepEqual([src.shown, src.descend], [false, true]);
	assert.equal(filter.visit("docs", true, undefined).descend, false);
	const app = filter.visit("src/app", true, src);
	const modules = filter.visit("src/app/node_modules", true, app);
	assert.deepEqual([modules.shown, modules.descend], [false, true]);
	assert.equal(filter.visit("src/app/node_modules/x", true, modules).descend, false);
	assert.equal(filter.visit("src/app/node_modules/keep", false, modules).shown, true);
});

test("parseIgnoreFile drops comments, marks and leading slashes", () => {
	const text = "\ufeff/a\n#no\n  b/../c \n\n! /d\n";
	assert.deepEqual(parseIgnoreFile(new TextEncoder().encode(text)), ["a", "c", "!d"]);
});

test("cleanPath is Go's path.Clean", () => {
	const table = {
		"": ".",
		"a//b/./c/..": "a/b",
		"/../a": "/a",
		"../../a": "../../a",
		"/": "/",
		"a/../..": "..",
	};
	for (const [path, expected] of Object.entries(table)) {
		assert.equal(cleanPath(path), expected);
	}
});

test("followLinks brings links and what they lead to, and stays in the tree", () => {
	const links: Record<string, string> = {
		link: "dir/file",
		"dir/up": "../other/x",
		"dir/out": "../../../etc",
		loop: "loop",
		dlink: "dir",
	};
	const tree: LinkTree = {
		readLink: (path) => links[path],
		readDirectory: (path) => (path === "." ? ["link", "loop", "plain"] : undefined),
	};
	assert.deepEqual(followLinks(tree, ["link"]), ["dir/file", "link"]);
	assert.deepEqual(followLinks(tree, ["dlink/up"]), ["dir/up", "dlink", "other/x"]);
	assert.deepEqual(followLinks(tree, ["dir/out"]), ["dir/out", "etc"]);
	assert.deepEqual(followLinks(tree, ["l*"]), ["dir/file", "l*", "loop"].sort());
	assert.equal(followLinks(tree, ["/"]), undefined);
});
