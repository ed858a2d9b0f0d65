import { createLimit } from "../async/limit.ts";
import type { ImmutableRef, LayerBlob } from "../cache/cache.ts";
import { toError } from "../errors/errors.ts";
import { isDigest } from "../oci/digest.ts";
import type { CacheKey, CacheSource, KeyReader, StepContext } from "../solver/solver.ts";
import type { CacheChains, ChainItem, ChainLink } from "./chains.ts";
import { recordDigest } from "./imported-source.ts";
import type { BlobForm, CacheBlob, CacheResult, ExportMode } from "./remotecache.ts";
import { blobOptions } from "./uploads.ts";

type Output = ImmutableRef | undefined;

export interface CollectOptions {
	readonly mode: ExportMode;
	readonly form: BlobForm;
	/** Where the keys' results are: the local store and what was imported. */
	readonly sources: readonly CacheSource<Output>[];
	readonly context: StepContext;
	/** Results are held until it is disposed, so that their blobs can be read. */
	readonly held: AsyncDisposableStack;
	/** Told of each layer that will be in the cache, as soon as it has a blob. */
	readonly onBlob?: (blob: CacheBlob) => void;
}

/** Layers that are compressed at the same time, beyond those of one result. */
const maxResults = 4;

/**
 * Puts the keys and all that is below them into the graph: what the build went through, and what the store knows besides, as
 * other ways to the same results (the content of a directory that this build did not have to look at).
 *
 * In mode `max` every step's result comes along. In mode `min` the first one on each way from the top does, and below it only what
 * has its blobs already, such as the layers of an image that was exported before.
 */
export async function collectRecords(
	keys: readonly CacheKey[],
	chains: CacheChains,
	options: CollectOptions,
): Promise<void> {
	const walk = new Walk(chains, options);
	if (options.mode === "max") {
		walk.prepare(keys);
	}
	for (const key of keys) {
		await walk.add(key);
	}
}

/** `known`: only results whose layers all have blobs. */
type Want = ExportMode | "known";

class Walk {
	readonly #chains: CacheChains;
	readonly #options: CollectOptions;
	readonly #items = new Map<CacheKey, ChainItem | undefined>();
	readonly #results = new Map<CacheKey, Promise<CacheResult | undefined>>();
	readonly #limit = createLimit(maxResults);
	readonly #known = new Map<KeyReader, Map<string, readonly ChainItem[]>>();

	constructor(chains: CacheChains, options: CollectOptions) {
		this.#chains = chains;
		this.#options = options;
	}

	/** Begins with all results at once. */
	prepare(keys: readonly CacheKey[]): void {
		const seen = new Set(keys);
		for (const key of seen) {
			this.#result(key, "max").catch(() => {});
			for (const { key: input } of key.inputs.flat()) {
				seen.add(input);
			}
		}
	}

	async add(top: CacheKey): Promise<void> {
		const stack: Visit[] = [{ key: top, want: this.#options.mode }];
		for (let visit = stack.at(-1); visit !== undefined; visit = stack.at(-1)) {
			const { key, want } = visit;
			if (visit.left === undefined) {
				if (this.#items.has(key)) {
					stack.pop();
					continue;
				}
				this.#items.set(key, undefined);
				visit.result = await this.#result(key, want);
				visit.left = key.inputs.flat().map((input) => input.key);
			}
			const next = visit.left.shift();
			if (next !== undefined) {
				stack.push({ key: next, want: visit.result !== undefined && want === "min" ? "known" : want });
				continue;
			}
			stack.pop();
			this.#items.set(key, this.#put(key, visit.result));
		}
	}

	#put(key: CacheKey, result: CacheResult | undefined): ChainItem | undefined {
		const inputs = key.inputs.map((alternatives) =>
			alternatives.flatMap(({ key: from, selector }): ChainLink[] => {
				const item = this.#items.get(from);
				return item === undefined ? [] : [{ from: item, selector: selector ?? "" }];
			}),
		);
		for (const { keys } of this.#options.sources) {
			for (const id of key.ids(keys)) {
				this.#otherWays(keys, id);
			}
		}
		if (inputs.some((links) => links.length === 0)) {
			return undefined;
		}
		return this.#chains.add(recordDigest(key), inputs, result === undefined ? [] : [result]);
	}

	/** All ways to a key that its store knows. */
	#otherWays(keys: KeyReader, top: string): readonly ChainItem[] {
		const known = this.#known.get(keys) ?? new Map<string, readonly ChainItem[]>();
		this.#known.set(keys, known);
		const stack = [top];
		const opened = new Set<string>();
		for (let id = stack.at(-1); id !== undefined; id = stack.at(-1)) {
			if (known.has(id)) {
				stack.pop();
				continue;
			}
			const links = keys.backlinks(id);
			const missing = links.filter(({ from }) => !known.has(from) && !opened.has(from));
			if (missing.length > 0 && !opened.has(id)) {
				opened.add(id);
				stack.push(...missing.map(({ from }) => from));
				continue;
			}
			stack.pop();
			known.set(id, links.length === 0 ? this.#root(id) : this.#joined(links, known));
		}
		return known.get(top) ?? [];
	}

	#root(id: string): readonly ChainItem[] {
		const item = isDigest(id) ? this.#chains.add(id, [], []) : undefined;
		return item === undefined ? [] : [item];
	}

