import { createSingleFlight } from "../async/single-flight.ts";
import { canceled, SlipwayError } from "../errors/errors.ts";
import type { FrontendRef } from "../frontend/frontend.ts";
import type { Definition } from "../llb/llb.ts";
import type { BuiltEdge, CacheSource, Edge, Job } from "../solver/solver.ts";
import { createRefReader } from "../worker/ref-reader.ts";
import type { Output } from "../worker/worker.ts";
import type { ControllerServices } from "./control.ts";

/** The trees of one build. What was computed stays until disposal. */
export interface BuildRefs extends AsyncDisposable {
	/** The graph is loaded when the tree is first needed; undefined is the empty tree. */
	make(definition: Definition, load: (signal: AbortSignal) => Promise<LoadedGraph | undefined>): FrontendRef;
	/** A tree that is there already; the handle becomes ours. */
	adopt(definition: Definition, output: Output): FrontendRef;
	/** Computed now. The handle stays ours. Throws for a ref of another build. */
	output(ref: FrontendRef, signal: AbortSignal): Promise<Output>;
	/** The keys that the tree is known under, for caches; undefined for the empty one. */
	built(ref: FrontendRef, signal: AbortSignal): Promise<BuiltEdge<Output> | undefined>;
	/**
	 * Work on trees that needs files: where it fails because an imported cache does not have what it said, it is done again with trees
	 * that were made instead. A lazy tree is only known to be whole when its files are there.
	 */
	withFiles<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T>;
}

export interface LoadedGraph {
	readonly edge: Edge;
	/** Imported caches for this graph. */
	readonly sources: readonly CacheSource<Output>[];
}

/** `dropLost` is asked about an error: true if it came from an imported cache, which does not offer any more what it does not have. */
export function createBuildRefs(
	job: Job<Output>,
	worker: ControllerServices["worker"],
	dropLost: (error: unknown) => boolean,
): BuildRefs {
	type Build = (signal: AbortSignal) => Promise<BuiltEdge<Output> | undefined>;
	const builds = new WeakMap<FrontendRef, Build>();
	const held: BuiltEdge<Output>[] = [];
	/** Forget the tree that a ref stands for. */
	const forgets: (() => void)[] = [];
	let closed = false;
	const flights = createSingleFlight<object, BuiltEdge<Output> | undefined>();

	function refOf(definition: Definition, build: Build): FrontendRef {
		const output = async (signal: AbortSignal): Promise<Output> => (await build(signal))?.result;
		const reader = createRefReader(output, worker);
		const ref: FrontendRef = {
			definition,
			evaluate: async ({ signal }) => {
				await build(signal);
			},
			readFile: (path, options) => withFiles(() => reader.readFile(path, options), options.signal),
			readDirectory: (path, options) => withFiles(() => reader.readDirectory(path, options), options.signal),
			stat: (path, options) => withFiles(() => reader.stat(path, options), options.signal),
		};
		builds.set(ref, build);
		return ref;
	}

	function built(ref: FrontendRef, signal: AbortSignal): Promise<BuiltEdge<Output> | undefined> {
		const build = builds.get(ref);
		if (build === undefined) {
			throw new SlipwayError("internal", "a tree of another build can't be used");
		}
		return build(signal);
	}

	/** Ends, since each time there is less that may be lost. */
	async function withFiles<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
		for (;;) {
			try {
				return await work();
			} catch (error) {
				if (signal.aborted || !dropLost(error)) {
					throw error;
				}
				await job.forgetLost({ signal });
				for (const forget of forgets) {
					forget();
				}
			}
		}
	}

	return {
		make(definition, load) {
			// Whoever works with a tree that was forgotten since may go on: it stays held.
			let done: { readonly edge: BuiltEdge<Output> | undefined } | undefined;
			forgets.push(() => {
				done = undefined;
			});
			const key = {};
			return refOf(definition, async (signal) => {
				if (done !== undefined) {
					return done.edge;
				}
				// Who asks first may leave first: the work is for all that ask.
				return await flights.run(
					key,
					async (shared) => {
						const graph = await load(shared);
						const edge =
							graph &&
							(await withFiles(
								() => job.build(graph.edge, { signal: shared, sources: graph.sources }),
								shared,
							));
						if (edge !== undefined && closed) {
							await edge.release();
							throw canceled();
						}
						if (edge !== undefined) {
							held.push(edge);
						}
						done = { edge };
						return edge;
					},
					{ signal },
				);
			});
		},
		adopt(definition, output) {
			const edge = { result: output, keys: [], release: async () => await output?.release() };
			held.push(edge);
			return refOf(definition, async () => edge);
		},
		output: async (ref, signal) => (await built(ref, signal))?.result,
		built,
		withFiles,
		async [Symbol.asyncDispose]() {
			closed = true;
			await Promise.all(held.splice(0).map((each) => each.release()));
		},
	};
}
