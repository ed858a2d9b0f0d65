import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import { createGate, createWorld, type FakeOptions, never, vertex, type World } from "./fake-graph.ts";
import { rootKeyId } from "./key.ts";
import type { Edge } from "./solver.ts";

/** Builds in a job of its own, so that only what was stored is left. */
async function build(world: World, edge: Edge): Promise<string> {
	await using job = world.openJob();
	return await job.text(edge);
}

/** Content that no key stands for, like files of a client. */
function local(name: string, text: string, options: FakeOptions = {}): Edge {
	return vertex(name, { keys: [`random:${name}`], output: () => text, ...options });
}

test("rootKeyId is BuildKit's", () => {
	assert.equal(rootKeyId("sha256:aa", 0), sha256("sha256:aa@0"));
	assert.equal(rootKeyId("random:abc", 1), "random:abc");
});

test("a second build loads only the last result and asks no input for its own", async () => {
	await using world = createWorld();
	const edge = vertex("c", { inputs: [vertex("b", { inputs: [vertex("a")] })] });
	assert.equal(await build(world, edge), "c(b(a()))");
	assert.deepEqual(world.executed(), ["a", "b", "c"]);
	world.clear();
	assert.equal(await build(world, edge), "c(b(a()))");
	assert.deepEqual(world.calls.toSorted(), ["load c(b(a()))", "map a", "map b", "map c"]);
	assert.equal(world.live.size, 0);
});

test("a changed op above loads the result below it, and nothing further down", async () => {
	await using world = createWorld();
	const b = vertex("b", { inputs: [vertex("a")] });
	await build(world, vertex("c", { inputs: [b] }));
	world.clear();
	await build(world, vertex("d", { inputs: [b] }));
	assert.deepEqual(
		world.calls.filter((call) => !call.startsWith("map ")),
		["load b(a())", "execute d", "save d(b(a()))"],
	);
});

test("content: equal content of unlike inputs is a hit, and the result is linked for the next time", async () => {
	await using world = createWorld();
	const copy = (from: Edge): Edge => vertex("copy", { inputs: [from], content: true });
	await build(world, copy(vertex("a", { output: () => "files" })));
	world.clear();
	const other = copy(vertex("b", { output: () => "files" }));
	assert.equal(await build(world, other), "copy(files)");
	assert.deepEqual(world.executed(), ["b"]);
	world.clear();
	assert.equal(await build(world, other), "copy(files)");
	assert.deepEqual(world.calls.toSorted(), ["load copy(files)", "map b", "map copy"]);
});

test("content: a random input matches by content only, and leaves nothing in the store", async () => {
	await using world = createWorld();
	const base = vertex("base");
	const copy = (name: string, text: string): Edge =>
		vertex("copy", { inputs: [base, local(name, text)], content: [1], digest: `copy ${name}` });
	await build(world, copy("one", "files"));
	world.clear();
	await build(world, copy("two", "files"));
	assert.deepEqual(world.executed(), ["two"]);
	await build(world, copy("three", "other files"));
	assert.deepEqual(world.executed(), ["two", "three", "copy"]);
	assert.equal(world.keys.hasKey("random:one"), false);
	assert.equal(world.keys.hasKey("random:two"), false);
});

test("content: inputs that match by definition are not materialized while others decide", async () => {
	await using world = createWorld();
	const image = vertex("image");
	const copy = (name: string, text: string): Edge =>
		vertex("copy", { inputs: [image, local(name, text)], content: true, digest: `copy ${name}` });
	await build(world, copy("one", "files"));
	world.clear();
	await build(world, copy("two", "files"));
	assert.deepEqual(
		world.calls.filter((call) => !call.startsWith("map ")),
		["execute two", "content copy 1", "load copy(image(),files)"],
	);
});

