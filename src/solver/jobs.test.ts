import assert from "node:assert/strict";
import { test } from "node:test";
import { findDetail, hasCode, SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { createGate, createWorld, fail, type Gate, sourceOf, vertex } from "./fake-graph.ts";
import type { Edge } from "./solver.ts";

test("independent vertices run side by side, a shared one once", async () => {
	await using world = createWorld();
	const shared = vertex("shared");
	const gates = [createGate(), createGate()];
	const inputs = gates.map((gate, index) => vertex(`v${index}`, { inputs: [shared], gate }));
	await using job = world.openJob();
	const building = job.text(vertex("end", { inputs }));
	await Promise.all(gates.map((gate) => gate.entered));
	for (const gate of gates) {
		gate.open();
	}
	assert.equal(await building, "end(v0(shared()),v1(shared()))");
	assert.equal(world.executed().filter((name) => name === "shared").length, 1);
});

test("jobs share a running vertex, and what one has computed while it is open", async () => {
	await using world = createWorld();
	const gate = createGate();
	const a = vertex("a", { gate });
	await using one = world.openJob();
	await using two = world.openJob();
	const builds = [one.text(vertex("x", { inputs: [a] })), two.text(vertex("y", { inputs: [a] }))];
	await gate.entered;
	gate.open();
	assert.deepEqual(await Promise.all(builds), ["x(a())", "y(a())"]);
	await using three = world.openJob();
	assert.equal(await three.text(a), "a()");
	assert.deepEqual(world.executed().toSorted(), ["a", "x", "y"]);
	assert.deepEqual(
		world.calls.filter((call) => call.startsWith("load ")),
		[],
	);
});

test("several outputs are one execution", async () => {
	await using world = createWorld();
	const two = vertex("two", { output: () => ["left", "right"] });
	await using job = world.openJob();
	assert.equal(await job.text(vertex("end", { inputs: [two, { ...two, index: 1 }] })), "end(left,right)");
	assert.deepEqual(world.executed(), ["two", "end"]);
	await assert.rejects(job.text({ ...two, index: 2 }), /two gave 2 outputs, output 2 was asked for/);
});

test("cancel: the op goes on while another job wants it, and is aborted with the last", async () => {
	await using world = createWorld();
	const gate = createGate();
	let aborted = false;
	void gate.aborted.then(() => {
		aborted = true;
	});
	const a = vertex("a", { gate });
	await using one = world.openJob();
	await using two = world.openJob();
	const controllers = [new AbortController(), new AbortController()];
	const builds = [one, two].map((job, index) => job.text(a, controllers[index]?.signal));
	await gate.entered;
	controllers[0]?.abort();
	await assert.rejects(builds[0] ?? fail(new Error()), (error) => hasCode(error, "canceled"));
	await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
	assert.equal(aborted, false);
	controllers[1]?.abort();
	await assert.rejects(builds[1] ?? fail(new Error()), { message: "context canceled" });
	await gate.aborted;
});

test("cancel: what was aborted is forgotten, and who joins while it ends waits and starts anew", async () => {
	await using world = createWorld();
	const ended = Promise.withResolvers<void>();
	let running = 0;
	let attempts = 0;
	const slow = {
		...createGate(),
		wait: async (signal: AbortSignal) => {
			assert.equal(++running, 1);
			if (++attempts === 1) {
				started.resolve();
				await new Promise((resolve) => signal.addEventListener("abort", resolve));
				aborted.resolve();
				await ended.promise;
			}
			running--;
		},
	};
	const started = Promise.withResolvers<void>();
	const aborted = Promise.withResolvers<void>();
	const a = vertex("a", { gate: slow });
	await using one = world.openJob();
	const controller = new AbortController();
	const first = one.text(a, controller.signal);
	await started.promise;
	controller.abort();
	await assert.rejects(first);
	await aborted.promise;
	await using two = world.openJob();
	const second = two.text(a);
	ended.resolve();
	assert.equal(await second, "a()");
	assert.equal(attempts, 2);
});

test("cancel: closing the job aborts its work, waits for its end and releases everything", async () => {
	await using world = createWorld();
	const gate = createGate();
	const job = world.openJob();
	const building = job.text(vertex("b", { inputs: [vertex("a"), vertex("c", { gate })] }));
	const rejected = assert.rejects(building, (error) => hasCode(error, "canceled"));
	await gate.entered;
	await job[Symbol.asyncDispose]();
	await rejected;
	await gate.aborted;
	assert.equal(world.live.size, 0);
	assert.deepEqual(job.last("c")?.error, "context canceled");
	await assert.rejects(job.text(vertex("a")), (error) => hasCode(error, "canceled"));
});

test("errors carry vertex and the source of the build's own definition", async () => {
	await using world = createWorld();
	const gate = createGate();
	const bad = (line: number) =>
		vertex("bad", {
			gate,
			digest: "bad",
			source: sourceOf(`file ${line}`, line),
			output: () => fail(new SlipwayError("unknown", "no luck")),
		});
	await using one = world.openJob();
	await using two = world.openJob();
	const builds = [
		one.text(vertex("x", { inputs: [bad(1)], digest: "x" })),
		two.text(vertex("y", { inputs: [bad(2)], digest: "y" })),
	];
	await gate.entered;
	gate.open();
	for (const [index, result] of (await Promise.allSettled(builds)).entries()) {
		const error = result.status === "rejected" ? result.reason : undefined;
		assert.equal(error?.message, "no luck");
		assert.equal(findDetail(error, "vertex")?.digest, sha256("bad"));
		assert.equal(findDetail(error, "source")?.ranges[0]?.start.line, index + 1);
	}
	assert.deepEqual(world.executed(), ["bad"]);
	assert.equal(one.last("bad")?.error, "no luck");
});

test("errors of keys say so", async () => {
	await using world = createWorld();
	await using job = world.openJob();
	const failing = { ...createGate(), wait: () => Promise.reject(new Error("unreachable")) };
	const map = vertex("map", { mapGate: failing });
	await assert.rejects(job.text(map), { message: "failed to load cache key: unreachable" });
	const content = vertex("content", { inputs: [vertex("a")], content: true, contentGate: failing });
	await assert.rejects(job.text(content), { message: "failed to compute cache key: unreachable" });
	assert.equal(job.last("content")?.error, "unreachable");
});

test("the first error cancels what only that build wants", async () => {
	await using world = createWorld();
	const gates = { mine: createGate(), shared: createGate(), bad: createGate() };
	const shared = vertex("shared", { gate: gates.shared });
	const mine = vertex("mine", { gate: gates.mine });
	const bad = vertex("bad", { gate: gates.bad, output: () => fail(new Error("no luck")) });
	await using one = world.openJob();
	await using two = world.openJob();
	const failing = one.text(vertex("x", { inputs: [shared, mine, bad] }));
	const going = two.text(vertex("y", { inputs: [shared] }));
	await Promise.all([gates.mine.entered, gates.shared.entered, gates.bad.entered]);
	gates.bad.open();
	await assert.rejects(failing, /no luck/);
	await gates.mine.aborted;
	gates.shared.open();
	assert.equal(await going, "y(shared())");
});

test("a failure is kept for the builds that met it, and tried again by a later one", async () => {
	await using world = createWorld();
	let attempts = 0;
	const flaky = vertex("flaky", { output: () => (++attempts === 1 ? fail(new Error("no luck")) : "ok") });
	const graph = vertex("end", {
		inputs: [vertex("x", { inputs: [flaky] }), vertex("y", { inputs: [flaky] })],
		output: () => "end",
	});
	await using one = world.openJob();
	await assert.rejects(one.text(graph), /no luck/);
	assert.equal(attempts, 1);
	await using two = world.openJob();
	assert.equal(await two.text(graph), "end");
	assert.equal(await one.text(graph), "end");
	assert.equal(attempts, 2);
});

test("equal keys: two vertices become one execution while it runs, and each job sees it", async () => {
	await using world = createWorld();
	const gate = createGate();
	const run = (name: string) => vertex("run", { keys: [sha256("run")], digest: name, gate });
	await using one = world.openJob();
	await using two = world.openJob();
	const first = one.text(run("r1"));
	await gate.entered;
	const second = two.text(run("r2"));
	while (two.records("run").length < 2) {
		await new Promise((resolve) => setImmediate(resolve));
	}
	gate.open();
	assert.deepEqual(await Promise.all([first, second]), ["run()", "run()"]);
	assert.deepEqual(world.executed(), ["run"]);
});

test("equal keys: found by content of unlike inputs", async () => {
	await using world = createWorld();
	const gate = createGate();
	const copy = (from: string) =>
		vertex("copy", { inputs: [vertex(from, { output: () => "files" })], content: true, gate });
	await using job = world.openJob();
	const end = job.text(vertex("end", { inputs: [copy("a"), copy("b")] }));
	await gate.entered;
	gate.open();
	assert.equal(await end, "end(copy(files),copy(files))");
	assert.deepEqual(world.executed().toSorted(), ["a", "b", "copy", "end"]);
});

test("equal keys: what one job leaves goes on for the other", async () => {
	await using world = createWorld();
	const gate = createGate();
	const copy = (from: string) =>
		vertex("copy", { inputs: [vertex(from, { output: () => "files" })], content: true, gate });
	const one = world.openJob();
	await using two = world.openJob();
	const controller = new AbortController();
	const first = one.text(copy("a"), controller.signal);
	const rejected = assert.rejects(first);
	await gate.entered;
	const second = two.text(copy("b"));
	// The second has joined when its job sees the first one's vertex.
	while (two.records("copy").length < 2) {
		await new Promise((resolve) => setImmediate(resolve));
	}
	controller.abort();
	await rejected;
	await one[Symbol.asyncDispose]();
	gate.open();
	assert.equal(await second, "copy(files)");
	assert.deepEqual(
		world.executed().filter((name) => name === "copy"),
		["copy"],
	);
});

test("ignoreCache: a twin that may use the cache is not joined, equal ones that may not are", async () => {
	await using world = createWorld();
	let version = 0;
	const graph = (ignoreCache: boolean, digest = "a") =>
		vertex("end", {
			inputs: [vertex("a", { digest, ignoreCache, output: () => `a${++version}` })],
			digest: `end ${digest}`,
		});
	await using plain = world.openJob();
	assert.equal(await plain.text(graph(false)), "end(a1)");
	await using forced = world.openJob();
	assert.equal(await forced.text(graph(true)), "end(a2)");
	await using alsoForced = world.openJob();
	assert.equal(await alsoForced.text(graph(true)), "end(a2)");
	assert.equal(await alsoForced.text(graph(true, "same key")), "end(a2)");
	assert.equal(await plain.text(graph(false)), "end(a1)");
});

test("builds from inside an op share its jobs, also those that join later", async () => {
	await using world = createWorld();
	const gate = createGate();
	const nested = vertex("inner", { inputs: [vertex("below")], gate });
	const outer = vertex("outer", { nested, unlimited: true });
	await using one = world.openJob();
	const first = one.text(outer);
	await gate.entered;
	await using two = world.openJob();
	const second = two.text(outer);
	gate.open();
	assert.deepEqual(await Promise.all([first, second]), ["outer(inner(below()))", "outer(inner(below()))"]);
	assert.equal(two.last("inner")?.error, undefined);
	assert.ok(two.last("inner")?.completed);
});

test("maxParallelism limits executions, but not those that are unlimited", async () => {
	await using world = createWorld({ maxParallelism: 1 });
	const gate = createGate();
	const inner = vertex("inner", { gate });
	const end = vertex("end", {
		inputs: [vertex("outer", { nested: inner, unlimited: true }), vertex("other")],
	});
	await using job = world.openJob();
	const building = job.text(end);
	await gate.entered;
	gate.open();
	assert.equal(await building, "end(outer(inner()),other())");
});

test("clients of the jobs that hold a vertex are handed to its op", async () => {
	const seen: (readonly unknown[])[] = [];
	const gate = createGate();
	await using world = createWorld({
		resolveOp: () => ({
			cacheMap: async () => ({ map: { digest: sha256("a"), inputs: [] }, last: true }),
			execute: async (_inputs, context) => {
				await gate.wait(context.signal);
				seen.push(context.clients());
				return fail(new Error("enough"));
			},
		}),
	});
	await using one = world.openJob({ client: "one" });
	await using two = world.openJob({ client: "two" });
	const builds = Promise.allSettled([one.text(vertex("a")), two.text(vertex("a"))]);
	await gate.entered;
	gate.open();
	await builds;
	assert.deepEqual(seen, [["one", "two"]]);
});

test("a solver closes its jobs and opens no more; ids of jobs are unique", async () => {
	const world = createWorld();
	const job = world.openJob({ id: "same" });
	assert.throws(
		() => world.openJob({ id: "same" }),
		(error) => hasCode(error, "already-exists"),
	);
	await job[Symbol.asyncDispose]();
	world.openJob({ id: "same" });
	await world[Symbol.asyncDispose]();
	assert.throws(
		() => world.openJob(),
		(error) => hasCode(error, "failed-precondition"),
	);
});

test("equal keys: the vertex that was joined can be built again after its own job has gone", async () => {
	await using world = createWorld();
	const gate = createGate();
	const copy = (from: string) =>
		vertex("copy", { inputs: [vertex(from, { output: () => "files" })], content: true, gate });
	const one = world.openJob();
	await using two = world.openJob();
	const first = assert.rejects(one.text(copy("a")));
	await gate.entered;
	const second = two.text(copy("b"));
	while (two.records("copy").length < 2) {
		await new Promise((resolve) => setImmediate(resolve));
	}
	await one[Symbol.asyncDispose]();
	await first;
	await using three = world.openJob();
	const third = three.text(copy("a"));
	gate.open();
	assert.deepEqual(await Promise.all([second, third]), ["copy(files)", "copy(files)"]);
});

/** Repeatable numbers from 0 to `below`. */
function createRandom(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return Math.floor((state / 2 ** 32) * below);
	};
}

