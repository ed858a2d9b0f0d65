import type { SourceFile, SourceRange } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { ProgressGroup, ProgressSink } from "../progress/progress.ts";

/**
 * The solver: a graph of vertices, what of it is already known, and what must run.
 *
 * A vertex is an operation with inputs; an edge is one output of a vertex. The solver knows no operation and no file
 * system: an `Op` answers which cache keys it has and how to execute, a `ResultStore` keeps results by id, a `KeyStore`
 * keeps the graph of cache keys. `R` is the type of one output (in Slipway a cache ref, which may be undefined for
 * an empty root).
 *
 * For every edge three questions are asked, each dearer than the last, and the first answer ends it:
 *
 * 1. keys of the op and its inputs' keys, which need no result: is there a record?
 * 2. for inputs with a `contentDigest` function: their results, then keys by content: is there a record?
 * 3. all inputs' results, then `execute`; its outputs are saved under every key that was found.
 *
 * Never true: an op executes while nobody waits for it; a failed or cancelled attempt is remembered; a result is
 * handed out without its own clone; an input is materialized when a key lookup without it has hit.
 */
export interface Solver<R> extends AsyncDisposable {
	/** Opens a job. Jobs share vertices of equal digest. Throws `already-exists` if a job of this id is open. */
	openJob(options: JobOptions<R>): Job<R>;
}

export interface SolverOptions<R> {
	/** Makes the op of a vertex, once for all jobs that hold it, when it is first needed. May throw. */
	readonly resolveOp: (vertex: Vertex, builder: Builder<R>) => Op<R>;
	readonly keys: KeyStore;
	readonly results: ResultStore<R>;
	readonly handling: ResultHandling<R>;
	/** How many ops may execute at a time; ops that are `unlimited` do not count. Default: no limit. */
	readonly maxParallelism?: number;
}

export interface JobOptions<R> {
	readonly id: string;
	/** Gets the events of all vertices that this job holds, from when it began to hold them. */
	readonly progress: ProgressSink;
	/** Imported caches that are asked after the local one, in order; for all builds of the job. */
	readonly sources?: readonly CacheSource<R>[];
	/** Whoever the job works for; the solver hands it to ops unseen, by `StepContext.clients`. */
	readonly client?: unknown;
}

/** A cache that lookups go to: keys, and the results that they lead to. */
export interface CacheSource<R> {
	readonly keys: KeyReader;
	readonly results: ResultLoader<R>;
}

export interface BuildOptions<R> {
	readonly signal: AbortSignal;
	/** Imported caches for this graph, besides the job's. */
	readonly sources?: readonly CacheSource<R>[];
}

/** Solves a graph from inside an op, for all jobs that hold the op's vertex; they see its vertices too. */
export interface Builder<R> {
	build(edge: Edge, options: BuildOptions<R>): Promise<BuiltEdge<R>>;
}

/**
 * One build's hold on the graph. What was computed stays with the job until it is disposed. Disposing it cancels its
 * builds, releases the hold, aborts work that no other job holds, and waits for that work to end.
 *
 * A build that fails cancels only its own waits: what another build waits for goes on. An error of a vertex is the error of
 * all builds that held the vertex then; a build that starts later tries again.
 */
export interface Job<R> extends AsyncDisposable {
	readonly id: string;
	/**
	 * The result of an edge. The caller owns the result's clone and releases it by `release`.
	 * Rejects with the vertex's error, which carries a `vertex` detail with its digest and, if the vertex has
	 * `source`, a `source` detail; or with `canceled` when `signal` is aborted.
	 */
	build(edge: Edge, options: BuildOptions<R>): Promise<BuiltEdge<R>>;
	/**
	 * Results that their caches do not have any more are let go, so that the next build of this job makes them anew: a lazy
	 * result may turn out to be none when its files are wanted.
	 */
	forgetLost(options: { readonly signal: AbortSignal }): Promise<void>;
	/**
	 * Runs `work` as a pseudo-vertex, for what is no op but is shown as a step: loading metadata of an image,
	 * exporting. Its digest is that of `id`, its events go to this job only.
	 */
	step<T>(options: StepOptions, work: (context: StepContext) => Promise<T>): Promise<T>;
}

export interface BuiltEdge<R> {
	readonly result: R;
	/**
	 * The cache keys under which this result is known, for a cache exporter; the first is the one that matched. Each leads to
	 * the keys of all vertices below, also of those that were never materialized.
	 */
	readonly keys: readonly CacheKey[];
	release(): Promise<void>;
}

export interface StepOptions {
	readonly id: string;
	readonly name: string;
	readonly inputs?: readonly Digest[];
	readonly signal: AbortSignal;
}

/** What running work may use to report; the vertex is implied. */
export interface StepContext {
	readonly signal: AbortSignal;
	readonly vertex: Digest;
	readonly progress: ProgressSink;
	/** The `client` of each job that holds the vertex at the time of the call, the job that held it first in front. */
	readonly clients: () => readonly unknown[];
}

export interface Edge {
	readonly vertex: Vertex;
	readonly index: number;
}

export interface Vertex {
	readonly digest: Digest;
	/** Shown in progress. */
	readonly name: string;
	readonly inputs: readonly Edge[];
	/** What `resolveOp` makes an op from; the solver passes it on unseen. */
	readonly payload: unknown;
	readonly options: VertexOptions;
}