test("content: a definition that is known, with content that is not, leads to the record by content of both", async () => {
	await using world = createWorld();
	const both = (a: Edge, b: Edge): Edge => vertex("both", { inputs: [a, b], content: true });
	const a1 = vertex("a1", { output: () => "a" });
	const a2 = vertex("a2", { output: () => "a" });
	const b1 = vertex("b1", { output: () => "b" });
	await build(world, both(a1, b1));
	await build(world, both(a2, vertex("c", { output: () => "c" })));
	world.clear();
	await build(world, both(a2, b1));
	assert.deepEqual(world.executed(), []);
	assert.ok(world.calls.includes("load both(a,b)"));
});

test("content: all unknown inputs are asked side by side", async () => {
	await using world = createWorld();
	const gates = [createGate(), createGate()];
	const inputs = gates.map((gate, index) => local(`l${index}`, `t${index}`, { gate }));
	await using job = world.openJob();
	const building = job.text(vertex("copy", { inputs, content: true }));
	await Promise.all(gates.map((gate) => gate.entered));
	for (const gate of gates) {
		gate.open();
	}
	assert.equal(await building, "copy(t0,t1)");
});

test("content: keys by content lead further up without results", async () => {
	await using world = createWorld();
	const graph = (name: string): Edge => {
		const copy = vertex("copy", { inputs: [local(name, "files")], content: true, digest: `copy ${name}` });
		const run = vertex("run", { inputs: [copy], digest: `run ${name}` });
		return vertex("end", { inputs: [run], digest: `end ${name}` });
	};
	await build(world, graph("one"));
	world.clear();
	await build(world, graph("two"));
	assert.deepEqual(world.executed(), ["two"]);
	assert.deepEqual(
		world.calls.filter((call) => call.startsWith("load ")),
		["load end(run(copy(files)))"],
	);
});

test("cache maps: each is looked up only while nothing is found, and all are recorded", async () => {
	await using world = createWorld();
	const image = (manifest: string): Edge =>
		vertex("image", { keys: [sha256(manifest), sha256("chain")], digest: manifest });
	const run = (manifest: string): Edge =>
		vertex("run", { inputs: [image(manifest)], digest: `run ${manifest}` });
	await build(world, run("m1"));
	world.clear();
	await build(world, run("m2"));
	assert.deepEqual(world.executed(), []);
	assert.equal(world.calls.filter((call) => call === "map image").length, 2);
	await build(world, image("m2"));
	world.clear();
	await build(world, image("m2"));
	assert.deepEqual(world.calls, ["map image", "load image()"]);
});

test("selectors are part of the key", async () => {
	await using world = createWorld();
	const copy = (selector: string): Edge =>
		vertex("copy", { inputs: [vertex("a")], selector, digest: selector });
	await build(world, copy("/x"));
	await build(world, copy("/y"));
	await build(world, copy("/x"));
	assert.deepEqual(world.executed(), ["a", "copy", "copy"]);
});

test("ignoreCache: runs again with what is above by definition, but not what is above equal content", async () => {
	await using world = createWorld();
	const graph = (ignoreCache: boolean): Edge => {
		const a = vertex("a", { ignoreCache });
		const run = vertex("run", { inputs: [a] });
		const copy = vertex("copy", { inputs: [run], content: true });
		return vertex("end", { inputs: [copy] });
	};
	await build(world, graph(false));
	world.clear();
	await build(world, graph(true));
	assert.deepEqual(world.executed(), ["a", "run"]);
	world.clear();
	await build(world, graph(false));
	assert.deepEqual(world.executed(), []);
});

test("ignoreCache: what is above a changed result is neither taken from older records then nor later", async () => {
	await using world = createWorld();
	let version = 1;
	const graph = (ignoreCache: boolean): Edge => {
		const a = vertex("a", { ignoreCache, output: () => `a${version}` });
		return vertex("end", { inputs: [vertex("run", { inputs: [a] })] });
	};
	assert.equal(await build(world, graph(false)), "end(run(a1))");
	version = 2;
	assert.equal(await build(world, graph(true)), "end(run(a2))");
	assert.equal(await build(world, graph(false)), "end(run(a2))");
});

