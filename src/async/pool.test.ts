import assert from "node:assert/strict";
import { test } from "node:test";
import { findDetail, hasCode, SlipwayError } from "../errors/errors.ts";
import { createByteChannel, receiveBytes, sendBytes } from "./byte-channel.ts";
import { createThreadPool, type ThreadPool } from "./pool.ts";
import type { Probe } from "./pool-probe.job.ts";

const signal = new AbortController().signal;

function probe(
	pool: ThreadPool,
	input: Probe,
	options: Partial<Parameters<ThreadPool["run"]>[2]> = {},
): Promise<unknown> {
	return pool.run<Probe, unknown>("async/pool-probe", input, { signal, ...options });
}

test("a job answers, after everything it posted", async () => {
	await using pool = createThreadPool({ size: 2 });
	const messages: unknown[] = [];
	const value = { bytes: new Uint8Array([1, 2]), when: new Map([["a", 1n]]) };
	assert.deepEqual(
		await probe(pool, { kind: "echo", value }, { onMessage: (each) => messages.push(each) }),
		value,
	);
	assert.deepEqual(messages, ["one", "two"]);
});

test("more jobs than threads are all done", async () => {
	await using pool = createThreadPool({ size: 2 });
	const answers = await Promise.all(
		Array.from({ length: 20 }, (_, value) => probe(pool, { kind: "echo", value })),
	);
	assert.deepEqual(
		answers,
		Array.from({ length: 20 }, (_, index) => index),
	);
});

test("companions run on one thread, whatever else comes in between", async () => {
	await using pool = createThreadPool({ size: 2 });
	const companion = {};
	const first = await probe(pool, { kind: "thread" }, { companion });
	for (let round = 0; round < 4; round++) {
		assert.notEqual(await probe(pool, { kind: "thread" }), first);
		assert.equal(await probe(pool, { kind: "thread" }, { companion }), first);
	}
});

test("an error crosses with code, message, details and cause", async () => {
	await using pool = createThreadPool({ size: 1 });
	await assert.rejects(probe(pool, { kind: "fail" }), (error: Error) => {
		assert.ok(error instanceof SlipwayError);
		assert.equal(error.message, "disk is full");
		assert.equal(findDetail(error, "errno")?.errno, "ENOSPC");
		assert.equal((error.cause as Error).message, "below");
		assert.match(error.stack ?? "", /pool-probe\.job/);
		return hasCode(error, "resource-exhausted");
	});
	assert.equal(await probe(pool, { kind: "echo", value: 1 }), 1);
});

test("an abort rejects at once, and the thread is used again only after the job ended", async () => {
	await using pool = createThreadPool({ size: 1 });
	const progress = new Int32Array(new SharedArrayBuffer(4));
	const controller = new AbortController();
	const spinning = probe(pool, { kind: "spin", progress: progress.buffer }, { signal: controller.signal });
	const next = probe(pool, { kind: "echo", value: "next" });
	while (Atomics.load(progress, 0) === 0) {
		await new Promise((resolve) => setTimeout(resolve, 1));
	}
	controller.abort();
	await assert.rejects(spinning, (error) => hasCode(error, "canceled"));
	assert.equal(await next, "next");
	assert.equal(Atomics.load(progress, 0), 2);
});

test("an abort wakes a job that waits, and takes one that has not begun out of the queue", async () => {
	await using pool = createThreadPool({ size: 1 });
	const controller = new AbortController();
	const { promise: waits, resolve } = Promise.withResolvers<unknown>();
	const reason = new SlipwayError("deadline-exceeded", "too slow");
	const first = probe(pool, { kind: "wait" }, { signal: controller.signal, onMessage: resolve });
	const second = probe(pool, { kind: "wait" }, { signal: controller.signal });
	await waits;
	controller.abort(reason);
	await assert.rejects(first, reason);
	await assert.rejects(second, reason);
	await assert.rejects(probe(pool, { kind: "wait" }, { signal: controller.signal }), reason);
	assert.equal(await probe(pool, { kind: "echo", value: 1 }), 1);
});

test("a thread that dies fails its job; the next one gets a new thread", async () => {
	await using pool = createThreadPool({ size: 1 });
	await assert.rejects(probe(pool, { kind: "exit" }), (error) => hasCode(error, "unavailable"));
	assert.equal(await probe(pool, { kind: "echo", value: 1 }), 1);
});

