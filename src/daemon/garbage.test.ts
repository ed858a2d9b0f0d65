import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { collectGarbage, createMemoryKeeper } from "./garbage.ts";

test("collectGarbage frees what nobody refers to", async () => {
	let object: object | undefined = {};
	const weak = new WeakRef(object);
	object = undefined;
	// A weak reference holds its object until the turn ends.
	await new Promise((resolve) => setImmediate(resolve));
	collectGarbage();
	assert.equal(weak.deref(), undefined);
});

test("createMemoryKeeper waits until the daemon was idle for a while after work", async () => {
	mock.timers.enable({ apis: ["setTimeout"] });
	try {
		const done: string[] = [];
		let rest = Promise.resolve();
		using keeper = createMemoryKeeper({
			rest() {
				done.push("rest");
				return rest;
			},
			giveBack: () => void done.push("give back"),
			delayMs: 100,
		});
		const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
		keeper.idle();
		mock.timers.tick(50);
		assert.deepEqual(done, []);
		keeper.busy();
		keeper.idle();
		mock.timers.tick(50);
		keeper.busy();
		mock.timers.tick(1000);
		assert.deepEqual(done, []);
		keeper.idle();
		keeper.idle();
		mock.timers.tick(1000);
		await settle();
		keeper.idle();
		mock.timers.tick(1000);
		await settle();
		assert.deepEqual(done, ["rest", "give back"]);

		const resting = Promise.withResolvers<void>();
		rest = resting.promise;
		keeper.busy();
		keeper.idle();
		mock.timers.tick(1000);
		keeper.busy();
		resting.resolve();
		await settle();
		assert.deepEqual(done, ["rest", "give back", "rest"]);
	} finally {
		mock.timers.reset();
	}
});