	#joined(
		links: ReturnType<KeyReader["backlinks"]>,
		known: ReadonlyMap<string, readonly ChainItem[]>,
	): readonly ChainItem[] {
		const byDigest = new Map<string, ChainLink[][]>();
		for (const { from, link } of links) {
			const digest = recordDigest(link);
			const inputs = byDigest.get(digest) ?? [];
			byDigest.set(digest, inputs);
			while (inputs.length <= link.input) {
				inputs.push([]);
			}
			const alternatives = (known.get(from) ?? []).map((item) => ({
				from: item,
				selector: link.selector ?? "",
			}));
			inputs[link.input]?.push(...alternatives);
		}
		return [...byDigest].flatMap(([digest, inputs]) => {
			const item = inputs.every((each) => each.length > 0) ? this.#chains.add(digest, inputs, []) : undefined;
			return item === undefined ? [] : [item];
		});
	}

	#result(key: CacheKey, want: Want): Promise<CacheResult | undefined> {
		let result = this.#results.get(key);
		if (result === undefined) {
			result = this.#askResult(key, want);
			this.#results.set(key, result);
		}
		return result;
	}

	/** Of what comes from outside (images, contexts) only the key is kept: its files are there anyway. */
	async #askResult(key: CacheKey, want: Want): Promise<CacheResult | undefined> {
		if (key.inputs.length === 0 || key.exportCache === false) {
			return undefined;
		}
		const records = [...key.records()].sort((a, b) => b.record.createdAt - a.record.createdAt);
		if (records.length === 0) {
			return undefined;
		}
		const { context, sources, held, onBlob } = this.#options;
		using _slot = await this.#limit.acquire(context);
		for (const { keys, record } of records) {
			const source = sources.find((each) => each.keys === keys);
			const loaded = await source?.results.load(record, context);
			if (loaded === undefined) {
				continue;
			}
			held.defer(async () => await loaded.result?.release());
			const layers = await this.#layers(loaded.result, want);
			if (layers === undefined || layers.length === 0) {
				return undefined;
			}
			for (const layer of layers) {
				onBlob?.(layer);
			}
			return { createdAt: record.createdAt, layers };
		}
		return undefined;
	}

	async #layers(ref: Output, want: Want): Promise<readonly CacheBlob[] | undefined> {
		if (ref === undefined) {
			return undefined;
		}
		const { form, context } = this.#options;
		const options = blobOptions(form, context);
		if (want === "known") {
			return await ref.knownBlobs(options).catch((thrown: unknown): readonly LayerBlob[] | undefined => {
				context.signal.throwIfAborted();
				toError(thrown);
				return undefined;
			});
		}
		return await ref.blobs(options);
	}
}

interface Visit {
	readonly key: CacheKey;
	readonly want: Want;
	result?: CacheResult | undefined;
	/** Inputs that are still to be visited; undefined before the first. */
	left?: CacheKey[];
}
