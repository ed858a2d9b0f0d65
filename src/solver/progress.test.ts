import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import { createGate, createWorld, fail, never, vertex } from "./fake-graph.ts";

test("records go from waiting over started to completed", async () => {
	await using world = createWorld();
	const edge = vertex("b", { inputs: [vertex("a")] });
	await using job = world.openJob();
	await job.text(edge);
	const records = job.records("b");
	assert.deepEqual(
		records.map((record) => [record.started !== undefined, record.completed !== undefined, record.cached]),
		[
			[false, false, false],
			[true, false, false],
			[true, true, false],
		],
	);
	assert.deepEqual(records[0]?.inputs, [vertex("a").vertex.digest]);
});

test("what is cached is said once, and inputs that never ran are cached with their consumer", async () => {
	await using world = createWorld();
	const edge = vertex("c", { inputs: [vertex("b", { inputs: [vertex("a")] })] });
	{
		await using job = world.openJob();
		await job.text(edge);
	}
	await using job = world.openJob();
	await job.text(edge);
	for (const name of ["b", "c"]) {
		assert.deepEqual(
			job.records(name).map((record) => [record.cached, record.completed !== undefined]),
			[
				[false, false],
				[true, true],
			],
		);
	}
	// The vertex without inputs was asked for its key, which may take long and is shown.
	assert.equal(job.last("a")?.cached, false);
	assert.ok(job.last("a")?.completed);
});

test("a failed vertex has its error, one above it never starts", async () => {
	await using world = createWorld();
	await using job = world.openJob();
	const bad = vertex("bad", { output: () => fail(new Error("no luck")) });
	await assert.rejects(job.text(vertex("end", { inputs: [bad] })));
	assert.equal(job.last("bad")?.error, "no luck");
	assert.equal(job.last("end")?.started, undefined);
});

test("a job that joins gets the present record and from then on all events", async () => {
	await using world = createWorld();
	const gate = createGate();
	const edge = vertex("b", { inputs: [vertex("a")], gate });
	await using one = world.openJob();
	const first = one.text(edge);
	await gate.entered;
	await using two = world.openJob();
	const second = two.text(edge);
	assert.deepEqual(
		two.records("b").map((record) => record.started !== undefined),
		[true],
	);
	assert.ok(two.last("a")?.completed);
	gate.open();
	await Promise.all([first, second]);
	assert.deepEqual(two.last("b"), one.last("b"));
});

test("logs of an op go to all jobs that hold the vertex", async () => {
	await using world = createWorld();
	const mapGate = createGate();
	const edge = vertex("a", { mapGate });
	await using one = world.openJob();
	await using two = world.openJob();
	const builds = [one.text(edge), two.text(edge)];
	mapGate.open();
	await Promise.all(builds);
	for (const job of [one, two]) {
		const logs = job.events.filter((event) => event.kind === "log");
		assert.deepEqual(
			logs.map((event) => event.log.vertex),
			[edge.vertex.digest],
		);
	}
});

test("at the end of a job what has started and not ended is cancelled, for this job only", async () => {
	await using world = createWorld();
	const gate = createGate();
	const edge = vertex("a", { gate });
	await using one = world.openJob();
	const two = world.openJob();
	const first = one.text(edge);
	const second = assert.rejects(two.text(edge));
	await gate.entered;
	await two[Symbol.asyncDispose]();
	await second;
	assert.equal(two.last("a")?.error, "context canceled");
	assert.ok(two.last("a")?.completed);
	assert.equal(one.last("a")?.completed, undefined);
	gate.open();
	await first;
	assert.equal(one.last("a")?.error, undefined);
});

test("step: shown like a vertex, to its job only", async () => {
	await using world = createWorld();
	await using job = world.openJob();
	await using other = world.openJob();
	const options = { id: "export", name: "exporting to image", inputs: [sha256("x")], signal: never };
	const value = await job.job.step(options, async ({ vertex: digest, progress }) => {
		const status = { vertex: digest, id: "layers", name: "layers", current: 0, total: 0, timestamp: 0 };
		progress.write({ kind: "status", status });
		return 7;
	});
	assert.equal(value, 7);
	const records = job.records("exporting to image");
	assert.deepEqual(
		records.map((record) => [record.digest, record.completed !== undefined]),
		[
			[sha256("export"), false],
			[sha256("export"), true],
		],
	);
	assert.equal(job.events[1]?.kind, "status");
	assert.deepEqual(other.events, []);
	await assert.rejects(
		job.job.step({ ...options, id: "bad" }, () => Promise.reject(new Error("disk full"))),
		/disk full/,
	);
	assert.equal(job.last("exporting to image")?.error, "disk full");
});
