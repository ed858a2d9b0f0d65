import assert from "node:assert/strict";
import { test } from "node:test";
import type { ThreadPool } from "../async/pool.ts";
import { createArchiver } from "./archiver.ts";

test("Archiver.tar: a job that fails before it sends anything ends the stream with its error", async () => {
	const pool: Pick<ThreadPool, "run"> = { run: () => Promise.reject(new Error("its program is gone")) };
	const archiver = createArchiver(pool as ThreadPool);
	await assert.rejects(async () => {
		for await (const _ of archiver.tar([], { signal: AbortSignal.timeout(60_000) })) {
			// Nothing comes.
		}
	}, /its program is gone/);
});
