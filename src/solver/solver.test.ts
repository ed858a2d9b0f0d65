import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import { createGate, createWorld, type Gate, vertex } from "./fake-graph.ts";
import type { Edge } from "./solver.ts";

interface Checkout {
	/** Each client sends its files under a key of its own. */
	readonly client: string;
	readonly manifest?: string;
	readonly lock: string;
	readonly code: string;
	readonly noCache?: boolean;
	readonly compiling?: Gate;
}

/** A Dockerfile: dependencies from a lock file, compiled code, and a small image that the binary is copied to. */
function dockerfile(checkout: Checkout): Edge {
	const { client, manifest = "m1", lock, code, noCache = false, compiling } = checkout;
	const image = vertex("base", { keys: [sha256(manifest), sha256("layers")], digest: manifest });
	const files = (name: string, text: string): Edge =>
		vertex(name, { keys: [`random:${client}-${name}`], digest: `${client} ${name}`, output: () => text });
	const step = (name: string, inputs: readonly Edge[], options = {}): Edge =>
		vertex(name, { inputs, ...options });
	const locked = step("COPY lock", [image, files("lock", lock)], { content: [1] });
	const installed = step("RUN install", [locked], { output: () => `deps of ${lock}` });
	const copied = step("COPY code", [installed, files("code", code)], { content: [1] });
	const compiled = step("RUN compile", [copied], {
		output: () => `binary of ${code.replace(/#.*/, "")}`,
		ignoreCache: noCache,
		...(compiling === undefined ? {} : { gate: compiling }),
	});
	return step("COPY binary", [image, compiled], { content: [1] });
}

test("story: a day of builds", async (t) => {
	const first = createWorld();

	await t.test("the first build runs everything", async () => {
		await using job = first.openJob();
		assert.equal(
			await job.text(dockerfile({ client: "ann", lock: "l1", code: "c1" })),
			"COPY binary(base(),binary of c1)",
		);
		assert.equal(first.executed().length, 8);
	});

	await t.test("the same files of another client are sent, and nothing else happens", async () => {
		first.clear();
		await using job = first.openJob();
		await job.text(dockerfile({ client: "bob", lock: "l1", code: "c1" }));
		assert.deepEqual(first.executed().toSorted(), ["code", "lock"]);
	});

	await t.test("a new manifest of the same layers changes nothing", async () => {
		first.clear();
		await using job = first.openJob();
		await job.text(dockerfile({ client: "cid", manifest: "m2", lock: "l1", code: "c1" }));
		assert.deepEqual(first.executed().toSorted(), ["code", "lock"]);
	});

	await t.test("changed code keeps the dependencies; an equal binary ends the work", async () => {
		first.clear();
		await using job = first.openJob();
		await job.text(dockerfile({ client: "ann 2", lock: "l1", code: "c1# a comment" }));
		assert.deepEqual(first.executed().toSorted(), ["COPY code", "RUN compile", "code", "lock"]);
	});

	await t.test("two clients with equal files at once share the work by content; one may leave", async () => {
		first.clear();
		const compiling = createGate();
		const ann = first.openJob();
		await using bob = first.openJob();
		const left = assert.rejects(ann.text(dockerfile({ client: "ann 3", lock: "l1", code: "c2", compiling })));
		await compiling.entered;
		const built = bob.text(dockerfile({ client: "bob 3", lock: "l1", code: "c2", compiling }));
		while (!first.calls.includes("content COPY code 1") || bob.last("RUN compile")?.started === undefined) {
			await new Promise((resolve) => setImmediate(resolve));
		}
		await ann[Symbol.asyncDispose]();
		await left;
		compiling.open();
		assert.equal(await built, "COPY binary(base(),binary of c2)");
		assert.equal(first.executed().filter((name) => name === "RUN compile").length, 1);
	});

	await first[Symbol.asyncDispose]();
	assert.equal(first.live.size, 0);

	await t.test("after a restart the stores still know everything", async () => {
		await using second = createWorld({ keys: first.keys, results: first.results });
		await using job = second.openJob();
		await job.text(dockerfile({ client: "dan", lock: "l1", code: "c2" }));
		assert.deepEqual(second.executed().toSorted(), ["code", "lock"]);
	});

	await t.test("no cache for one step runs it, and its equal binary ends the work", async () => {
		await using second = createWorld({ keys: first.keys, results: first.results });
		await using job = second.openJob();
		await job.text(dockerfile({ client: "eve", lock: "l1", code: "c2", noCache: true }));
		assert.deepEqual(second.executed().toSorted(), ["RUN compile", "code", "lock"]);
	});

	await t.test("a damaged store costs only what is damaged", async () => {
		await using second = createWorld({ keys: first.keys, results: first.results });
		first.results.damaged.add("COPY binary(base(),binary of c2)");
		await using job = second.openJob();
		await job.text(dockerfile({ client: "fay", lock: "l1", code: "c2" }));
		assert.deepEqual(second.executed().toSorted(), ["COPY binary", "code", "lock"]);
	});
});
