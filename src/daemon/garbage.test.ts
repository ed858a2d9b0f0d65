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

test("createMemoryKeeper waits until the daemon was idle for a while after work", () => {
	mock.timers.enable({ apis: ["setTimeout"] });
	try {
		let collections = 0;
		using keeper = createMemoryKeeper(100, () => void collections++);
		keeper.idle();
		mock.timers.tick(50);
		keeper.busy();
		mock.timers.tick(1000);
		assert.equal(collections, 0);
		keeper.idle();
		keeper.idle();
		mock.timers.tick(1000);
		keeper.idle();
		mock.timers.tick(1000);
		assert.equal(collections, 1);
	} finally {
		mock.timers.reset();
	}
});
