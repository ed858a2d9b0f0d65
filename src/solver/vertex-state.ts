import type { Scope } from "../async/scope.ts";
import { SharedQuestion } from "../async/shared-question.ts";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { type ProgressEvent, progressTime, type VertexRecord } from "../progress/progress.ts";
import { EdgeState } from "./edge-state.ts";
import type { Execution } from "./execution.ts";
import type { Graph } from "./graph.ts";
import type { SolverJob } from "./job.ts";
import { createContentKey, type KeyInput } from "./key.ts";
import type { CacheMap, CacheSource, KeyReader, Op, StepContext, Vertex } from "./solver.ts";

export interface LoadedMap<R> {
	readonly map: CacheMap<R>;
	readonly inputs: readonly KeyInput[];
}

/** A vertex that at least one job holds, with everything that is known of it. */
export class VertexState<R> {
	/** The vertex's digest, but for a twin that ignores the cache beside one that does not. */
	readonly id: Digest;
	readonly vertex: Vertex;
	readonly graph: Graph<R>;
	readonly inputs: readonly EdgeState<R>[];
	readonly jobs: Set<SolverJob<R>> = new Set();
	/** Vertices that jobs hold together with this one: those of builds from inside its op, and of executions it joined. */
	readonly companions: Set<VertexState<R>> = new Set();
	/** Where lookups go, the local cache first. */
	readonly sources: CacheSource<R>[];
	readonly readers: KeyReader[];
	execution: Execution<R> | undefined;
	/** True once the op has executed here: its results are not shown as cached. */
	executed = false;
	record: VertexRecord;
	readonly #edges: (EdgeState<R> | undefined)[] = [];
	readonly #mapQuestions: SharedQuestion<void>[] = [];
	readonly #contentQuestions = new Map<string, SharedQuestion<void>>();
	readonly #maps: LoadedMap<R>[] = [];
	#lastMap = false;
	#op: Op<R> | undefined;

	constructor(graph: Graph<R>, id: Digest, vertex: Vertex, inputs: readonly EdgeState<R>[]) {
		this.graph = graph;
		this.id = id;
		this.vertex = vertex;
		this.inputs = inputs;
		this.sources = [graph.local];
		this.readers = [graph.local.keys];
		const { progressGroup } = vertex.options;
		this.record = {
			digest: id,
			inputs: inputs.map((input) => input.vertex.id),
			name: vertex.name,
			cached: false,
			...(progressGroup === undefined ? {} : { progressGroup }),
		};
	}

	get ignoreCache(): boolean {
		return this.vertex.options.ignoreCache;
	}

	edge(index: number): EdgeState<R> {
		this.#edges[index] ??= new EdgeState(this, index);
		return this.#edges[index];
	}

	/** What was asked without them and found nothing is asked again. */
	addSources(sources: Iterable<CacheSource<R>>): void {
		for (const source of sources) {
			if (!this.sources.includes(source)) {
				this.sources.push(source);
				this.readers.push(source.keys);
				for (const edge of this.#edges) {
					edge?.forgetLookups();
				}
			}
		}
	}

