import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { createYoungCollector } from "./young-garbage.ts";

test("createYoungCollector collects once after each time of work, when nothing has begun for a moment", () => {
	mock.timers.enable({ apis: ["setTimeout"] });
	try {
		let collections = 0;
		using young = createYoungCollector(() => void collections++, 40);
		young.idle();
		mock.timers.tick(100);
		assert.equal(collections, 0, "nothing was done");
		young.busy();
		young.idle();
		mock.timers.tick(30);
		young.busy();
		mock.timers.tick(100);
		assert.equal(collections, 0, "it is busy again");
		young.idle();
		young.idle();
		mock.timers.tick(100);
		young.idle();
		mock.timers.tick(100);
		assert.equal(collections, 1);
	} finally {
		mock.timers.reset();
	}
});

test("createYoungCollector: the collector of V8 can be called", async () => {
	using young = createYoungCollector(undefined, 1);
	young.busy();
	young.idle();
	await new Promise((resolve) => setTimeout(resolve, 10));
});
