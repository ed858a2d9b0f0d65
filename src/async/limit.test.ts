import assert from "node:assert/strict";
import { test } from "node:test";
import { createLimit } from "./limit.ts";
import { createSingleFlight } from "./single-flight.ts";

const signal = new AbortController().signal;

test("limit: a slot that is given back goes to the first that waits", async () => {
	const limit = createLimit(1);
	const order: string[] = [];
	const first = await limit.acquire({ signal });
	const second = limit.acquire({ signal }).then((slot) => {
		order.push("second");
		return slot;
	});
	const third = limit.acquire({ signal }).then((slot) => {
		order.push("third");
		return slot;
	});
	first[Symbol.dispose]();
	first[Symbol.dispose]();
	(await second)[Symbol.dispose]();
	(await third)[Symbol.dispose]();
	assert.deepEqual(order, ["second", "third"]);
	(await limit.acquire({ signal }))[Symbol.dispose]();
});

test("limit: an abort while waiting leaves the queue", async () => {
	const limit = createLimit(1);
	const held = await limit.acquire({ signal });
	const controller = new AbortController();
	const waiting = limit.acquire({ signal: controller.signal });
	controller.abort(new Error("enough"));
	await assert.rejects(waiting, /enough/);
	held[Symbol.dispose]();
	(await limit.acquire({ signal }))[Symbol.dispose]();
	await assert.rejects(limit.acquire({ signal: controller.signal }), /enough/);
});

test("single flight: one work for all who ask at once, again afterwards, errors are not kept", async () => {
	const flight = createSingleFlight<string, number>();
	let runs = 0;
	const work = async (): Promise<number> => ++runs;
	assert.deepEqual(
		await Promise.all([flight.run("a", work, { signal }), flight.run("a", work, { signal })]),
		[1, 1],
	);
	assert.equal(await flight.run("a", work, { signal }), 2);
	await assert.rejects(
		flight.run("b", () => Promise.reject(new Error("no")), { signal }),
		/no/,
	);
	assert.equal(await flight.run("b", work, { signal }), 3);
});

test("single flight: the work is aborted when the last caller has left, not before", async () => {
	const flight = createSingleFlight<string, void>();
	let aborted = false;
	const work = (inner: AbortSignal): Promise<void> =>
		new Promise((_, reject) => {
			inner.addEventListener("abort", () => {
				aborted = true;
				reject(inner.reason);
			});
		});
	const one = new AbortController();
	const two = new AbortController();
	const first = flight.run("a", work, { signal: one.signal });
	const second = flight.run("a", work, { signal: two.signal });
	one.abort(new Error("one left"));
	await assert.rejects(first, /one left/);
	assert.equal(aborted, false);
	two.abort(new Error("two left"));
	await assert.rejects(second, /two left/);
	assert.equal(aborted, true);
});