	async forgetLost(scope: Scope): Promise<void> {
		const lost = await Promise.all(this.#edges.map((edge) => edge?.forgetLost(scope)));
		const { execution } = this;
		if (execution !== undefined && lost.includes(true)) {
			this.execution = undefined;
			await execution.leave(this);
		}
	}

	/** A new build begins to hold the vertex: it does not inherit failures. */
	forgetErrors(): void {
		if (this.execution?.failed === true) {
			this.execution = undefined;
		}
		for (const question of [...this.#mapQuestions, ...this.#contentQuestions.values()]) {
			question.forgetError();
		}
		for (const edge of this.#edges) {
			edge?.forgetErrors();
		}
	}

	op(): Op<R> {
		this.#op ??= this.graph.resolveOp(this);
		return this.#op;
	}

	get maps(): readonly LoadedMap<R>[] {
		return this.#maps;
	}

	/** False once there is no map of this index. */
	mayHaveMap(index: number): boolean {
		return index < this.#maps.length || !this.#lastMap;
	}

	/** Makes sure that the map of this index is there; the earlier ones must be. */
	loadMap(index: number, scope: Scope): Promise<void> {
		this.#mapQuestions[index] ??= new SharedQuestion((inner) => this.#askMap(index, inner));
		return this.#mapQuestions[index].ask(scope);
	}

	async loadAllMaps(scope: Scope): Promise<void> {
		for (let index = 0; this.mayHaveMap(index); index++) {
			await this.loadMap(index, scope);
		}
	}

	/** Makes the content of an input part of the keys of this map. Materializes the input. */
	loadContent(map: number, input: number, scope: Scope): Promise<void> {
		const name = `${map} ${input}`;
		let question = this.#contentQuestions.get(name);
		if (question === undefined) {
			question = new SharedQuestion((inner) => this.#askContent(map, input, inner));
			this.#contentQuestions.set(name, question);
		}
		return question.ask(scope);
	}

	/** Adds what ops give to an error of this vertex. Nothing is shown in progress. */
	async guard<T>(scope: Scope, prefix: string, work: () => Promise<T>): Promise<T> {
		try {
			return await work();
		} catch (thrown) {
			throw this.#toError(thrown, prefix, scope);
		}
	}

	/** Runs a piece of the op that is shown as the vertex's work. */
	async run<T>(scope: Scope, prefix: string, work: (context: StepContext) => Promise<T>): Promise<T> {
		const started = progressTime();
		const { completed: _completed, error: _error, ...before } = this.record;
		const record = { ...before, cached: false, started };
		this.#report(record);
		try {
			const value = await work(this.context(scope));
			this.#report({ ...record, completed: progressTime() });
			return value;
		} catch (thrown) {
			const error = scope.aborted ? "context canceled" : toError(thrown).message;
			this.#report({ ...record, completed: progressTime(), error });
			throw this.#toError(thrown, prefix, scope);
		}
	}

	/** Shows a failure of work that is not shown while it goes well. */
	async runQuietly<T>(scope: Scope, prefix: string, work: (context: StepContext) => Promise<T>): Promise<T> {
		try {
			return await work(this.context(scope));
		} catch (thrown) {
			if (!scope.aborted) {
				const time = progressTime();
				const { message } = toError(thrown);
				this.#report({
					...this.record,
					cached: false,
					started: this.record.started ?? time,
					completed: time,
					error: message,
				});
			}
			throw this.#toError(thrown, prefix, scope);
		}
	}

	/** A result came from the cache; said once, and not of a vertex that has run. */
	reportCached(started: number): void {
		if (this.executed || (this.record.cached && this.record.completed !== undefined)) {
			return;
		}
		const { error: _error, ...record } = this.record;
		this.#report({ ...record, cached: true, started, completed: progressTime() });
	}

	emit(event: ProgressEvent): void {
		for (const job of this.jobs) {
			job.progress.write(event);
		}
	}

	context(scope: Scope): StepContext {
		return {
			get signal() {
				return scope.signal;
			},
			vertex: this.id,
			progress: { write: (event) => this.emit(event) },
			clients: () => [...this.jobs].map((job) => job.client),
		};
	}

	/** No job holds the vertex any more: ends all work and releases all results. */
	async close(): Promise<void> {
		await Promise.all([
			...this.#edges.map((edge) => edge?.close()),
			...[...this.#mapQuestions, ...this.#contentQuestions.values()].map((question) =>
				question[Symbol.asyncDispose](),
			),
			this.execution?.leave(this),
		]);
	}

	async #askMap(index: number, scope: Scope): Promise<void> {
		const prefix = "failed to load cache key";
		const ask = async (context: StepContext) => await this.op().cacheMap(index, context);
		// Asking an op without inputs may take long (a registry, a git server); the others only compute.
		const { map, last } = await (this.inputs.length === 0
			? this.run(scope, prefix, ask)
			: this.runQuietly(scope, prefix, ask));
		if (map.inputs.length !== this.inputs.length) {
			const counts = `${map.inputs.length} inputs, the vertex has ${this.inputs.length}`;
			throw new SlipwayError("internal", `cache map ${index} of ${this.vertex.name} has ${counts}`);
		}
		this.#lastMap = last;
		this.#maps[index] = {
			map,
			inputs: map.inputs.map(({ selector }, input) => ({
				keys: this.inputs[input]?.keys ?? [],
				selector,
				content: undefined,
			})),
		};
	}

	async #askContent(map: number, input: number, scope: Scope): Promise<void> {
		const loaded = this.#maps[map];
		const contentDigest = loaded?.map.inputs[input]?.contentDigest;
		const keyInput = loaded?.inputs[input];
		const edge = this.inputs[input];
		if (contentDigest === undefined || keyInput === undefined || edge === undefined) {
			return;
		}
		const result = await edge.borrow(scope);
		try {
			const work = (context: StepContext): Promise<Digest> => contentDigest(result, context);
			const digest = await this.runQuietly(scope, "failed to compute cache key", work);
			keyInput.content = createContentKey(digest, this.readers);
		} finally {
			await this.graph.handling.release(result);
		}
	}

	#report(record: VertexRecord): void {
		this.record = record;
		this.emit({ kind: "vertex", vertex: record });
	}

	#toError(thrown: unknown, prefix: string, scope: Scope): SlipwayError {
		return scope.aborted
			? scope.error()
			: wrap(thrown, prefix, { details: [{ kind: "vertex", digest: this.vertex.digest }] });
	}
}