export interface VertexOptions {
	/** No lookup; the result is saved all the same. */
	readonly ignoreCache: boolean;
	/** Whether a cache exporter may take this vertex in `min` mode or not; undefined leaves it to the mode. */
	readonly exportCache?: boolean;
	readonly progressGroup?: ProgressGroup;
	/** The place in the source file that asked for this vertex; becomes a detail of its errors. */
	readonly source?: VertexSource;
}

export interface VertexSource {
	readonly file: SourceFile;
	readonly ranges: readonly SourceRange[];
}

/** Made once per vertex and shared by all jobs that hold it. */
export interface Op<R> {
	/**
	 * The vertex's cache maps, asked one after the other while no record was found: an image is known by its manifest
	 * and also by the chain of its layers. `index` counts from 0; `last` ends it.
	 */
	cacheMap(index: number, context: StepContext): Promise<CacheMapAnswer<R>>;
	/** All outputs of the vertex, in order. Inputs stay the caller's. Called at most once at a time. */
	execute(inputs: readonly R[], context: StepContext): Promise<readonly R[]>;
	/** Optional ability: waits for what `execute` needs before the vertex counts as started; called back when it has ended. */
	readonly acquire?: (signal: AbortSignal) => Promise<() => void>;
	/** True if `execute` waits for other vertices (a nested build), so that it must not take one of the limited places. */
	readonly unlimited?: boolean;
}

export interface CacheMapAnswer<R> {
	readonly map: CacheMap<R>;
	readonly last: boolean;
}

export interface CacheMap<R> {
	/** Digest of the operation itself. One with the algorithm `random` matches nothing but itself by definition. */
	readonly digest: string;
	/** One per input, in order. */
	readonly inputs: readonly CacheMapInput<R>[];
}

export interface CacheMapInput<R> {
	/** Which part of the input is used; part of the key. */
	readonly selector?: Digest;
	/** Digest of the used content of the input, where the op depends only on content. */
	readonly contentDigest?: (result: R, context: StepContext) => Promise<Digest>;
}

/** How results are handed on. A clone and its original are released independently. */
export interface ResultHandling<R> {
	clone(result: R): R;
	release(result: R): Promise<void>;
}

/** The read-only half of a `ResultStore`; what an imported cache has. */
export interface ResultLoader<R> {
	/** A new handle, or undefined if the result is gone or damaged (which is a miss, with a warning of its own). */
	load(record: ResultRecord, options: { readonly signal: AbortSignal }): Promise<LoadedResult<R> | undefined>;
	/** False when `load` is known to fail; cheap. */
	exists(record: ResultRecord): Promise<boolean>;
	/**
	 * Optional ability of an imported cache: true if the result is a beginning of the other one, so that who has that one has it too. Then
	 * it is kept with it, for builds that do not have the import.
	 */
	begins?(record: ResultRecord, other: ResultRecord): boolean;
}

/** Tells a result that is undefined from none. */
export interface LoadedResult<R> {
	readonly result: R;
}

/** Results by id, kept between builds. */
export interface ResultStore<R> extends ResultLoader<R> {
	/** Keeps the result and gives its id; the caller's handle stays the caller's. The same result has the same id. */
	save(result: R): Promise<ResultRecord>;
}

export interface ResultRecord {
	readonly id: string;
	/** Milliseconds since the epoch. */
	readonly createdAt: number;
}

/**
 * A node in the graph of cache keys: the id under which links and results are kept. A key whose id begins with `random:`
 * matches nothing in another build; it and what it leads to are never stored or exported.
 */
export interface CacheKey {
	/** In the local store. */
	readonly id: string;
	/** The op's digest and output that this key stands for; for a key without inputs the id is derived from them. */
	readonly digest: string;
	/** -1 for the content of an input, which no vertex stands for. */
	readonly output: number;
	/** The vertex that has this key; undefined for the content of an input. */
	readonly vertex: Digest | undefined;
	/** `VertexOptions.exportCache` of the vertex. */
	readonly exportCache: boolean | undefined;
	/** For each input of the op the alternatives that lead here; empty for a key without inputs. */
	readonly inputs: readonly (readonly CacheKeyInput[])[];
	/** The ids that the key has in a store; empty if the store does not know it. */
	ids(keys: KeyReader): readonly string[];
	/** What is now kept under this key, in the local store and the imported caches of its builds; local ones first. */
	records(): readonly FoundRecord[];
}

export interface FoundRecord {
	readonly keys: KeyReader;
	readonly record: ResultRecord;
}

export interface CacheKeyInput {
	readonly key: CacheKey;
	readonly selector?: Digest;
}

/** "From this key, as that input of an op with that digest, one gets to…" */
export interface KeyLink {
	readonly input: number;
	readonly output: number;
	readonly digest: string;
	readonly selector?: Digest;
}

/**
 * The graph of cache keys: in memory, in the metadata database, or read from an imported cache (read only half).
 * All calls may be answered from memory; they are synchronous so that a graph of 10,000 known vertices costs no waiting.
 */
export interface KeyReader {
	/** All keys that a link leads to from a key. */
	targets(from: string, link: KeyLink): readonly string[];
	/** Results kept under a key, newest first. */
	results(key: string): readonly ResultRecord[];
	hasKey(key: string): boolean;
	/** All links that lead to a key, for a cache exporter. */
	backlinks(key: string): readonly { readonly from: string; readonly link: KeyLink }[];
}

export interface KeyStore extends KeyReader {
	addLink(from: string, link: KeyLink, to: string): void;
	addResult(key: string, result: ResultRecord): void;
	/** Forgets a result under all keys, and the keys that thereby lead to nothing. */
	removeResult(resultId: string): void;
}
