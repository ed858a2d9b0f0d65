import { parallel, type Scope } from "../async/scope.ts";
import { SharedQuestion } from "../async/shared-question.ts";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { progressTime } from "../progress/progress.ts";
import { Execution } from "./execution.ts";
import { alternativesOf, Key, storeKey } from "./key.ts";
import type { CacheSource, LoadedResult, ResultRecord } from "./solver.ts";
import type { VertexState } from "./vertex-state.ts";

interface Candidate<R> {
	readonly source: CacheSource<R>;
	readonly record: ResultRecord;
	/** Where it was found: keys with the ids that hold it. */
	readonly places: Map<Key, string[]>;
}

export interface Outcome<R> {
	/** The edge's own; whoever wants to keep it clones it. */
	readonly result: R;
	readonly keys: readonly Key[];
}

/**
 * One output of a vertex. Its three questions are asked in order, each once for all who want to know: what is known by
 * definition (`fast`), what is known by content of inputs (`slow`), and the result.
 */
export class EdgeState<R> {
	readonly vertex: VertexState<R>;
	readonly index: number;
	/** One for each cache map of the vertex that was asked for. */
	readonly keys: Key[] = [];
	readonly #fast = new SharedQuestion((scope) => this.#askFast(scope));
	readonly #slow = new SharedQuestion((scope) => this.#askSlow(scope));
	readonly #result: SharedQuestion<Outcome<R>>;
	/** Ids of records that could not be loaded. */
	readonly #damaged = new Map<CacheSource<R>, Set<string>>();
	/** Where an imported result came from. */
	#imported: Candidate<R> | undefined;
	/** What the local store knows the result by. */
	#kept: ResultRecord | undefined;
	#closed = false;

