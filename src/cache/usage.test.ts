import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { linkSync, utimesSync, writeFileSync } from "node:fs";
import { Readable } from "node:stream";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import type { SnapshotUsage } from "../snapshot/snapshot.ts";
import type { PruneOptions, UsageRecord } from "./cache.ts";
import { type CacheFixture, openFixture } from "./cache-fixture.ts";
import { RecordTable } from "./record-table.ts";
import { removeUnnamedBlobs } from "./usage.ts";

/** `du` of the snapshots, without the directory that they are in. */
function disk({ folder }: CacheFixture): number {
	const ofDirectory = (args: readonly string[]): number =>
		Number.parseInt(execFileSync("du", [...args, "--block-size=1", `${folder}/snapshots`]).toString(), 10);
	return ofDirectory(["-s"]) - 4096;
}

const sum = (records: readonly UsageRecord[]): number =>
	records.filter(({ recordType }) => recordType !== "internal").reduce((all, { bytes }) => all + bytes, 0);

async function pruned(
	fixture: CacheFixture,
	options: Partial<PruneOptions>,
): Promise<readonly UsageRecord[]> {
	return await Array.fromAsync(fixture.cache.prune({ all: true, signal: fixture.signal, ...options }));
}

for (const kind of ["overlayfs", "native"] as const) {
	test(`files that two records have are counted once, with the one that stays (${kind})`, async () => {
		await using fixture = await openFixture(kind);
		const { cache, signal } = fixture;
		const source = await cache.createMutable({
			description: "local source",
			recordType: "source.local",
			retain: true,
			signal,
		});
		fixture.write(source, (dir) => {
			writeFileSync(`${dir}/large`, "x".repeat(1_000_000));
			writeFileSync(`${dir}/own`, "y".repeat(300_000));
		});
		const from = `${source.directory()}/large`;
		const frozen = await source.freeze();
		// Measured before it is shared: that size must not be believed afterwards.
		await cache.usage({ signal });
		const target = await cache.createMutable({ description: "copy", signal });
		{
			using _sharing = frozen.shareFiles();
			linkSync(from, `${target.directory()}/large`);
		}
		const copy = await target.commit();
		const usage = await cache.usage({ signal });
		const sizeOf = (id: string): number => usage.find((each) => each.id === id)?.bytes ?? -1;
		assert.ok(sizeOf(copy.id) > 1_000_000);
		assert.ok(sizeOf(frozen.id) > 300_000 && sizeOf(frozen.id) < 400_000);
		assert.ok(Math.abs(sum(usage) - disk(fixture)) <= 8192, `${sum(usage)} ${disk(fixture)}`);
		await frozen.release();
		await copy.release();
		const isSource = ({ recordType }: UsageRecord): boolean => recordType === "source.local";
		for (const matches of [isSource, () => true]) {
			const before = disk(fixture);
			const freed = sum(await pruned(fixture, { matches }));
			assert.equal(freed, before - disk(fixture));
			assert.ok(freed > 300_000);
		}
		assert.deepEqual(await pruned(fixture, {}), []);
	});
}

for (const kind of ["overlayfs", "native"] as const) {
	test(`what was measured is not read again, and measured again when others get links to it (${kind})`, async () => {
		await using fixture = await openFixture(kind);
		const { pool, signal } = fixture;
		let walks = 0;
		const run = pool.run.bind(pool);
		pool.run = (job, input, options) => {
			walks += job === "cache/measure" ? 1 : 0;
			return run(job, input, options);
		};
		const walksOf = async (work: Promise<unknown>): Promise<number> => {
			const before = walks;
			await work;
			return walks - before;
		};
		// More than is walked on the calling thread.
		const names = Array.from({ length: 250 }, (_, index) => `f${index}`);
		const source = await fixture.make(undefined, (dir) => {
			for (const name of names) {
				writeFileSync(`${dir}/${name}`, name.repeat(1000));
			}
		});
		const copy = async (): Promise<string> => {
			const target = await fixture.cache.createMutable({ description: "copy", signal });
			using _sharing = source.shareFiles();
			const id = fixture.cache.snapshotOf(source.id);
			assert.ok(id !== undefined);
			const from = fixture.snapshotter.layer(id, []).dir;
			for (const name of names) {
				linkSync(`${from}/${name}`, `${target.directory()}/${name}`);
			}
			// Asked meanwhile it is not kept.
			await fixture.cache.usage({ signal });
			const made = await target.commit();
			await made.release();
			return made.id;
		};
		const assertCounted = async (): Promise<void> => {
			const said = sum(await fixture.cache.usage({ signal }));
			assert.ok(Math.abs(said - disk(fixture)) <= 8192, `${said} ${disk(fixture)}`);
		};
		assert.equal(await walksOf(assertCounted()), 1, "new");
		assert.equal(await walksOf(assertCounted()), 0);
		const first = await copy();
		assert.equal(await walksOf(assertCounted()), 2, "the source and its copy");
		assert.equal(await walksOf(assertCounted()), 0);
		await copy();
		assert.equal(await walksOf(assertCounted()), 2, "the source and its second copy");
		assert.equal(await walksOf(pruned(fixture, { keepBytes: 1e9 })), 0);
		await source.release();
		await fixture.reopen();
		assert.equal(await walksOf(assertCounted()), 0, "after a start");
		const asked = { keepDurationMs: 3_600_000, keepBytes: 0 };
		assert.equal(await walksOf(pruned(fixture, asked)), 0, "nothing is old enough");
		assert.equal(await walksOf(pruned(fixture, { keepBytes: 0, usedAtMostBytes: 0 })), 0);
		// What links are left frees nothing until the last goes.
		for (const matches of [({ id }: UsageRecord) => id === first, () => true]) {
			const before = disk(fixture);
			const freed = sum(await pruned(fixture, { matches }));
			assert.equal(freed, before - disk(fixture));
			await assertCounted();
		}
	});
}

