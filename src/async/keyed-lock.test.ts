import assert from "node:assert/strict";
import { test } from "node:test";
import { createKeyedLock } from "./keyed-lock.ts";

const signal = new AbortController().signal;

test("createKeyedLock runs one at a time per key, in order", async () => {
	const lock = createKeyedLock();
	const seen: string[] = [];
	const gate = Promise.withResolvers<void>();
	const first = lock.run("a", { signal }, async () => {
		await gate.promise;
		seen.push("first");
	});
	const second = lock.run("a", { signal }, async () => void seen.push("second"));
	await lock.run("b", { signal }, async () => void seen.push("other"));
	gate.resolve();
	await Promise.all([first, second]);
	assert.deepEqual(seen, ["other", "first", "second"]);
});

test("createKeyedLock: who is aborted while waiting leaves the line, and those behind still wait", async () => {
	const lock = createKeyedLock();
	const gate = Promise.withResolvers<void>();
	const seen: string[] = [];
	const first = lock.run("a", { signal }, () => gate.promise.then(() => void seen.push("first")));
	const abort = new AbortController();
	const second = lock.run("a", { signal: abort.signal }, async () => void seen.push("never"));
	const third = lock.run("a", { signal }, async () => void seen.push("third"));
	abort.abort(new Error("no more"));
	await assert.rejects(second, /no more/);
	gate.resolve();
	await Promise.all([first, third]);
	assert.deepEqual(seen, ["first", "third"]);
});

test("createKeyedLock goes on after a failure", async () => {
	const lock = createKeyedLock();
	await assert.rejects(
		lock.run("a", { signal }, () => Promise.reject(new Error("bad"))),
		/bad/,
	);
	assert.equal(await lock.run("a", { signal }, async () => 1), 1);
});
