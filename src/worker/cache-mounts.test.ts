import assert from "node:assert/strict";
import { test } from "node:test";
import type { CacheManager, MutableRef } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type CacheMountRequest, createCacheMounts } from "./cache-mounts.ts";

const signal = new AbortController().signal;

/** Mutable records that are found by an index, one owner at a time: all that cache mounts need of a cache. */
function fakeCache(): {
	readonly cache: CacheManager;
	readonly records: Map<string, { index: string; taken: boolean }>;
} {
	const records = new Map<string, { index: string; taken: boolean }>();
	let count = 0;
	const refOf = (id: string): MutableRef => {
		const record = records.get(id);
		assert.ok(record !== undefined && !record.taken);
		record.taken = true;
		const free = async (): Promise<void> => {
			record.taken = false;
		};
		return {
			id,
			setIndex: (index: string) => {
				record.index = index;
			},
			release: free,
			discard: async () => void records.delete(id),
		} as unknown as MutableRef;
	};
	const cache = {
		search: (index: string) => [...records.keys()].filter((id) => records.get(id)?.index === index).reverse(),
		getMutable: async (id: string) => {
			const record = records.get(id);
			if (record?.taken === true) {
				throw new SlipwayError("failed-precondition", "locked");
			}
			return record === undefined ? undefined : refOf(id);
		},
		createMutable: async () => {
			const id = `r${++count}`;
			records.set(id, { index: "", taken: false });
			return refOf(id);
		},
	};
	return { cache: cache as unknown as CacheManager, records };
}

function request(
	sharing: CacheMountRequest["sharing"],
	more: Partial<CacheMountRequest> = {},
): CacheMountRequest {
	return { id: "m", base: undefined, sharing, description: "", signal, ...more };
}

test("shared: all at once have one directory, the next has it too", async () => {
	const mounts = createCacheMounts(fakeCache().cache);
	const [one, two] = await Promise.all([
		mounts.acquire(request("shared")),
		mounts.acquire(request("shared")),
	]);
	assert.equal(one.ref, two.ref);
	await one[Symbol.asyncDispose]();
	await one[Symbol.asyncDispose]();
	const three = await mounts.acquire(request("shared"));
	assert.equal(three.ref, two.ref);
	await two[Symbol.asyncDispose]();
	await three[Symbol.asyncDispose]();
	const later = await mounts.acquire(request("shared"));
	assert.equal(later.ref.id, one.ref.id);
	await later[Symbol.asyncDispose]();
});

test("private: others get another, and later either again", async () => {
	const { cache, records } = fakeCache();
	const mounts = createCacheMounts(cache);
	const one = await mounts.acquire(request("private"));
	const two = await mounts.acquire(request("private"));
	assert.notEqual(one.ref.id, two.ref.id);
	await one[Symbol.asyncDispose]();
	const three = await mounts.acquire(request("private"));
	assert.equal(three.ref.id, one.ref.id);
	await two[Symbol.asyncDispose]();
	await three[Symbol.asyncDispose]();
	assert.equal(records.size, 2);
});

test("locked: one after the other, woken at once, and not for ever", async () => {
	const mounts = createCacheMounts(fakeCache().cache);
	const order: number[] = [];
	await Promise.all(
		Array.from({ length: 8 }, async (_, index) => {
			await using hold = await mounts.acquire(request("locked"));
			order.push(index);
			assert.equal(hold.ref.id, "r1");
			await new Promise((resolve) => setImmediate(resolve));
			order.push(index);
		}),
	);
	for (let at = 0; at < order.length; at += 2) {
		assert.equal(order[at], order[at + 1], "nobody in between");
	}
	await using _held = await mounts.acquire(request("locked"));
	const controller = new AbortController();
	const waiting = mounts.acquire(request("locked", { signal: controller.signal }));
	setImmediate(() => controller.abort(new Error("enough")));
	await assert.rejects(waiting, /enough/);
});

test("locked waits for one who shares, and who is private gets another", async () => {
	const mounts = createCacheMounts(fakeCache().cache);
	const shared = await mounts.acquire(request("shared"));
	const locked = mounts.acquire(request("locked"));
	await using own = await mounts.acquire(request("private"));
	assert.notEqual(own.ref.id, shared.ref.id);
	await shared[Symbol.asyncDispose]();
	await using hold = await locked;
	assert.equal(hold.ref.id, shared.ref.id);
});

test("fresh: once for a build; who uses the old one keeps it, and it goes with him", async () => {
	const { cache, records } = fakeCache();
	const mounts = createCacheMounts(cache);
	const build = {};
	await (await mounts.acquire(request("shared")))[Symbol.asyncDispose]();
	const first = await mounts.acquire(request("shared", { freshFor: build }));
	assert.equal(first.ref.id, "r2");
	assert.equal(records.has("r1"), false);
	await first[Symbol.asyncDispose]();
	const second = await mounts.acquire(request("shared", { freshFor: build }));
	assert.equal(second.ref.id, "r2", "the next step of the build has what the first left");
	const other = await mounts.acquire(request("locked", { freshFor: {} }));
	assert.equal(other.ref.id, "r3", "another build waits for nobody");
	await second[Symbol.asyncDispose]();
	assert.equal(records.has("r2"), false);
	await other[Symbol.asyncDispose]();
	await using last = await mounts.acquire(request("shared"));
	assert.equal(last.ref.id, "r3");
});
