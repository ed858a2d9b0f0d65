import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { encodedOf } from "../oci/digest.ts";
import type { ImmutableRef, RefId } from "./cache.ts";
import { type CacheFixture, openFixture } from "./cache-fixture.ts";

for (const kind of ["overlayfs", "native"] as const) {
	describe(`cache records, ${kind}`, () => {
		it("keep committed trees, also over a restart", async () => {
			await using fixture = await openFixture(kind);
			const base = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/base`, "1"));
			const top = await fixture.make(base, (dir) => {
				writeFileSync(`${dir}/top`, "2");
				rmSync(`${dir}/base`);
			});
			assert.match(top.id, /^[a-z0-9]{25}$/);
			assert.deepEqual(await fixture.read(top, (dir) => readdirSync(dir)), ["top"]);
			await fixture.reopen();
			const again = await fixture.cache.get(top.id);
			assert.ok(again);
			assert.deepEqual(await fixture.read(again, (dir) => readdirSync(dir)), ["top"]);
			assert.equal((await again.layers(fixture)).length, 2);
			assert.deepEqual(fixture.warnings, []);
		});

		it("lose what a killed process had not committed, and files without a record", async () => {
			await using fixture = await openFixture(kind);
			const { signal } = fixture;
			const base = await fixture.make(undefined, () => {});
			const unfinished = await fixture.cache.createMutable({ parent: base, description: "run", signal });
			const kept = await fixture.cache.createMutable({ retain: true, description: "mount", signal });
			fixture.write(kept, (dir) => writeFileSync(`${dir}/file`, "1"));
			await fixture.snapshotter.create({ id: "stray" as never, parents: [], signal });
			await fixture.content.write(chunks("stray"), { signal });
			const needed = await fixture.content.write(chunks("needed"), { signal });
			fixture.keptBlobs.add(needed.digest);
			await fixture.reopen({ kill: true });
			assert.equal(await fixture.cache.getMutable(unfinished.id), undefined);
			const again = await fixture.cache.getMutable(kept.id);
			assert.ok(again);
			fixture.write(again, (dir) => assert.equal(readFileSync(`${dir}/file`, "utf8"), "1"));
			assert.ok(await fixture.cache.get(base.id));
			await fixture.reopen();
			assert.equal((await fixture.snapshotter.list()).length, 2);
			assert.deepEqual(readdirSync(`${fixture.folder}/content/blobs/sha256`), [encodedOf(needed.digest)]);
		});

		it("go when files are gone, with a warning and all that stands on them", async () => {
			await using fixture = await openFixture(kind);
			const base = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/a`, ""));
			const top = await fixture.make(base, (dir) => writeFileSync(`${dir}/b`, ""));
			const [layer] = await base.layers(fixture);
			const ids = [base.id, top.id];
			await base.release();
			await top.release();
			await fixture.snapshotter.remove(layer?.snapshot as never);
			assert.equal(await fixture.cache.get(top.id), undefined);
			assert.match(fixture.warnings.join(), /files of cache record .* are gone/);
			assert.deepEqual(
				ids.map((id) => fixture.cache.has(id)),
				[false, false],
			);
			assert.deepEqual(await fixture.snapshotter.list(), []);
		});

		it("stack refs by merge, also layers that were made on others", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const base = await fixture.make(undefined, (dir) => {
				mkdirSync(`${dir}/etc`);
				writeFileSync(`${dir}/etc/base`, "");
				writeFileSync(`${dir}/gone`, "");
			});
			const step = await fixture.make(base, (dir) => {
				mkdirSync(`${dir}/new`);
				writeFileSync(`${dir}/new/mine`, "");
				rmSync(`${dir}/gone`);
			});
			const other = await fixture.make(undefined, (dir) => {
				mkdirSync(`${dir}/new`);
				writeFileSync(`${dir}/new/theirs`, "");
				writeFileSync(`${dir}/gone`, "");
			});
			const change = (await cache.diff(base, step, { description: "diff", signal })) as ImmutableRef;
			assert.deepEqual(await fixture.read(change, (dir) => readdirSync(dir)), ["new"]);
			const merged = (await cache.merge([other, change], { description: "merge", signal })) as ImmutableRef;
			await fixture.read(merged, (dir) => {
				assert.deepEqual(readdirSync(dir), ["new"]);
				assert.deepEqual(readdirSync(`${dir}/new`).sort(), ["mine", "theirs"]);
			});
			const onTop = await fixture.make(merged, (dir) => writeFileSync(`${dir}/new/third`, ""));
			const twice = (await cache.merge([onTop, base, onTop], { description: "m", signal })) as ImmutableRef;
			await fixture.read(twice, (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["etc", "new"]);
				assert.deepEqual(readdirSync(`${dir}/new`).sort(), ["mine", "theirs", "third"]);
			});
			await fixture.reopen();
			const again = (await fixture.cache.get(twice.id)) as ImmutableRef;
			await fixture.read(again, (dir) => assert.equal(readdirSync(`${dir}/new`).length, 3));
		});

		it("compare trees that share no layers", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const lower = await fixture.make(undefined, (dir) => {
				mkdirSync(`${dir}/d`);
				writeFileSync(`${dir}/d/gone`, "");
				writeFileSync(`${dir}/d/same`, "");
			});
			const upper = await fixture.make(undefined, (dir) => {
				mkdirSync(`${dir}/d`);
				writeFileSync(`${dir}/d/new`, "");
			});
			const change = (await cache.diff(lower, upper, { description: "diff", signal })) as ImmutableRef;
			assert.deepEqual(await fixture.read(change, (dir) => readdirSync(`${dir}/d`)), ["new"]);
			const again = (await cache.merge([lower, change], { description: "m", signal })) as ImmutableRef;
			assert.deepEqual(await fixture.read(again, (dir) => readdirSync(`${dir}/d`)), ["new"]);
			assert.equal(await cache.diff(undefined, undefined, { description: "none", signal }), undefined);
			assert.equal(await cache.diff(upper, upper, { description: "none", signal }), undefined);
			assert.equal((await cache.diff(undefined, upper, { description: "all", signal }))?.id, upper.id);
		});
	});
}

