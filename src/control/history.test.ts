import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
	type BuildHistoryRecord,
	emptyBuildHistoryRecord,
	emptyBuildHistoryRequest,
} from "../api/generated/control.ts";
import { timestampOf } from "../api/timestamps.ts";
import { openDatabase } from "../database/database.ts";
import type { History, HistoryOptions } from "./history.ts";
import { filterRecords } from "./history-filter.ts";
import { openHistory } from "./history-queue.ts";
import { BuildLog } from "./service-log.ts";

const never = new AbortController().signal;

class HistoryBench implements Disposable {
	readonly directory = mkdtempSync(join(tmpdir(), "slipway-history-"));
	readonly database = openDatabase(":memory:");

	open(options: HistoryOptions = {}): Promise<History> {
		return openHistory({
			...options,
			database: this.database,
			root: join(this.directory, "history"),
			warn: (message) => assert.fail(message),
		});
	}

	[Symbol.dispose](): void {
		this.database[Symbol.dispose]();
		rmSync(this.directory, { recursive: true });
	}
}

async function record(history: History, ref: string): Promise<void> {
	const active = history.start({
		...emptyBuildHistoryRecord(),
		Ref: ref,
		CreatedAt: timestampOf(Date.now()),
	});
	using log = new BuildLog({ store: history.blobs });
	log.write({
		kind: "vertex",
		vertex: { digest: "sha256:1" as never, inputs: [], name: ref, cached: false },
	});
	log.end();
	await active.complete({
		error: undefined,
		log,
		metadata: new Map(),
		results: new Map(),
		documents: new Map(),
	});
}

async function refs(history: History): Promise<string[]> {
	const found: string[] = [];
	const request = { ...emptyBuildHistoryRequest(), EarlyExit: true };
	for await (const event of history.listen(request, { signal: never })) {
		found.push(event.record?.Ref ?? "");
	}
	return found;
}

async function blobCount(history: History): Promise<number> {
	let count = 0;
	for await (const _ of history.blobs.list()) {
		count++;
	}
	return count;
}

test("records outlive the process; what has no record is swept", async () => {
	using bench = new HistoryBench();
	{
		await using history = await bench.open();
		await record(history, "b1");
		await history.blobs.write(
			(async function* () {
				yield Buffer.from("left by a killed builder");
			})(),
			{ signal: never },
		);
	}
	await using history = await bench.open();
	assert.deepEqual(await refs(history), ["b1"]);
	assert.equal(await blobCount(history), 1);
	const found = history.find("b1");
	assert.ok(found);
	let messages = 0;
	for await (const _ of history.readLog(found, { signal: never })) {
		messages++;
	}
	assert.equal(messages, 1);
});

test("collect deletes what is both too old and too much, but nothing that is pinned", async () => {
	using bench = new HistoryBench();
	await using young = await bench.open({ maxEntries: 1, maxAgeMs: 60_000 });
	for (const ref of ["b1", "b2", "b3"]) {
		await record(young, ref);
	}
	await young.collect();
	assert.deepEqual(await refs(young), ["b1", "b2", "b3"]);
	await young.update("b1", { pinned: true });
	await using old = await bench.open({ maxEntries: 1, maxAgeMs: -60_000 });
	await old.collect();
	assert.deepEqual(await refs(old), ["b1", "b3"]);
	assert.equal(await blobCount(old), 2);
});

test("a build that somebody listens to is deleted when he has gone", async () => {
	using bench = new HistoryBench();
	await using history = await bench.open();
	await record(history, "b1");
	const stop = new AbortController();
	const listener = history.listen({ ...emptyBuildHistoryRequest(), Ref: "b1" }, { signal: stop.signal });
	const iterator = listener[Symbol.asyncIterator]();
	await iterator.next();
	await history.delete("b1");
	assert.equal(history.find("b1"), undefined);
	assert.equal(await blobCount(history), 1);
	stop.abort();
	await assert.rejects(iterator.next(), { code: "canceled" });
	assert.equal(await blobCount(history), 0);
	await assert.rejects(history.delete("b1"), { message: 'lease "ref_b1": not found' });
});

test("drain ends listeners when the last build has ended", async () => {
	using bench = new HistoryBench();
	await using history = await bench.open();
	const listener = history.listen(emptyBuildHistoryRequest(), { signal: never })[Symbol.asyncIterator]();
	const first = listener.next();
	history.drain();
	assert.equal((await first).done, true);
});

test("filterRecords: fields, times and the limit", () => {
	const base = emptyBuildHistoryRecord();
	const ended = (
		ref: string,
		created: number,
		more: Partial<BuildHistoryRecord> = {},
	): BuildHistoryRecord => ({
		...base,
		Ref: ref,
		CreatedAt: timestampOf(created),
		CompletedAt: timestampOf(created + 5000),
		...more,
	});
	const now = Date.now();
	const records = [
		ended("a", now - 3_600_000),
		ended("b", now - 60_000, { error: { code: 2, message: "bad", details: [] } }),
		ended("c", now, {
			error: { code: 1, message: "x: context canceled", details: [] },
			FrontendAttrs: new Map([["vcs:source", "https://example.com/r.git"]]),
		}),
	];
	const found = (filters: readonly string[], limit = 0): string =>
		filterRecords(records, { filters, limit })
			.map(({ Ref }) => Ref)
			.join("");
	assert.equal(found([]), "abc");
	assert.equal(found([], 2), "cb");
	assert.equal(found(["status==error", "status==completed"]), "ab");
	assert.equal(found(["status==canceled,ref==c"]), "c");
	assert.equal(found(["repository~=example"]), "c");
	assert.equal(found(["startedAt>10m"]), "bc");
	assert.equal(found(["completedAt<10m"]), "a");
	assert.equal(found(["duration>=5s"]), "abc");
	assert.equal(found(["duration>1h"]), "");
	assert.equal(found(["startedAt<=2020-01-01T00:00:00Z"]), "");
	assert.throws(() => found(["startedAt>x"]), { message: "invalid time x" });
	assert.throws(() => found(["duration>x"]), { message: "invalid duration x" });
	assert.throws(() => found([], -1), { message: "invalid limit -1" });
});