test("many jobs that come, go, fail and share leave right results and no handle behind", async () => {
	const world = createWorld({ maxParallelism: 3 });
	for (let seed = 1; seed <= 40; seed++) {
		const random = createRandom(seed);
		const pause: Gate = {
			...createGate(),
			wait: async (signal) => {
				for (let turns = random(4); turns > 0; turns--) {
					await new Promise((resolve) => setImmediate(resolve));
					signal.throwIfAborted();
				}
			},
		};
		const expected = new Map<Edge, string>();
		const edges: Edge[] = [];
		for (let i = 0; i < 12; i++) {
			const inputs = Array.from({ length: Math.min(i, random(4)) }, () => edges[random(edges.length)]).filter(
				(edge) => edge !== undefined,
			);
			const text = `${seed % 5}-${random(4)}`;
			const fails = random(25) === 0;
			const edge = vertex(`v${random(6)}`, {
				inputs,
				digest: `${seed} ${i}`,
				keys: [random(6) === 0 ? `random:${seed}-${i}` : sha256(`${text} ${fails}`)],
				content: random(2) === 0,
				ignoreCache: random(8) === 0,
				gate: pause,
				contentGate: pause,
				output: () => (fails ? fail(new Error("no luck")) : text),
			});
			edges.push(edge);
			expected.set(edge, text);
		}
		await Promise.all(
			Array.from({ length: 6 }, async () => {
				await using job = world.openJob();
				const controller = new AbortController();
				const edge = edges[random(edges.length)] ?? fail(new Error("no edge"));
				const building = job.text(edge, controller.signal);
				building.catch(() => {}); // it is looked at below, after it may have failed
				if (random(3) === 0) {
					for (let turns = random(10); turns > 0; turns--) {
						await new Promise((resolve) => setImmediate(resolve));
					}
					controller.abort(new Error("left"));
				}
				try {
					assert.equal(await building, expected.get(edge));
				} catch (error) {
					assert.ok(error instanceof SlipwayError, String(error));
					assert.ok(/^(no luck|context canceled)$/.test(error.message), error.message);
					assert.ok(!hasCode(error, "canceled") || controller.signal.aborted, error.message);
				}
			}),
		);
		assert.equal(world.live.size, 0, `seed ${seed}`);
	}
	await world[Symbol.asyncDispose]();
});
