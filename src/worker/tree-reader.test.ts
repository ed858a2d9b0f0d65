import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { readTreeDirectory } from "./tree-reader.ts";

test("readTreeDirectory with a deep pattern lets others have the thread while it looks, and ends when it is aborted", async (t) => {
	const root = mkdtempSync(`${tmpdir()}/slipway-tree-reader-`);
	t.after(() => rmSync(root, { recursive: true }));
	for (const dir of ["a", "b", "c"]) {
		mkdirSync(`${root}/${dir}/deep/er`, { recursive: true });
		for (const name of ["one", "two", "three"]) {
			writeFileSync(`${root}/${dir}/deep/er/${name}`, "");
		}
	}
	writeFileSync(`${root}/b/deep/er/wanted`, "");
	let now = 0;
	t.mock.method(performance, "now", () => {
		now += 10;
		return now;
	});
	let turns = 0;
	const count = (): void => {
		turns++;
		next = setImmediate(count);
	};
	let next = setImmediate(count);
	const aborted = new AbortController();
	const options = { includePattern: "*/deep/er/wanted", signal: aborted.signal };
	const found = await readTreeDirectory(root, "/", options);
	assert.deepEqual(
		found.map(({ name }) => name),
		["b"],
	);
	assert.ok(turns > 10, `${turns} turns`);
	const reading = readTreeDirectory(root, "/", options);
	aborted.abort(new Error("enough"));
	await assert.rejects(reading, /enough/);
	clearImmediate(next);
	await assert.rejects(
		readTreeDirectory(root, "/missing", { signal: new AbortController().signal }),
		/^SlipwayError: open \/missing: no such file or directory$/,
	);
});
