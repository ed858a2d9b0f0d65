import { Scope } from "../async/scope.ts";
import { canceled, toError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { progressTime, type VertexRecord } from "../progress/progress.ts";
import type { Graph } from "./graph.ts";
import { JobProgress } from "./job-progress.ts";
import type {
	BuildOptions,
	BuiltEdge,
	CacheSource,
	Edge,
	Job,
	JobOptions,
	StepContext,
	StepOptions,
} from "./solver.ts";
import type { VertexState } from "./vertex-state.ts";

/** What the graph sees of a job, and its life. */
export class SolverJob<R> implements Job<R> {
	readonly id: string;
	readonly client: unknown;
	readonly progress: JobProgress;
	readonly held: Set<VertexState<R>> = new Set();
	readonly #graph: Graph<R>;
	readonly #sources: readonly CacheSource<R>[];
	readonly #scope = new Scope();
	readonly #running = new Set<Promise<unknown>>();
	readonly #onClose: () => void;
	#closed: Promise<void> | undefined;

	constructor(graph: Graph<R>, options: JobOptions<R>, onClose: () => void) {
		this.id = options.id;
		this.client = options.client;
		this.progress = new JobProgress(options.progress);
		this.#graph = graph;
		this.#sources = options.sources ?? [];
		this.#onClose = onClose;
	}

	get isClosed(): boolean {
		return this.#closed !== undefined;
	}

	build(edge: Edge, options: BuildOptions<R>): Promise<BuiltEdge<R>> {
		return this.#run(options.signal, (scope) =>
			this.#graph.build(
				edge,
				new Set([this]),
				[...this.#sources, ...(options.sources ?? [])],
				scope,
				() => {},
			),
		);
	}

	forgetLost({ signal }: { readonly signal: AbortSignal }): Promise<void> {
		return this.#run(signal, async (scope) => {
			await Promise.all([...this.held].map((state) => state.forgetLost(scope)));
		});
	}

	step<T>(options: StepOptions, work: (context: StepContext) => Promise<T>): Promise<T> {
		return this.#run(options.signal, async (scope) => {
			scope.throwIfAborted();
			const vertex = sha256(options.id);
			const record: VertexRecord = {
				digest: vertex,
				name: options.name,
				inputs: options.inputs ?? [],
				cached: false,
				started: progressTime(),
			};
			const report = (end: Partial<VertexRecord>): void =>
				this.progress.write({ kind: "vertex", vertex: { ...record, ...end } });
			report({});
			try {
				const value = await work({
					signal: scope.signal,
					vertex,
					progress: this.progress,
					clients: () => [this.client],
				});
				report({ completed: progressTime() });
				return value;
			} catch (error) {
				report({
					completed: progressTime(),
					error: scope.aborted ? "context canceled" : toError(error).message,
				});
				throw scope.aborted ? scope.error() : error;
			}
		});
	}

	[Symbol.asyncDispose](): Promise<void> {
		this.#closed ??= this.#close();
		return this.#closed;
	}

	/** Runs in a scope that ends with the caller's signal or with the job. */
	async #run<T>(signal: AbortSignal, work: (scope: Scope) => Promise<T>): Promise<T> {
		if (this.isClosed) {
			throw canceled();
		}
		using caller = Scope.of(signal);
		const scope = new Scope(caller);
		const leave = this.#scope.onAbort(() => scope.abort(this.#scope.reason));
		const running = work(scope);
		this.#running.add(running);
		try {
			return await running;
		} finally {
			this.#running.delete(running);
			leave();
		}
	}

	/** The last events of the job are those of the vertices that end with it. */
	async #close(): Promise<void> {
		this.#scope.abort(canceled());
		await Promise.allSettled(this.#running);
		this.progress.end();
		await this.#graph.release(this);
		this.#onClose();
	}
}
