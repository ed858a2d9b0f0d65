import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { suite, test } from "node:test";
import { createLastResort, type LastResort } from "./last-resort.ts";

interface World {
	readonly process: EventEmitter;
	readonly lines: string[];
	readonly guard: LastResort;
	stops: number;
	now: number;
}

function createWorld(): World {
	const process = new EventEmitter();
	const lines: string[] = [];
	const logger = {
		isEnabled: () => true,
		log: (level: string, message: string) => void lines.push(`${level} ${message}`),
	};
	const guard = createLastResort({
		logger,
		stop: () => world.stops++,
		now: () => world.now,
		process: process as unknown as NodeJS.Process,
	});
	const world: World = { process, lines, guard, stops: 0, now: 0 };
	return world;
}

suite("an error that nobody waited for", () => {
	test("is written down with its stack, and the daemon goes on", () => {
		const world = createWorld();
		for (const event of ["uncaughtException", "unhandledRejection"]) {
			world.process.emit(event, new Error("oh"));
		}
		assert.equal(world.lines.length, 2);
		assert.match(world.lines[0] ?? "", /^error unexpected: Error: oh\n {4}at .*last-resort\.test/);
		world.process.emit("unhandledRejection", undefined);
		assert.equal(world.lines[2], "error unexpected: undefined");
		assert.deepEqual([world.stops, world.guard.gaveUp], [0, false]);
	});

	test("that comes again and again stops it, once", () => {
		const world = createWorld();
		for (let i = 0; i < 50; i++) {
			world.now += 10_000;
			world.process.emit("uncaughtException", new Error("now and then"));
		}
		assert.equal(world.stops, 0);
		for (let i = 0; i < 50; i++) {
			world.now += 1;
			world.process.emit("uncaughtException", new Error("always"));
		}
		assert.deepEqual([world.stops, world.guard.gaveUp], [1, true]);
	});

	test("ends the process again once the daemon is closed", () => {
		const world = createWorld();
		world.guard[Symbol.dispose]();
		assert.equal(world.process.listenerCount("uncaughtException"), 0);
		assert.equal(world.process.listenerCount("unhandledRejection"), 0);
	});
});
