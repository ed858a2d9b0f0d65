import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { emptySolveRequest } from "../src/api/generated/control.ts";
import { control } from "../src/api/services/control.ts";
import { toDefinitionMessage } from "../src/llb/definition-message.ts";
import { mkfile } from "../src/llb/file-steps.ts";
import { scratch } from "../src/llb/state.ts";
import { DaemonBench, type RunningDaemon } from "./support/daemon.ts";

const bench = new DaemonBench();
let daemon: RunningDaemon;
before(async () => {
	daemon = await bench.startDaemon();
});
after(() => bench[Symbol.asyncDispose]());

/** Solves a graph of so many vertices, in groups of a hundred over one. */
async function solve(vertices: number): Promise<void> {
	const ground = scratch().file(mkfile("/ground", 0o644, "ground"));
	const groups = Array.from({ length: vertices / 100 }, (_, group) => {
		const [head = ground, ...rest] = Array.from({ length: 99 }, (_, index) =>
			ground.requires(`vertex ${group} ${index}`, ground),
		);
		return head.requires(`group ${group}`, ...rest);
	});
	const definition = ground.requires("all", ...groups).marshal();
	await using channel = await bench.channel();
	await channel.unary(
		control.solve,
		{ ...emptySolveRequest(), Ref: randomUUID(), Definition: toDefinitionMessage(definition) },
		{ signal: new AbortController().signal },
	);
}

test("a graph of 3,000 vertices is built, and its memory is given back when the daemon is idle", async () => {
	await solve(100);
	const before = daemon.residentBytes();
	await solve(3000);
	const peak = daemon.residentBytes();
	assert.ok(peak > 1.2 * before, `the graph takes memory: ${before}, ${peak}`);
	for (let waited = 0; daemon.residentBytes() > 1.2 * before; waited++) {
		assert.ok(waited < 600, `${daemon.residentBytes()} bytes long after, ${before} before`);
		await sleep(100);
	}
});
