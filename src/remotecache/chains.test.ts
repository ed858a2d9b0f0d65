import assert from "node:assert/strict";
import { test } from "node:test";
import { CacheChains, type ChainItem, type ChainLink } from "./chains.ts";

function must(item: ChainItem | undefined): ChainItem {
	assert.ok(item !== undefined);
	return item;
}

const from = (item: ChainItem, selector = ""): ChainLink => ({ from: item, selector });

test("a key that matches nothing elsewhere is not kept", () => {
	const chains = new CacheChains();
	assert.equal(chains.add("random:1", [], []), undefined);
	assert.deepEqual([...chains.items], []);
});

test("one way in common makes two items one, with all ways", () => {
	const chains = new CacheChains();
	const [a, b] = ["a", "b"].map((name) => must(chains.add(name, [], [])));
	assert.ok(a && b);
	const one = must(chains.add("x", [[from(a)]], []));
	const same = must(chains.add("x", [[from(a), from(b, "s")]], []));
	assert.equal(same, one);
	assert.deepEqual(
		one.inputs[0]?.map((each) => [each.from.digest, each.selector]),
		[
			["a", ""],
			["b", "s"],
		],
	);
	assert.notEqual(must(chains.add("x", [[from(b)]], [])), one, "without the selector it is another one");
});

test("each input must have a way in common", () => {
	const chains = new CacheChains();
	const [a, b, c] = ["a", "b", "c"].map((name) => must(chains.add(name, [], [])));
	assert.ok(a && b && c);
	const one = must(chains.add("x", [[from(a)], [from(b)]], []));
	assert.notEqual(must(chains.add("x", [[from(a)], [from(c)]], [])), one);
	assert.equal(must(chains.add("x", [[from(a)], [from(c), from(b)]], [])).digest, "x");
	// The last one had a way in common with both: they are one now.
	assert.equal([...chains.items].filter(({ digest }) => digest === "x").length, 1);
});

test("what stood on items that became one stands on that one", () => {
	const chains = new CacheChains();
	const [a, b] = ["a", "b"].map((name) => must(chains.add(name, [], [])));
	assert.ok(a && b);
	const first = must(chains.add("x", [[from(a)]], []));
	const second = must(chains.add("x", [[from(b)]], []));
	const above = must(chains.add("y", [[from(second)]], []));
	const joined = must(chains.add("x", [[from(a), from(b)]], []));
	assert.equal(joined, first);
	assert.equal(above.inputs[0]?.[0]?.from, first);
	assert.equal(must(chains.add("y", [[from(first)]], [])), above);
});

test("an item is never above itself", () => {
	const chains = new CacheChains();
	const a = must(chains.add("a", [], []));
	const x = must(chains.add("x", [[from(a)]], []));
	const y = must(chains.add("y", [[from(x)]], []));
	const again = must(chains.add("x", [[from(a), from(y), from(x)]], []));
	assert.equal(again, x);
	assert.deepEqual(
		x.inputs[0]?.map((each) => each.from.digest),
		["a"],
	);
});

test("the newest result is the first, and an equal one is kept once", () => {
	const chains = new CacheChains();
	chains.add("a", [], [{ createdAt: 1, layers: [] }]);
	chains.add("a", [], [{ createdAt: 3, layers: [] }]);
	const a = must(chains.add("a", [], [{ createdAt: 1, layers: [] }]));
	assert.deepEqual(
		a.results.map(({ createdAt }) => createdAt),
		[3, 1],
	);
});