	constructor(vertex: VertexState<R>, index: number) {
		this.vertex = vertex;
		this.index = index;
		this.#result = new SharedQuestion((scope) => this.#askResult(scope), {
			discard: ({ result }) => vertex.graph.handling.release(result),
		});
	}

	fast(scope: Scope): Promise<void> {
		return this.#fast.ask(scope);
	}

	slow(scope: Scope): Promise<void> {
		return this.#slow.ask(scope);
	}

	result(scope: Scope): Promise<Outcome<R>> {
		return this.#result.ask(scope);
	}

	/** A clone of the result. */
	async borrow(scope: Scope): Promise<R> {
		const { result } = await this.#result.ask(scope);
		if (this.#closed) {
			throw canceled();
		}
		return this.vertex.graph.handling.clone(result);
	}

	forgetErrors(): void {
		for (const question of [this.#fast, this.#slow, this.#result]) {
			question.forgetError();
		}
	}

	forgetLookups(): void {
		if (this.#result.value === undefined) {
			this.#fast.forget();
			this.#slow.forget();
		}
	}

	/** True if the result turned out to be none, and is let go: it is looked up anew, and made if need be. */
	async forgetLost(scope: Scope): Promise<boolean> {
		if (this.#result.value === undefined || !(await this.#isLost(scope))) {
			return false;
		}
		if (this.#imported !== undefined) {
			this.#discard(this.#imported);
			this.#imported = undefined;
		}
		this.#result.forget();
		return true;
	}

	async #isLost(scope: Scope): Promise<boolean> {
		if (this.#imported !== undefined && !(await this.#exists(this.#imported))) {
			return true;
		}
		if (this.#kept === undefined) {
			return false;
		}
		const { results, handling } = this.vertex.graph;
		const loaded = await results.load(this.#kept, { signal: scope.signal });
		if (loaded !== undefined) {
			await handling.release(loaded.result);
		}
		return loaded === undefined;
	}

	async close(): Promise<void> {
		this.#closed = true;
		await Promise.all(
			[this.#fast, this.#slow, this.#result].map((question) => question[Symbol.asyncDispose]()),
		);
	}

	/** Asks for one cache map after the other until a record is found. Goes on where it stopped when asked again. */
	async #askFast(scope: Scope): Promise<void> {
		const { vertex } = this;
		if (vertex.ignoreCache) {
			return;
		}
		await parallel(scope, [
			(inner) => vertex.loadMap(0, inner),
			...vertex.inputs.map((input) => (inner: Scope) => input.fast(inner)),
		]);
		for (const key of this.keys) {
			key.match();
		}
		if (this.keys.length > 0 && (await this.#find()) !== undefined) {
			return;
		}
		while (vertex.mayHaveMap(this.keys.length)) {
			await vertex.loadMap(this.keys.length, scope);
			this.#addKey();
			if ((await this.#find()) !== undefined) {
				return;
			}
		}
	}

	/** All maps have been seen, or a record was found. */
	async #askSlow(scope: Scope): Promise<void> {
		if (this.vertex.ignoreCache || (await this.#exhaustFast(scope)) !== undefined) {
			return;
		}
		for (let map = 0; map < this.keys.length; map++) {
			await this.#searchByContent(map, scope);
			if ((await this.#find()) !== undefined) {
				return;
			}
		}
	}

	async #askResult(scope: Scope): Promise<Outcome<R>> {
		if (!this.vertex.ignoreCache) {
			for (;;) {
				const found = (await this.#exhaustFast(scope)) ?? (await this.#exhaustSlow(scope));
				if (found === undefined) {
					break;
				}
				const outcome = await this.#load(found, scope);
				if (outcome !== undefined) {
					return outcome;
				}
			}
		}
		return await this.#execute(scope);
	}

	/** The best record that is known without content of inputs; the answer may have been made worthless since. */
	async #exhaustFast(scope: Scope): Promise<Candidate<R> | undefined> {
		for (;;) {
			await this.#fast.ask(scope);
			const found = await this.#find();
			if (found !== undefined || !this.vertex.mayHaveMap(this.keys.length)) {
				return found;
			}
			this.#fast.forget();
		}
	}

	async #exhaustSlow(scope: Scope): Promise<Candidate<R> | undefined> {
		await this.#slow.ask(scope);
		return await this.#find();
	}

	/**
	 * Inputs that no store knows come first: one that stays unknown ends the search. Only then are inputs materialized
	 * that are known by definition, and whose content might lead elsewhere.
	 */
	async #searchByContent(map: number, scope: Scope): Promise<void> {
		const key = this.keys[map];
		const inputs = this.vertex.inputs.map((_, index) => index);
		if (key === undefined || inputs.length === 0) {
			return;
		}
		const unknown = inputs.filter((index) => !key.isInputMatched(index));
		const known = inputs.filter((index) => key.isInputMatched(index));
		const search = (index: number, isKnown: boolean) => (inner: Scope) =>
			this.#searchInput(map, index, isKnown, inner);
		const ended = await parallel(
			scope,
			unknown.map((index) => search(index, false)),
		);
		if (!ended && (await this.#find()) === undefined) {
			await parallel(
				scope,
				known.map((index) => search(index, true)),
			);
		}
	}

	/** True if the search has ended: a record is found, or there can be none. */
	async #searchInput(map: number, index: number, isKnown: boolean, scope: Scope): Promise<boolean> {
		const key = this.keys[map];
		if (key === undefined) {
			return true;
		}
		await this.vertex.inputs[index]?.slow(scope);
		key.matchInput(index);
		if ((await this.#find()) !== undefined) {
			return true;
		}
		if (!isKnown && key.isInputMatched(index)) {
			return false;
		}
		if (this.vertex.maps[map]?.map.inputs[index]?.contentDigest !== undefined) {
			await this.vertex.loadContent(map, index, scope);
			key.matchInput(index);
		}
		return !key.isInputMatched(index) || (await this.#find()) !== undefined;
	}

	/**
	 * The newest record of the first source that has one. Keys are narrowed to it: a consumer that looks further by an
	 * older id would find what was made from an older result.
	 */
	async #find(): Promise<Candidate<R> | undefined> {
		for (const source of this.vertex.sources) {
			for (const candidate of this.#candidates(source)) {
				if (await this.#exists(candidate)) {
					for (const [key, ids] of candidate.places) {
						key.choose(source.keys, ids);
					}
					return candidate;
				}
				this.#discard(candidate);
			}
		}
		return undefined;
	}

	async #exists({ source, record }: Candidate<R>): Promise<boolean> {
		try {
			return await source.results.exists(record);
		} catch (error) {
			this.#warn(`cannot look up the cached result: ${toError(error).message}`);
			return false;
		}
	}

	#candidates(source: CacheSource<R>): Candidate<R>[] {
		const byId = new Map<string, Candidate<R>>();
		const damaged = this.#damaged.get(source);
		for (const key of this.keys) {
			if (!key.matchable) {
				continue;
			}
			for (const id of key.foundIds(source.keys)) {
				for (const record of source.keys.results(id)) {
					if (damaged?.has(record.id)) {
						continue;
					}
					const candidate = byId.get(record.id) ?? { source, record, places: new Map<Key, string[]>() };
					byId.set(record.id, candidate);
					const ids = candidate.places.get(key);
					if (ids === undefined) {
						candidate.places.set(key, [id]);
					} else {
						ids.push(id);
					}
				}
			}
		}
		return [...byId.values()].sort((a, b) => b.record.createdAt - a.record.createdAt);
	}

	#discard({ source, record }: Candidate<R>): void {
		const damaged = this.#damaged.get(source);
		if (damaged === undefined) {
			this.#damaged.set(source, new Set([record.id]));
		} else {
			damaged.add(record.id);
		}
		if (source === this.vertex.graph.local) {
			this.vertex.graph.store.removeResult(record.id);
		}
	}

	/** Undefined if the result cannot be loaded: then the record is gone, and the vertex goes on as if there had been none. */
	async #load(candidate: Candidate<R>, scope: Scope): Promise<Outcome<R> | undefined> {
		const started = progressTime();
		const { source, record } = candidate;
		let loaded: LoadedResult<R> | undefined;
		try {
			loaded = await source.results.load(record, { signal: scope.signal });
		} catch (error) {
			scope.throwIfAborted();
			this.#warn(`cannot load the cached result: ${toError(error).message}`);
		}
		if (loaded === undefined) {
			this.#discard(candidate);
			return undefined;
		}
		this.#imported = source === this.vertex.graph.local ? undefined : candidate;
		const keys = [...candidate.places.keys()];
		const outcome = {
			result: loaded.result,
			keys: [...keys, ...this.keys.filter((key) => !candidate.places.has(key))],
		};
		await this.#keep(outcome, source === this.vertex.graph.local ? record : undefined, scope);
		await this.#keepBeginnings(candidate, keys, scope);
		this.vertex.reportCached(started);
		return outcome;
	}

	/** What an imported result was built on, as far as it came along with it. */
	async #keepBeginnings({ source, record }: Candidate<R>, keys: readonly Key[], scope: Scope): Promise<void> {
		const { begins } = source.results;
		if (begins === undefined) {
			return;
		}
		const { store } = this.vertex.graph;
		const below = new Set(keys);
		for (const key of below) {
			for (const input of key.alternatives) {
				for (const { key: from } of alternativesOf(input)) {
					below.add(from);
				}
			}
			const found = keys.includes(key)
				? undefined
				: key
						.ids(source.keys)
						.flatMap((id) => source.keys.results(id))
						.find((each) => begins(each, record));
			if (found === undefined || key.ids(store).some((id) => store.results(id).length > 0)) {
				continue;
			}
			const loaded = await source.results.load(found, { signal: scope.signal });
			if (loaded !== undefined) {
				await this.#keepUnder(key, loaded.result, scope);
			}
		}
	}

	async #keepUnder(key: Key, result: R, scope: Scope): Promise<void> {
		const { store, results, handling } = this.vertex.graph;
		try {
			await this.vertex.guard(scope, "failed to save the result", async () => {
				const kept = await results.save(result);
				for (const id of storeKey(key, store)) {
					store.addResult(id, kept);
				}
			});
		} finally {
			await handling.release(result);
		}
	}

	async #execute(scope: Scope): Promise<Outcome<R>> {
		const { vertex } = this;
		await vertex.loadAllMaps(scope);
		await parallel(
			scope,
			[
				...vertex.inputs.map((input) => (inner: Scope) => input.result(inner)),
				...this.#contents().map(
					([map, index]) =>
						(inner: Scope) =>
							vertex.loadContent(map, index, inner),
				),
			].map((work) => async (inner: Scope) => void (await work(inner))),
		);
		while (this.keys.length < vertex.maps.length) {
			this.#addKey();
		}
		if (!vertex.ignoreCache) {
			for (const key of this.keys) {
				key.match();
			}
			// All is known now: the last chance to find what another build has finished meanwhile.
			for (let found = await this.#find(); found !== undefined; found = await this.#find()) {
				const outcome = await this.#load(found, scope);
				if (outcome !== undefined) {
					return outcome;
				}
			}
		}
		return await this.#run(scope);
	}

	#contents(): [map: number, input: number][] {
		return this.vertex.maps.flatMap(({ map }, mapIndex) =>
			map.inputs.flatMap((input, index): [number, number][] =>
				input.contentDigest === undefined ? [] : [[mapIndex, index]],
			),
		);
	}

	async #run(scope: Scope): Promise<Outcome<R>> {
		const { vertex } = this;
		const { handling } = vertex.graph;
		for (;;) {
			const started = progressTime();
			const execution = vertex.execution ?? (await this.#joinExecution(scope));
			let outputs: readonly R[];
			try {
				outputs = await execution.outputs(scope);
			} catch (error) {
				if (scope.aborted || !execution.spent) {
					throw error;
				}
				if (vertex.execution === execution) {
					vertex.execution = undefined;
				}
				await execution.leave(vertex);
				continue;
			}
			if (this.index >= outputs.length) {
				const message = `${vertex.vertex.name} gave ${outputs.length} outputs, output ${this.index} was asked for`;
				throw new SlipwayError("internal", message, {
					details: [{ kind: "vertex", digest: vertex.vertex.digest }],
				});
			}
			// The cast is safe by the check above; an output may itself be undefined.
			const outcome = { result: handling.clone(outputs[this.index] as R), keys: this.keys };
			for (const key of this.keys) {
				key.fresh = `${execution.tag} ${this.index}`;
			}
			await this.#keep(outcome, undefined, scope);
			if (execution.owner !== vertex) {
				vertex.reportCached(started);
			}
			return outcome;
		}
	}

	/** Finds an equal execution or makes one. It does not wait between looking and entering: no other can come between. */
	async #joinExecution(scope: Scope): Promise<Execution<R>> {
		const { vertex } = this;
		const { graph } = vertex;
		const inputs = await borrowAll(vertex, scope);
		let unused: readonly R[] = [];
		let execution = vertex.execution ?? graph.executions.find(this.keys, vertex.ignoreCache);
		if (execution === undefined) {
			execution = new Execution({
				owner: vertex,
				inputs,
				handling: graph.handling,
				limit: graph.limit,
				onEnd: (ended) => graph.executions.remove(ended),
			});
			graph.executions.add(execution, this.keys);
		} else {
			unused = inputs;
		}
		vertex.execution = execution;
		execution.use(vertex);
		if (execution.owner !== vertex) {
			graph.accompany(vertex, [execution.owner]);
		}
		await Promise.all(unused.map((input) => graph.handling.release(input)));
		return execution;
	}

	/** Keeps the result under all keys, so that every way that is known by now leads to it. */
	async #keep(outcome: Outcome<R>, record: ResultRecord | undefined, scope: Scope): Promise<void> {
		const { store, results, handling } = this.vertex.graph;
		try {
			await this.vertex.guard(scope, "failed to save the result", async () => {
				const ids = this.keys.map((key) => storeKey(key, store));
				const isKnown = record !== undefined || ids.every((list) => list.length === 0);
				const kept = isKnown ? record : await results.save(outcome.result);
				this.#kept = kept;
				for (const [index, key] of this.keys.entries()) {
					for (const id of ids[index] ?? []) {
						key.addId(store, id);
						if (kept !== undefined && !store.results(id).some((known) => known.id === kept.id)) {
							store.addResult(id, kept);
						}
					}
				}
			});
		} catch (error) {
			await handling.release(outcome.result);
			throw error;
		}
	}

	#addKey(): void {
		const { vertex } = this;
		const loaded = vertex.maps[this.keys.length];
		if (loaded === undefined) {
			return;
		}
		const key = new Key({
			digest: loaded.map.digest,
			output: this.index,
			inputs: loaded.inputs,
			vertex: vertex.vertex.digest,
			exportCache: vertex.vertex.options.exportCache,
			matchable: !vertex.ignoreCache,
			readers: vertex.readers,
		});
		this.keys.push(key);
		key.match();
	}

	#warn(short: string): void {
		const { id } = this.vertex;
		this.vertex.emit({ kind: "warning", warning: { vertex: id, level: 1, short, detail: [] } });
	}
}

async function borrowAll<R>(vertex: VertexState<R>, scope: Scope): Promise<R[]> {
	const borrowed = await Promise.allSettled(vertex.inputs.map((input) => input.borrow(scope)));
	const results = borrowed.filter((one) => one.status === "fulfilled").map((one) => one.value);
	const failed = borrowed.find((one) => one.status === "rejected");
	if (failed !== undefined) {
		await Promise.all(results.map((result) => vertex.graph.handling.release(result)));
		throw failed.reason;
	}
	return results;
}