test("a record that cannot be loaded is removed and the vertex goes on as a miss", async () => {
	await using world = createWorld();
	const edge = vertex("b", { inputs: [vertex("a")] });
	await build(world, edge);
	world.results.damaged.add("b(a())");
	world.clear();
	{
		await using job = world.openJob();
		assert.equal(await job.text(edge), "b(a())");
		assert.deepEqual(
			world.calls.filter((call) => !call.startsWith("map ")),
			["load b(a())", "load a()", "execute b", "save b(a())"],
		);
		const warnings = job.events.filter((event) => event.kind === "warning");
		assert.deepEqual(
			warnings.map((event) => event.warning.short),
			["cannot load the cached result: b(a()) is damaged"],
		);
	}
	world.results.texts.delete("b(a())");
	assert.equal(await build(world, vertex("b", { inputs: [vertex("a")], digest: "other" })), "b(a())");
	assert.equal(world.executed().length, 2);
});

test("a damaged record found by the first cache map leaves the second one to be asked", async () => {
	await using world = createWorld();
	const keys = (manifest: string): string[] => [sha256(manifest), sha256("chain")];
	await build(world, vertex("image", { keys: keys("m1"), digest: "m1", output: () => "old" }));
	world.results.damaged.add("old");
	world.clear();
	assert.equal(
		await build(world, vertex("image", { keys: keys("m1"), digest: "m1", output: () => "new" })),
		"new",
	);
	assert.deepEqual(world.calls, ["map image", "load old", "map image", "execute image", "save new"]);
});

test("sources: an imported cache is asked after the local one, and a hit becomes local", async () => {
	await using there = createWorld();
	const graph = (name: string): Edge => {
		const files = local(name, "files");
		const copy = vertex("copy", { inputs: [vertex("base"), files], content: [1], digest: `copy ${name}` });
		return vertex("end", { inputs: [copy], digest: `end ${name}` });
	};
	await build(there, graph("one"));

	await using here = createWorld();
	const imported = { keys: there.keys, results: there.results };
	{
		await using job = here.openJob({ sources: [imported] });
		assert.equal(await job.text(graph("two")), "end(copy(base(),files))");
	}
	assert.deepEqual(here.executed(), ["two"]);
	here.clear();
	assert.equal(await build(here, graph("three")), "end(copy(base(),files))");
	assert.deepEqual(here.executed(), ["three"]);
	assert.ok(here.calls.includes("load end(copy(base(),files))"));
	assert.ok(!here.calls.includes("load base()"));
});

test("sources: one that cannot load what it promises is passed over", async () => {
	await using there = createWorld();
	await build(there, vertex("a"));
	await using here = createWorld();
	const results = { exists: async () => true, load: async () => undefined };
	await using job = here.openJob({ sources: [{ keys: there.keys, results }] });
	assert.equal(await job.text(vertex("a")), "a()");
	assert.deepEqual(here.executed(), ["a"]);
	assert.equal(there.keys.results(rootKeyId(sha256("a"), 0)).length, 1);
});

test("keys of a built edge lead through all vertices below, with their records", async () => {
	await using world = createWorld();
	const edge = vertex("c", { inputs: [vertex("b", { inputs: [vertex("a")] })] });
	for (const round of ["executed", "cached"]) {
		await using job = world.openJob();
		const built = await job.job.build(edge, { signal: never });
		const chain: string[] = [];
		for (let key = built.keys[0]; key !== undefined; key = key.inputs[0]?.[0]?.key) {
			chain.push(
				`${key.vertex === undefined ? "content" : key.digest === sha256("a") ? "a" : "op"} ${key.records()[0]?.record.id}`,
			);
		}
		assert.deepEqual(chain, ["op c(b(a()))", "op b(a())", "a a()"], round);
		await built.release();
	}
});
