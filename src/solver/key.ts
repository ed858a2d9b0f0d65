import { hash } from "node:crypto";
import { type Digest, sha256 } from "../oci/digest.ts";
import type { CacheKey, CacheKeyInput, FoundRecord, KeyLink, KeyReader, KeyStore } from "./solver.ts";

/** Alternatives for one input of an op: the keys of the input's edge, and its content where that is part of the key. */
export interface KeyInput {
	/** Grows while more of the input becomes known. */
	readonly keys: readonly Key[];
	readonly selector: Digest | undefined;
	content: Key | undefined;
}

export interface KeyOptions {
	readonly digest: string;
	readonly output: number;
	readonly inputs: readonly KeyInput[];
	readonly vertex?: Digest;
	readonly exportCache?: boolean | undefined;
	/** False for a vertex that ignores the cache: nothing may be found through its keys in this build. */
	readonly matchable: boolean;
	/** Where lookups go, the local store first; grows. */
	readonly readers: readonly KeyReader[];
}

const randomPrefix = "random:";

/** The id of a key without inputs, as BuildKit has it. A `random:` digest passes through. */
export function rootKeyId(digest: string, output: number): string {
	return digest.startsWith(randomPrefix) ? digest : sha256(`${digest}@${output}`);
}

/** The key of content, which is no op's output. It has the same id in every store. */
export function createContentKey(digest: Digest, readers: readonly KeyReader[]): Key {
	return new Key({ digest, output: -1, inputs: [], matchable: true, readers });
}

let freshTags = 0;

/**
 * One way to know an output: op digest, output and inputs. In each store it has the ids that are found by following links
 * from the ids of its inputs; for storing it has an id of its own, derived from digest, output and the strongest
 * alternative of each input, so that who comes to the same content by another way derives the same id.
 *
 * A key is *matchable* if nothing below it was made to ignore the cache, or if content stands between: what a forced run
 * gave may differ from what its key once stood for, so nothing may be looked up through it.
 */
export class Key implements CacheKey {
	readonly digest: string;
	readonly output: number;
	readonly vertex: Digest | undefined;
	readonly exportCache: boolean | undefined;
	readonly alternatives: readonly KeyInput[];
	/** Tells apart results of forced runs that share an id, where equal executions are looked for. */
	fresh: string | undefined;
	readonly #readers: readonly KeyReader[];
	readonly #ignoring: boolean;
	readonly #found = new Map<KeyReader, string[]>();
	/** The ids that hold the record that was chosen: what is above must belong to it, not to older ones. */
	readonly #chosen = new Map<KeyReader, string[]>();
	/** By reader and id of a key, the inputs that lead to it. */
	readonly #reached = new Map<KeyReader, Map<string, Set<number>>>();
	readonly #matchedInputs = new Set<number>();
	readonly #matchableInputs = new Set<number>();
	#matchable: boolean;
	#ownId: string | undefined;

	constructor(options: KeyOptions) {
		this.digest = options.digest;
		this.output = options.output;
		this.vertex = options.vertex;
		this.exportCache = options.exportCache;
		this.alternatives = options.inputs;
		this.#readers = options.readers;
		this.#ignoring = !options.matchable;
		this.#matchable = options.matchable && options.inputs.length === 0;
		if (options.inputs.length === 0) {
			this.#ownId = rootKeyId(options.digest, options.output);
		}
	}

	get matchable(): boolean {
		return this.#matchable;
	}

	get id(): string {
		return localIds(this, this.#readers[0])[0] ?? "";
	}

	get inputs(): readonly (readonly CacheKeyInput[])[] {
		return this.alternatives.map((input) => [...alternativesOf(input)]);
	}

	get ownId(): string | undefined {
		return this.#ownId;
	}

	records(): readonly FoundRecord[] {
		return this.#readers.flatMap((keys) =>
			this.ids(keys).flatMap((id) => keys.results(id).map((record) => ({ keys, record }))),
		);
	}

	/** True if some store knows this input of the op. */
	isInputMatched(index: number): boolean {
		return this.#matchedInputs.has(index);
	}

	/** Ids that lead further up: those of the chosen record, else all that were found. */
	ids(reader: KeyReader): readonly string[] {
		return this.#chosen.get(reader) ?? this.foundIds(reader);
	}

	foundIds(reader: KeyReader): readonly string[] {
		if (this.alternatives.length === 0 && this.#ownId !== undefined) {
			return [this.#ownId];
		}
		return this.#found.get(reader) ?? [];
	}

	choose(reader: KeyReader, ids: readonly string[]): void {
		this.#chosen.set(reader, [...ids]);
	}

	addId(reader: KeyReader, id: string): void {
		const ids = this.#found.get(reader);
		if (ids === undefined) {
			this.#found.set(reader, [id]);
		} else if (!ids.includes(id)) {
			ids.push(id);
		}
	}

	setOwnId(id: string): void {
		this.#ownId = id;
	}

	/** Looks for this key by what is now known of all its inputs. */
	match(): void {
		for (let index = 0; index < this.alternatives.length; index++) {
			this.matchInput(index);
		}
	}

	/** The same after something became known of one input; constant in the number of inputs. */
	matchInput(index: number): void {
		const input = this.alternatives[index];
		if (input === undefined || this.#ignoring) {
			return;
		}
		if (!this.#matchableInputs.has(index) && [...alternativesOf(input)].some(({ key }) => key.matchable)) {
			this.#matchableInputs.add(index);
			this.#matchable = this.#matchableInputs.size === this.alternatives.length;
		}
		for (const reader of this.#readers) {
			const targets = this.#targets(reader, index, input);
			if (targets.size > 0) {
				this.#matchedInputs.add(index);
				this.#count(reader, index, targets);
			}
		}
	}

	/** A key is found when each input leads to it. */
	#count(reader: KeyReader, index: number, targets: ReadonlySet<string>): void {
		if (this.alternatives.length === 1) {
			for (const id of targets) {
				this.addId(reader, id);
			}
			return;
		}
		let reached = this.#reached.get(reader);
		if (reached === undefined) {
			reached = new Map();
			this.#reached.set(reader, reached);
		}
		for (const id of targets) {
			let inputs = reached.get(id);
			if (inputs === undefined) {
				inputs = new Set();
				reached.set(id, inputs);
			}
			inputs.add(index);
			if (inputs.size === this.alternatives.length) {
				this.addId(reader, id);
			}
		}
	}