test("threads end when the pool is idle for a while; the next job starts one", async () => {
	await using pool = createThreadPool({ size: 1, idleMs: 1 });
	const thread = await probe(pool, { kind: "thread" });
	do {
		await new Promise((resolve) => setTimeout(resolve, 5));
	} while ((await probe(pool, { kind: "thread" })) === thread);
});

test("a job that does not exist, input that cannot be sent and a closed pool are errors", async () => {
	const pool = createThreadPool({ size: 1 });
	await assert.rejects(pool.run("async/no-such-job", 1, { signal }), /no-such-job/);
	await assert.rejects(pool.run("../x", 1, { signal }), /invalid job name/);
	await assert.rejects(probe(pool, { kind: "echo", value: () => 1 }), /cannot be sent/);
	const waiting = probe(pool, { kind: "wait" });
	const queued = probe(pool, { kind: "wait" });
	await Promise.all([
		assert.rejects(waiting, (error) => hasCode(error, "canceled")),
		assert.rejects(queued, (error) => hasCode(error, "canceled")),
		pool[Symbol.asyncDispose](),
	]);
	await assert.rejects(probe(pool, { kind: "echo", value: 1 }), (error) => hasCode(error, "canceled"));
	await pool[Symbol.asyncDispose]();
});

test("bytes stream into a job, more than the window", async () => {
	await using pool = createThreadPool({ size: 1 });
	const { sender, receiver } = createByteChannel();
	const counted = probe(pool, { kind: "count", port: receiver }, { transfer: [receiver] });
	async function* source(): AsyncGenerator<Uint8Array> {
		for (let index = 0; index < 200; index++) {
			yield Buffer.alloc(100_000, index);
		}
	}
	await sendBytes(sender, source(), { signal });
	assert.equal(await counted, 20_000_000);
});

test("bytes stream out of a job", async () => {
	await using pool = createThreadPool({ size: 1 });
	const { sender, receiver } = createByteChannel();
	const produced = probe(pool, { kind: "produce", port: sender, bytes: 12_345_678 }, { transfer: [sender] });
	let total = 0;
	for await (const chunk of receiveBytes(receiver, { signal })) {
		total += chunk.length;
		assert.equal(chunk[chunk.length - 1], 7);
	}
	await produced;
	assert.equal(total, 12_345_678);
});

test("a receiver that stops early ends the source", async () => {
	await using pool = createThreadPool({ size: 1 });
	const { sender, receiver } = createByteChannel();
	let closed = false;
	async function* endless(): AsyncGenerator<Uint8Array> {
		try {
			for (;;) {
				yield new Uint8Array(65_536);
			}
		} finally {
			closed = true;
		}
	}
	const counted = probe(
		pool,
		{ kind: "count", port: receiver, stopAfter: 1 << 20 },
		{ transfer: [receiver] },
	);
	await sendBytes(sender, endless(), { signal });
	assert.ok(((await counted) as number) >= 1 << 20);
	assert.ok(closed);
});

test("an error of the source reaches the receiver", async () => {
	await using pool = createThreadPool({ size: 1 });
	const { sender, receiver } = createByteChannel();
	async function* broken(): AsyncGenerator<Uint8Array> {
		yield new Uint8Array(10);
		throw new SlipwayError("data-loss", "download broke off");
	}
	const counted = probe(pool, { kind: "count", port: receiver }, { transfer: [receiver] });
	const failed = assert.rejects(counted, /download broke off/);
	await assert.rejects(sendBytes(sender, broken(), { signal }), /download broke off/);
	await failed;
});

test("a source that hangs is given up on abort, and with a receiver that died", async () => {
	const never: AsyncIterable<Uint8Array> = {
		[Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }),
	};
	const controller = new AbortController();
	const one = createByteChannel();
	const sending = sendBytes(one.sender, never, { signal: controller.signal });
	controller.abort();
	await assert.rejects(sending, (error) => hasCode(error, "canceled"));
	one.receiver.close();
	const two = createByteChannel();
	const pending = sendBytes(two.sender, never, { signal });
	two.receiver.close();
	await pending;
});
