import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import type { KeyLink, KeyStore, ResultRecord } from "./solver.ts";

const link: KeyLink = { input: 0, output: 0, digest: sha256("op") };

function record(id: string, createdAt = 1): ResultRecord {
	return { id, createdAt };
}

/** What every `KeyStore` must do. `open` gives an empty store; what it opens is closed by the caller's own hooks. */
export function keyStoreSuite(name: string, open: () => KeyStore): void {
	test(`${name}: a link leads from one key to all its targets, in the order of adding`, () => {
		const store = open();
		store.addLink("a", link, "b");
		store.addLink("a", link, "c");
		store.addLink("a", link, "b");
		assert.deepEqual(store.targets("a", link), ["b", "c"]);
		assert.deepEqual(store.targets("b", link), []);
		assert.deepEqual(store.targets("unknown", link), []);
	});

	test(`${name}: links differ by input, output, digest and selector`, () => {
		const store = open();
		const others: KeyLink[] = [
			{ ...link, input: 1 },
			{ ...link, output: 1 },
			{ ...link, digest: sha256("other") },
			{ ...link, selector: sha256("selector") },
		];
		store.addLink("a", link, "target");
		for (const [index, other] of others.entries()) {
			assert.deepEqual(store.targets("a", other), []);
			store.addLink("a", other, `target ${index}`);
		}
		assert.deepEqual(store.targets("a", link), ["target"]);
		for (const [index, other] of others.entries()) {
			assert.deepEqual(store.targets("a", other), [`target ${index}`]);
		}
	});

	test(`${name}: results come newest first, equal times the last added first`, () => {
		const store = open();
		store.addResult("a", record("old", 1));
		store.addResult("a", record("new", 3));
		store.addResult("a", record("middle", 2));
		store.addResult("a", record("middle again", 2));
		assert.deepEqual(
			store.results("a").map((result) => result.id),
			["new", "middle again", "middle", "old"],
		);
		assert.deepEqual(store.results("b"), []);
	});

	test(`${name}: a result added again replaces itself`, () => {
		const store = open();
		store.addResult("a", record("r", 1));
		store.addResult("a", record("s", 2));
		store.addResult("a", record("r", 3));
		assert.deepEqual(store.results("a"), [record("r", 3), record("s", 2)]);
	});

	test(`${name}: hasKey knows both ends of a link and keys of results`, () => {
		const store = open();
		assert.equal(store.hasKey("a"), false);
		store.addLink("a", link, "b");
		store.addResult("c", record("r"));
		assert.deepEqual(
			["a", "b", "c", "d"].map((key) => store.hasKey(key)),
			[true, true, true, false],
		);
	});

	test(`${name}: backlinks give every link to a key as it was added`, () => {
		const store = open();
		const selected: KeyLink = { input: 1, output: 2, digest: sha256("op"), selector: sha256("selector") };
		store.addLink("a", link, "c");
		store.addLink("a", selected, "c");
		store.addLink("b", link, "c");
		const found = store
			.backlinks("c")
			.toSorted((x, y) => x.from.localeCompare(y.from) || x.link.input - y.link.input);
		assert.deepEqual(found, [
			{ from: "a", link },
			{ from: "a", link: selected },
			{ from: "b", link },
		]);
		assert.deepEqual(store.backlinks("a"), []);
	});

	test(`${name}: removeResult forgets the result under all keys and drops what leads to nothing`, () => {
		const store = open();
		store.addLink("root", link, "middle");
		store.addLink("middle", link, "end");
		store.addLink("root", { ...link, input: 1 }, "kept");
		store.addResult("end", record("r"));
		store.addResult("alias", record("r"));
		store.addResult("kept", record("s"));
		store.removeResult("r");
		assert.deepEqual(
			["root", "middle", "end", "alias", "kept"].map((key) => store.hasKey(key)),
			[true, false, false, false, true],
		);
		assert.deepEqual(store.targets("root", link), []);
		assert.deepEqual(store.backlinks("end"), []);
		store.removeResult("s");
		assert.equal(store.hasKey("root"), false);
		store.removeResult("unknown");
	});

	test(`${name}: removeResult keeps a key that has another result or leads on`, () => {
		const store = open();
		store.addLink("root", link, "a");
		store.addLink("a", link, "b");
		store.addResult("a", record("r"));
		store.addResult("b", record("s"));
		store.addResult("b", record("t"));
		store.removeResult("r");
		store.removeResult("s");
		assert.deepEqual(store.targets("root", link), ["a"]);
		assert.deepEqual(store.targets("a", link), ["b"]);
		assert.deepEqual(store.results("b"), [record("t")]);
	});

	test(`${name}: removeResult drops a chain of 10,000 keys`, () => {
		const store = open();
		for (let i = 0; i < 10_000; i++) {
			store.addLink(`k${i}`, link, `k${i + 1}`);
		}
		store.addResult("k10000", record("r"));
		store.removeResult("r");
		assert.equal(store.hasKey("k0"), false);
		assert.equal(store.hasKey("k10000"), false);
	});
}
