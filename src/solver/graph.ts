import { createLimit, type Limit } from "../async/limit.ts";
import { Scope } from "../async/scope.ts";
import { canceled, findDetail, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import type { EdgeState } from "./edge-state.ts";
import { ExecutionIndex } from "./execution.ts";
import type { SolverJob } from "./job.ts";
import type {
	BuildOptions,
	BuiltEdge,
	CacheSource,
	Edge,
	KeyStore,
	Op,
	ResultHandling,
	ResultStore,
	SolverOptions,
	Vertex,
	VertexSource,
} from "./solver.ts";
import { VertexState } from "./vertex-state.ts";

/** All vertices that jobs hold at present. */
export class Graph<R> {
	readonly store: KeyStore;
	readonly results: ResultStore<R>;
	readonly handling: ResultHandling<R>;
	readonly local: CacheSource<R>;
	readonly limit: Limit;
	readonly executions: ExecutionIndex<R>;
	readonly #resolveOp: SolverOptions<R>["resolveOp"];
	readonly #active = new Map<Digest, VertexState<R>>();

	constructor(options: SolverOptions<R>) {
		this.store = options.keys;
		this.results = options.results;
		this.handling = options.handling;
		this.local = { keys: options.keys, results: options.results };
		this.limit = createLimit(options.maxParallelism ?? Number.POSITIVE_INFINITY);
		this.executions = new ExecutionIndex(options.keys);
		this.#resolveOp = options.resolveOp;
	}

	/** The number of vertices that are held; 0 when all jobs have ended. */
	get size(): number {
		return this.#active.size;
	}

	resolveOp(state: VertexState<R>): Op<R> {
		return this.#resolveOp(state.vertex, {
			build: (edge, options) => this.#buildWithin(state, edge, options),
		});
	}

	/** Loads the graph below the edge for the jobs and solves it. The result is a clone. */
	async build(
		edge: Edge,
		jobs: ReadonlySet<SolverJob<R>>,
		sources: readonly CacheSource<R>[],
		scope: Scope,
		onLoad: (states: readonly VertexState<R>[]) => void,
	): Promise<BuiltEdge<R>> {
		scope.throwIfAborted();
		const places = new Map<string, VertexSource>();
		try {
			const { root, states } = this.#load(edge, jobs, sources, places);
			onLoad(states);
			const result = await root.borrow(scope);
			const { keys } = await root.result(scope);
			let release: Promise<void> | undefined;
			return { result, keys, release: () => (release ??= this.handling.release(result)) };
		} catch (thrown) {
			throw scope.aborted ? scope.error() : withSource(thrown, places);
		}
	}

	/** Jobs that hold `state` hold the companions too, now and from when they begin to. */
	accompany(state: VertexState<R>, companions: Iterable<VertexState<R>>): void {
		for (const companion of companions) {
			state.companions.add(companion);
			for (const job of state.jobs) {
				this.#hold(companion, job);
			}
		}
	}

	/** Ends the job's hold; what nobody holds any more is aborted and released, and has ended when this resolves. */
	async release(job: SolverJob<R>): Promise<void> {
		const unheld: VertexState<R>[] = [];
		for (const state of job.held) {
			state.jobs.delete(job);
			if (state.jobs.size === 0) {
				this.#active.delete(state.id);
				unheld.push(state);
			}
		}
		job.held.clear();
		await Promise.all(unheld.map((state) => state.close()));
	}

	async #buildWithin(state: VertexState<R>, edge: Edge, options: BuildOptions<R>): Promise<BuiltEdge<R>> {
		using scope = Scope.of(options.signal);
		if (state.jobs.size === 0) {
			throw canceled();
		}
		const sources = [...state.sources, ...(options.sources ?? [])];
		return await this.build(edge, state.jobs, sources, scope, (states) => this.accompany(state, states));
	}

	/** Inputs first, without recursion. */
	#load(
		edge: Edge,
		jobs: ReadonlySet<SolverJob<R>>,
		sources: readonly CacheSource<R>[],
		places: Map<string, VertexSource>,
	): { root: EdgeState<R>; states: readonly VertexState<R>[] } {
		const loaded = new Map<Vertex, VertexState<R>>();
		const stack: Vertex[] = [edge.vertex];
		for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
			if (loaded.has(top)) {
				stack.pop();
				continue;
			}
			const inputs: EdgeState<R>[] = [];
			for (const input of top.inputs) {
				const state = loaded.get(input.vertex);
				if (state === undefined) {
					stack.push(input.vertex);
				} else {
					inputs.push(state.edge(input.index));
				}
			}
			if (inputs.length < top.inputs.length) {
				continue;
			}
			stack.pop();
			const state = this.#stateOf(top, inputs);
			state.addSources(sources);
			state.forgetErrors();
			for (const job of jobs) {
				this.#hold(state, job);
			}
			if (top.options.source !== undefined) {
				places.set(top.digest, top.options.source);
			}
			loaded.set(top, state);
		}
		const root = loaded.get(edge.vertex);
		if (root === undefined) {
			throw new SlipwayError("internal", `vertex ${edge.vertex.name} was not loaded`);
		}
		return { root: root.edge(edge.index), states: [...new Set(loaded.values())] };
	}

	/**
	 * Vertices of equal digest share a state. But one that must ignore the cache cannot share that of a twin that may use it:
	 * it gets one of its own, under the digest that BuildKit shows for it, and so do the vertices above it.
	 */
	#stateOf(vertex: Vertex, inputs: readonly EdgeState<R>[]): VertexState<R> {
		const isMoved = inputs.some((input, index) => input.vertex.id !== vertex.inputs[index]?.vertex.digest);
		const id = isMoved
			? sha256(`${vertex.digest}-inputs-${inputs.map((input) => input.vertex.id).join(",")}`)
			: vertex.digest;
		const twin = this.#active.get(id);
		if (twin !== undefined && (twin.ignoreCache || !vertex.options.ignoreCache)) {
			return twin;
		}
		const ownId = twin === undefined ? id : sha256(`${id}-ignorecache`);
		let state = this.#active.get(ownId);
		if (state === undefined) {
			state = new VertexState(this, ownId, vertex, inputs);
			this.#active.set(ownId, state);
		}
		return state;
	}

	/** With what it needs: inputs and companions. */
	#hold(state: VertexState<R>, job: SolverJob<R>): void {
		const stack = [state];
		const held: VertexState<R>[] = [];
		for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
			if (job.isClosed || top.jobs.has(job)) {
				continue;
			}
			top.jobs.add(job);
			job.held.add(top);
			held.push(top);
			for (const companion of top.companions) {
				stack.push(companion);
			}
			for (const input of top.inputs) {
				stack.push(input.vertex);
			}
		}
		for (const { record } of held.reverse()) {
			job.progress.write({ kind: "vertex", vertex: record });
		}
	}
}

/** The place in the source is that of the build's own definition, which need not be the one that a shared vertex came from. */
function withSource(thrown: unknown, places: ReadonlyMap<string, VertexSource>): SlipwayError {
	const vertex = findDetail(thrown, "vertex");
	const place = vertex === undefined ? undefined : places.get(vertex.digest);
	if (place === undefined || findDetail(thrown, "source") !== undefined) {
		return toError(thrown);
	}
	return wrap(thrown, "", { details: [{ kind: "source", file: place.file, ranges: place.ranges }] });
}