	#targets(reader: KeyReader, index: number, input: KeyInput): Set<string> {
		const targets = new Set<string>();
		for (const { key, selector } of alternativesOf(input)) {
			if (!key.matchable) {
				continue;
			}
			const link = linkOf(this, index, selector);
			for (const from of key.ids(reader)) {
				for (const target of reader.targets(from, link)) {
					targets.add(target);
				}
			}
		}
		return targets;
	}
}

/** Content first: of all alternatives it says most. */
export function* alternativesOf(input: KeyInput | undefined): Generator<{ key: Key; selector?: Digest }> {
	if (input?.content !== undefined) {
		yield { key: input.content };
	}
	for (const key of input?.keys ?? []) {
		yield input?.selector === undefined ? { key } : { key, selector: input.selector };
	}
}

function linkOf(key: Key, input: number, selector: Digest | undefined): KeyLink {
	return { input, output: key.output, digest: key.digest, ...(selector === undefined ? {} : { selector }) };
}

function isDurable(id: string): boolean {
	return !id.startsWith(randomPrefix);
}

/** The ids that the key has or gets in the local store. */
export function localIds(key: Key, store: KeyReader | undefined): readonly string[] {
	const found = store === undefined ? [] : key.ids(store);
	return found.length > 0 ? found : [ownIdOf(key, store)];
}

function ownIdOf(key: Key, store: KeyReader | undefined): string {
	const stack = [key];
	for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
		const missing = top.ownId === undefined ? inputsWithoutId(top, store) : [];
		if (missing.length > 0) {
			stack.push(...missing);
			continue;
		}
		if (top.ownId === undefined) {
			top.setOwnId(deriveId(top, store));
		}
		stack.pop();
	}
	return key.ownId ?? "";
}

function inputsWithoutId(key: Key, store: KeyReader | undefined): Key[] {
	const missing: Key[] = [];
	for (const input of key.alternatives) {
		for (const alternative of alternativesOf(input)) {
			if (knownId(alternative.key, store) === undefined) {
				missing.push(alternative.key);
			}
		}
	}
	return missing;
}

function knownId(key: Key, store: KeyReader | undefined): string | undefined {
	return (store === undefined ? undefined : key.ids(store)[0]) ?? key.ownId;
}

function deriveId(key: Key, store: KeyReader | undefined): string {
	let durable = true;
	const parts = [key.digest, String(key.output)];
	for (const input of key.alternatives) {
		const candidates = [...alternativesOf(input)].map(({ key: from, selector }) => ({
			id: knownId(from, store) ?? "",
			selector: selector ?? "",
		}));
		const best = candidates.find(({ id }) => isDurable(id)) ?? candidates[0];
		durable &&= best !== undefined && isDurable(best.id);
		parts.push(best?.id ?? "", best?.selector ?? "");
	}
	const digest = hash("sha256", parts.join("\n"));
	return durable && isDurable(key.digest) ? `sha256:${digest}` : randomPrefix + digest;
}

/**
 * Makes every known way lead to the key in the store: links from all alternatives of all inputs, and below them where the
 * store does not know them yet. Gives the ids under which a result may be kept; none for a key that cannot match again.
 */
export function storeKey(key: Key, store: KeyStore): readonly string[] {
	const ids = localIds(key, store).filter(isDurable);
	const stack = ids.length === 0 ? [] : [key];
	for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
		const targets = localIds(top, store).filter(isDurable);
		for (const [index, input] of top.alternatives.entries()) {
			for (const { key: from, selector } of alternativesOf(input)) {
				const link = linkOf(top, index, selector);
				for (const id of localIds(from, store)) {
					if (!isDurable(id)) {
						continue;
					}
					if (from.alternatives.length > 0 && !store.hasKey(id)) {
						stack.push(from);
					}
					addLinks(store, id, link, targets);
				}
			}
		}
	}
	return ids;
}

/** Asks before it writes: a build of known vertices must not write to a database. */
function addLinks(store: KeyStore, from: string, link: KeyLink, targets: readonly string[]): void {
	const known = store.targets(from, link);
	for (const target of targets) {
		if (target !== from && !known.includes(target)) {
			store.addLink(from, link, target);
		}
	}
}

/** What stands for the key where equal executions are looked for. */
export function flightIds(key: Key, store: KeyReader): readonly string[] {
	if (key.matchable) {
		return localIds(key, store);
	}
	key.fresh ??= newFreshTag();
	return [key.fresh];
}

export function newFreshTag(): string {
	return `fresh ${++freshTags}`;
}