describe("cache handles", () => {
	async function frozen(fixture: CacheFixture): Promise<{ id: RefId; ref: ImmutableRef }> {
		const { cache, signal } = fixture;
		const source = await cache.createMutable({ retain: true, description: "local", signal });
		fixture.write(source, (dir) => writeFileSync(`${dir}/file`, "1"));
		source.setIndex("local:a");
		source.setMetadata("key", "value");
		return { id: source.id, ref: await source.freeze() };
	}

	it("are released once, and not used afterwards", async () => {
		await using fixture = await openFixture();
		const ref = await fixture.make(undefined, () => {});
		const clone = ref.clone();
		await ref.release();
		await ref.release();
		assert.throws(
			() => ref.clone(),
			(error) => hasCode(error, "failed-precondition"),
		);
		await clone.release();
		assert.ok(fixture.cache.has(ref.id));
	});

	it("take the files of an uncommitted ref with them", async () => {
		await using fixture = await openFixture();
		const { cache, signal } = fixture;
		const ref = await cache.createMutable({ description: "run", signal });
		await ref.release();
		assert.deepEqual(await fixture.snapshotter.list(), []);
		assert.equal(await cache.getMutable(ref.id), undefined);
	});

	it("find kept mutables by index, lock them, and discard them", async () => {
		await using fixture = await openFixture();
		const { cache, signal } = fixture;
		const ids: RefId[] = [];
		for (const createdAt of [1, 3, 2]) {
			const ref = await cache.createMutable({ retain: true, description: "mount", createdAt, signal });
			ref.setIndex("mount:a");
			ids.push(ref.id);
			await ref.release();
		}
		assert.deepEqual(cache.search("mount:a"), [ids[1], ids[2], ids[0]]);
		assert.deepEqual(cache.search("mount:b"), []);
		const ref = await cache.getMutable(ids[0] as RefId);
		await assert.rejects(cache.getMutable(ids[0] as RefId), (error) => hasCode(error, "failed-precondition"));
		await ref?.discard();
		assert.deepEqual(cache.search("mount:a"), [ids[1], ids[2]]);
	});

	it("freeze a local source until its next sync", async () => {
		await using fixture = await openFixture();
		const { cache } = fixture;
		const { id, ref } = await frozen(fixture);
		assert.notEqual(ref.id, id);
		assert.equal(await fixture.read(ref, (dir) => readFileSync(`${dir}/file`, "utf8")), "1");
		await assert.rejects(cache.getMutable(id), (error) => hasCode(error, "failed-precondition"));
		await ref.release();
		assert.ok(cache.has(ref.id));
		await fixture.reopen();
		assert.deepEqual(fixture.cache.search("local:a"), [id]);
		const next = await fixture.cache.getMutable(id);
		assert.equal(next?.getMetadata("key"), "value");
		assert.ok(!fixture.cache.has(ref.id));
		await next?.release();
		assert.equal((await fixture.snapshotter.list()).length, 1);
	});

	it("leave a local source's files to what is built on it", async () => {
		await using fixture = await openFixture();
		const { cache } = fixture;
		const { id, ref } = await frozen(fixture);
		const child = await fixture.make(ref, (dir) => writeFileSync(`${dir}/more`, ""));
		assert.equal(await cache.getMutable(id), undefined);
		await ref.release();
		await fixture.reopen();
		const again = (await fixture.cache.get(child.id)) as ImmutableRef;
		assert.deepEqual(await fixture.read(again, (dir) => readdirSync(dir).sort()), ["file", "more"]);
	});
});

describe("cache after the machine went down", () => {
	it("drops files that may not have reached the disk", async () => {
		await using fixture = await openFixture();
		const ref = await fixture.make(undefined, () => {});
		await ref.release();
		const kept = await fixture.cache.createMutable({
			retain: true,
			recordType: "exec.cachemount",
			description: "mount",
			signal: fixture.signal,
		});
		await kept.release();
		await fixture.reopen({ bootId: "next" });
		assert.ok(!fixture.cache.has(ref.id));
		assert.ok(await fixture.cache.getMutable(kept.id));
		const old = await fixture.make(undefined, () => {});
		await old.release();
		fixture.database.run("INSERT OR REPLACE INTO cache_state VALUES ('synced', ?)", String(Date.now() + 1));
		await fixture.reopen({ bootId: "last" });
		assert.ok(fixture.cache.has(old.id));
	});
});

async function* chunks(text: string): AsyncGenerator<Uint8Array, void> {
	yield Buffer.from(text);
}
