import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { CacheManager, PruneOptions } from "../cache/cache.ts";
import { openDatabase } from "../database/database.ts";
import type { Engine } from "./engine.ts";
import { collectOccasionally } from "./occasional-collection.ts";

const hour = 3_600_000;

test("collectOccasionally looks once a day, each ten minutes on a full disk, and never on a new one", async (t) => {
	const root = mkdtempSync(`${tmpdir()}/slipway-collect-`);
	t.after(() => rmSync(root, { recursive: true }));
	using database = openDatabase(`${root}/metadata.db`);
	const pruned: PruneOptions[] = [];
	const cache = {
		usage: async () => [],
		prune(options: PruneOptions) {
			pruned.push(options);
			return Readable.from([]);
		},
	} as unknown as CacheManager;
	const engine = { root, parts: { cache, database } } as unknown as Engine;
	let freeBytes = 90e9;
	const warnings: string[] = [];
	const rulesAt = async (now: number): Promise<number> => {
		pruned.length = 0;
		await collectOccasionally(engine, {
			now,
			disk: () => ({ totalBytes: 100e9, freeBytes }),
			signal: new AbortController().signal,
			warn: (message) => warnings.push(message),
		});
		return pruned.length;
	};
	assert.equal(await rulesAt(0), 0, "new");
	assert.equal(await rulesAt(23 * hour), 0);
	assert.ok((await rulesAt(25 * hour)) > 0, "a day later");
	assert.equal(await rulesAt(26 * hour), 0);
	freeBytes = 10e9;
	assert.ok((await rulesAt(26 * hour)) > 0, "nearly full");
	assert.equal(await rulesAt(26 * hour + 60_000), 0);
	assert.ok((await rulesAt(26 * hour + 660_000)) > 0);
	assert.ok((await rulesAt(hour)) > 0, "the clock was set back");
	cache.usage = () => Promise.reject(new Error("no disk"));
	assert.equal(await rulesAt(100 * hour), 1);
	assert.deepEqual(warnings, ["garbage collection failed: no disk"]);
});
