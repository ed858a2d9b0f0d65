import assert from "node:assert/strict";
import { test } from "node:test";
import { formatGitFragment, type GitRef, parseGitRef } from "./git-ref.ts";

const none = {
	ref: "",
	checksum: "",
	subdir: "",
	looksLocal: false,
	unencrypted: false,
	fetchByCommit: false,
};

test("parseGitRef reads every form", () => {
	const cases: readonly (readonly [string, Partial<GitRef> & Pick<GitRef, "remote" | "shortName">])[] = [
		["https://h/foo/bar.git", { remote: "https://h/foo/bar.git", shortName: "bar" }],
		[
			"http://h/bar.git#v1:a/../b/",
			{ remote: "http://h/bar.git", shortName: "bar", ref: "v1", subdir: "b", unencrypted: true },
		],
		["git://h/bar", { remote: "git://h/bar", shortName: "bar", unencrypted: true }],
		["ssh://git@h:22/bar.git#:sub", { remote: "ssh://git@h:22/bar.git", shortName: "bar", subdir: "sub" }],
		[
			"git@h:foo/bar.git?branch=m#:x",
			{ remote: "git@h:foo/bar.git", shortName: "bar", ref: "refs/heads/m", subdir: "x" },
		],
		["github.com/foo/bar", { remote: "github.com/foo/bar", shortName: "bar", looksLocal: true }],
		[
			"https://h/bar.git?tag=v1&subdir=s&commit=abc",
			{ remote: "https://h/bar.git", shortName: "bar", ref: "refs/tags/v1", subdir: "s", checksum: "abc" },
		],
		[
			"https://h/bar.git?submodules&keep-git-dir=0&mtime=commit&fetch-by-commit",
			{
				remote: "https://h/bar.git",
				shortName: "bar",
				submodules: true,
				keepGitDir: false,
				mtime: "commit",
				fetchByCommit: true,
			},
		],
		["https://u:p%40@h/a%20b.git", { remote: "https://u:p%40@h/a%20b.git", shortName: "a%20b" }],
	];
	for (const [text, expected] of cases) {
		assert.deepEqual(parseGitRef(text), { ...none, ...expected }, text);
	}
});

test("parseGitRef refuses what is no repository", () => {
	for (const text of [
		"./a.git",
		"../a.git",
		"https://h/a",
		"ftp://h/a.git",
		"a/b",
		"",
		"ssh://h:path/a.git",
		"https://h/a.git\n",
		"https://h/%zz.git",
	]) {
		assert.equal(parseGitRef(text), undefined, text);
	}
});

test("parseGitRef explains a query that cannot be", () => {
	for (const [query, message] of [
		["ref=", 'query "ref" has no value'],
		["ref=a&ref=b", 'query "ref" has multiple values'],
		["x=1", 'unexpected query "x"'],
		["ref=a&tag=b", 'ref conflicts: "a" vs "refs/tags/b"'],
		["tag=a&branch=b", "branch conflicts with tag"],
		["submodules=maybe", 'invalid submodules value: "maybe"'],
		["mtime=now", 'invalid mtime value: "now" (must be "checkout" or "commit")'],
	] as const) {
		assert.throws(
			() => parseGitRef(`https://h/a.git?${query}`),
			{ code: "invalid-argument", message },
			query,
		);
	}
	assert.throws(() => parseGitRef("https://h/a.git?subdir=x#m:y"), {
		message: 'subdir conflicts: "y" vs "x"',
	});
});

test("formatGitFragment writes the old form", () => {
	assert.equal(
		formatGitFragment("https://h/a.git?tag=v1&subdir=/x/", { withSubdir: true }),
		"https://h/a.git#refs/tags/v1:x",
	);
	assert.equal(formatGitFragment("https://h/a.git#m:x", { withSubdir: false }), "https://h/a.git#m");
	assert.equal(formatGitFragment("no git", { withSubdir: true }), "no git");
});
