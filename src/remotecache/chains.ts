import type { CacheResult } from "./remotecache.ts";

/** From an item, as one input of what it leads to. */
export interface ChainLink {
	readonly from: ChainItem;
	/** Empty for none. */
	readonly selector: string;
}

/** A cache key among others. Items are equal if op and inputs are; `CacheChains` has one of each. */
export interface ChainItem {
	readonly number: number;
	readonly digest: string;
	/** For each input the alternatives; empty for a root. */
	readonly inputs: readonly (readonly ChainLink[])[];
	/** Newest first. */
	readonly results: readonly CacheResult[];
}

/** The graph of keys of an exported cache, without what is equal twice and without loops. */
export class CacheChains {
	readonly #items = new Set<Item>();
	readonly #roots = new Map<string, Item>();
	#count = 0;

	get items(): Iterable<ChainItem> {
		return this.#items;
	}

	/**
	 * The item of an op's digest on these inputs. It is one that is there already if for each input some alternative leads to
	 * it; then the other alternatives are joined to it. Each input must have an alternative. Undefined for a key that matches
	 * nothing in another build.
	 */
	add(
		digest: string,
		inputs: readonly (readonly ChainLink[])[],
		results: readonly CacheResult[],
	): ChainItem | undefined {
		if (digest.startsWith("random:")) {
			return undefined;
		}
		const item = inputs.length === 0 ? this.#root(digest) : this.#join(digest, inputs as Item["inputs"]);
		for (const result of results) {
			addResult(item, result);
		}
		return item;
	}

	#root(digest: string): Item {
		let root = this.#roots.get(digest);
		if (root === undefined) {
			root = this.#create(digest);
			this.#roots.set(digest, root);
		}
		return root;
	}

	#join(digest: string, inputs: readonly (readonly Link[])[]): Item {
		const [first, ...others] = matches(digest, inputs);
		if (first === undefined) {
			const made = this.#create(digest);
			link(inputs, made);
			return made;
		}
		for (const other of others) {
			this.#merge(other, first);
		}
		// What is above an item can't be below it too: BuildKit calls that a loop and refuses the whole cache.
		const above = itemsAbove(first);
		link(
			inputs.map((alternatives) => alternatives.filter(({ from }) => !above.has(from))),
			first,
		);
		return first;
	}

	/** All that leads to one or on from it now leads to the other or on from that. */
	#merge(item: Item, into: Item): void {
		this.#items.delete(item);
		for (const [key, targets] of item.children) {
			for (const target of targets) {
				childrenOf(into, key).add(target);
				for (const [index, alternatives] of target.inputs.entries()) {
					target.inputs[index] = alternatives.map((each) =>
						each.from === item ? { from: into, selector: each.selector } : each,
					);
				}
			}
		}
		for (const [index, alternatives] of item.inputs.entries()) {
			for (const { from, selector } of alternatives) {
				from.children.get(linkKey(index, selector, item.digest))?.delete(item);
			}
		}
		const above = itemsAbove(into);
		link(
			item.inputs.map((alternatives) => alternatives.filter(({ from }) => !above.has(from))),
			into,
		);
		for (const result of item.results) {
			addResult(into, result);
		}
	}

	#create(digest: string): Item {
		const item: Item = { number: this.#count++, digest, inputs: [], results: [], children: new Map() };
		this.#items.add(item);
		return item;
	}
}

interface Link extends ChainLink {
	readonly from: Item;
}

interface Item extends ChainItem {
	readonly inputs: (readonly Link[])[];
	readonly results: CacheResult[];
	/** By input, selector and digest of what they are. */
	readonly children: Map<string, Set<Item>>;
}

function linkKey(input: number, selector: string, digest: string): string {
	return `${input} ${selector} ${digest}`;
}

function childrenOf(item: Item, key: string): Set<Item> {
	let children = item.children.get(key);
	if (children === undefined) {
		children = new Set();
		item.children.set(key, children);
	}
	return children;
}

/** Items of this digest that each input leads to. */
function matches(digest: string, inputs: readonly (readonly Link[])[]): readonly Item[] {
	let common: Item[] | undefined;
	for (const [index, alternatives] of inputs.entries()) {
		const here = new Set<Item>();
		for (const { from, selector } of alternatives) {
			for (const child of from.children.get(linkKey(index, selector, digest)) ?? []) {
				here.add(child);
			}
		}
		common = common === undefined ? [...here] : common.filter((item) => here.has(item));
		if (common.length === 0) {
			return common;
		}
	}
	return common ?? [];
}

function link(inputs: readonly (readonly Link[])[], to: Item): void {
	for (const [index, alternatives] of inputs.entries()) {
		const known = [...(to.inputs[index] ?? [])];
		for (const { from, selector } of alternatives) {
			const children = childrenOf(from, linkKey(index, selector, to.digest));
			if (!children.has(to) && from !== to) {
				children.add(to);
				known.push({ from, selector });
			}
		}
		to.inputs[index] = known;
	}
}

function itemsAbove(item: Item): ReadonlySet<Item> {
	const above = new Set<Item>([item]);
	for (const each of above) {
		for (const targets of each.children.values()) {
			for (const target of targets) {
				above.add(target);
			}
		}
	}
	return above;
}

function addResult(item: Item, result: CacheResult): void {
	const name = nameOf(result);
	const isKnown = item.results.some(
		(known) => known.createdAt === result.createdAt && nameOf(known) === name,
	);
	if (!isKnown) {
		item.results.push(result);
		item.results.sort((a, b) => b.createdAt - a.createdAt);
	}
}

function nameOf({ layers }: CacheResult): string {
	return layers.map(({ descriptor }) => descriptor.digest).join(" ");
}
