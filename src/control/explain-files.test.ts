import assert from "node:assert/strict";
import {
	chmodSync,
	linkSync,
	mkdirSync,
	mkdtempSync,
	rmSync,
	symlinkSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { CopyAction, FileOp } from "../llb/op.ts";
import { differences, listingDifferences, listingOf, sourcePath } from "./explain-files.ts";

test("differences are of type, mode, link and content, not of times", (t) => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-explain-é-"));
	t.after(() => rmSync(dir, { recursive: true }));
	for (const side of ["a", "b"]) {
		mkdirSync(join(dir, side, "sub/gone"), { recursive: true });
		for (const name of ["same", "sub/touched", "longer", "flipped", "mode", "typed", "ünï"]) {
			writeFileSync(join(dir, side, name), name);
		}
		symlinkSync(side, join(dir, side, "link"));
	}
	const [a, b] = [join(dir, "a"), join(dir, "b")];
	writeFileSync(join(a, "linked"), "x");
	linkSync(join(a, "linked"), join(b, "linked"));
	utimesSync(join(b, "sub/touched"), 1, 1);
	writeFileSync(join(b, "longer"), "longer still");
	writeFileSync(join(b, "flipped"), "FLIPPED");
	chmodSync(join(b, "mode"), 0o755);
	rmSync(join(b, "typed"));
	mkdirSync(join(b, "typed"));
	writeFileSync(join(a, "sub/gone/f"), "");
	rmSync(join(b, "sub/gone"), { recursive: true });
	writeFileSync(join(b, "ünï2"), "");
	const { files, total } = differences(a, b);
	assert.deepEqual(
		files.map(({ path, change }) => `${change} ${path}`),
		[
			"changed /flipped",
			"changed /link",
			"changed /longer",
			"changed /mode",
			"removed /sub/gone/f",
			"changed /typed",
			"added /ünï2",
		],
	);
	assert.equal(total, files.length);
});

test("sourcePath says where a file was copied from", () => {
	const from = (path: string, ...copies: readonly (readonly [src: string, dest: string])[]): string =>
		sourcePath(
			{
				kind: "file",
				inputs: [],
				filters: [],
				actions: copies.map(([src, dest]) => ({ kind: "copy", src, dest }) as CopyAction),
			} satisfies FileOp,
			path,
		);
	assert.equal(from("/app/lib/x.ts", ["/src", "/app/"]), "src/lib/x.ts");
	assert.equal(from("/app/x", ["/", "/app"]), "x");
	assert.equal(from("/b", ["/deep/a", "/b"]), "deep/a");
	assert.equal(from("/all", ["/made/all", "/"], ["/who", "/"]), "made/all");
	assert.equal(from("/d/a.txt", ["/texts/*.txt", "/d/"]), "texts/a.txt");
	assert.equal(from("/elsewhere", ["/a", "/b/"]), "elsewhere");
});

test("listings show what was added, changed and removed below a path", (t) => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-explain-"));
	t.after(() => rmSync(dir, { recursive: true }));
	mkdirSync(join(dir, "src/deep"), { recursive: true });
	for (const name of ["src/a", "src/deep/b", "srcs", "other"]) {
		writeFileSync(join(dir, name), name);
	}
	const before = listingOf(dir) ?? {};
	assert.deepEqual(Object.keys(before).sort(), ["/other", "/src/a", "/src/deep/b", "/srcs"]);
	rmSync(join(dir, "src/a"));
	for (const name of ["src/deep/b", "src/new", "srcs", "other"]) {
		writeFileSync(join(dir, name), "changed");
	}
	const after = listingOf(dir) ?? {};
	const changes = (below: string): readonly string[] =>
		listingDifferences(before, after, below).files.map(({ path, change }) => `${change} ${path}`);
	assert.deepEqual(changes("/src"), ["removed src/a", "changed src/deep/b", "added src/new"]);
	assert.deepEqual(changes("/srcs"), ["changed srcs"]);
	assert.equal(listingDifferences(before, after, "/").total, 5);
	for (let at = 0; at <= 5000; at++) {
		writeFileSync(join(dir, `${at}`), "");
	}
	assert.equal(listingOf(dir), undefined);
});
