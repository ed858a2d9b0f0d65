import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import type { LargeGraphCalls } from "./large-graph.fixture.ts";

/** In a thread of its own: the test runner's hooks on every promise would cost ten times the work. */
async function run(shape: string, size: number): Promise<[LargeGraphCalls, LargeGraphCalls]> {
	const worker = new Worker(new URL("./large-graph.fixture.ts", import.meta.url), {
		workerData: { shape, size },
	});
	const [calls] = await once(worker, "message");
	await worker.terminate();
	return calls;
}

const size = 10_000;

for (const shape of ["chain", "fan"]) {
	test(`${size} vertices in a ${shape}: executed and then cached, with a bounded number of steps for each`, async () => {
		const [cold, warm] = await run(shape, size);
		assert.equal(cold.executed, size);
		assert.ok(cold.lookups < 8 * size, `${cold.lookups} lookups`);
		assert.ok(cold.events < 6 * size, `${cold.events} events`);
		assert.equal(warm.executed, 0);
		assert.equal(warm.loaded, 1);
		assert.ok(warm.lookups < 5 * size, `${warm.lookups} lookups`);
		assert.ok(warm.events < 5 * size, `${warm.events} events`);
		assert.equal(cold.leaked + warm.leaked, 0);
	});
}