test("a directory that stays writable was used when what was made of it was", async () => {
	await using fixture = await openFixture();
	const { cache, signal } = fixture;
	const source = await cache.createMutable({
		description: "x",
		recordType: "source.local",
		retain: true,
		signal,
	});
	const { id } = source;
	await (await source.freeze()).release();
	const used = (await cache.usage({ signal })).find((each) => each.id === id);
	assert.equal(used?.usageCount, 1);
	assert.ok((used.lastUsedAt ?? 0) > Date.now() - 60_000);
	assert.deepEqual(await pruned(fixture, { keepDurationMs: 3_600_000 }), []);
});

test("a blob of two records is freed with the second; blobs without a name go when they are old", async () => {
	await using fixture = await openFixture();
	const { cache, content, signal } = fixture;
	const layers = [];
	for (const parent of ["a", "b"]) {
		const base = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/${parent}`, parent));
		const top = await fixture.make(base, (dir) => {
			writeFileSync(`${dir}/same`, Buffer.alloc(200_000, "s"));
			for (const path of [`${dir}/same`, dir]) {
				utimesSync(path, 1, 1);
			}
		});
		layers.push(...(await top.blobs({ compression: "uncompressed", force: false, signal })).slice(1));
		await base.release();
		await top.release();
	}
	assert.equal(layers[0]?.descriptor.digest, layers[1]?.descriptor.digest);
	const blobs = (): number => usedBlobs(fixture.folder);
	const before = disk(fixture) + blobs();
	const freed = sum(await pruned(fixture, { matches: ({ parents }) => parents.length > 0 }));
	assert.equal(freed, before - disk(fixture) - blobs());
	assert.ok(freed > 600_000);

	const bytes = Buffer.from("nobody's");
	const digest = sha256(bytes);
	await content.write(Readable.from([bytes]), { signal });
	const removed: string[] = [];
	const remove = (olderThanMs: number): Promise<SnapshotUsage> =>
		removeUnnamedBlobs(
			{ table: new RecordTable(fixture.database), content, kept: new Set(), signal },
			{ olderThanMs, removed: (each) => removed.push(each) },
		);
	assert.equal((await remove(60_000)).inodes, 0);
	assert.equal((await remove(-60_000)).inodes > 0, true);
	assert.ok(removed.includes(digest));
	assert.equal(await content.info(digest), undefined);
	assert.deepEqual(
		(await cache.usage({ signal })).filter(({ id }) => id === "images"),
		[],
	);
});

function usedBlobs(folder: string): number {
	const output = execFileSync("du", ["-s", "--block-size=1", `${folder}/content/blobs/sha256`]).toString();
	return Number.parseInt(output, 10);
}

test("what no record has is shown and never pruned; hooks are told of blobs and of an end", async () => {
	await using fixture = await openFixture();
	const { cache, content, signal, keptBlobs } = fixture;
	const base = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/a`, "a".repeat(100_000)));
	const [blob] = await base.blobs({ compression: "uncompressed", force: false, signal });
	const digest = blob?.descriptor.digest;
	assert.ok(digest !== undefined);
	keptBlobs.add(digest);
	const others = (await cache.usage({ signal })).filter(({ recordType }) => recordType === "internal");
	assert.deepEqual(
		others.map(({ id, inUse, description }) => [id, inUse, description]),
		[["images", true, "blobs of named images and of the history"]],
	);
	await base.release();
	await pruned(fixture, {});
	assert.notEqual(await content.info(digest), undefined);
});
