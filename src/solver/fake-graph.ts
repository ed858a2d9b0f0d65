import { canceled } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import type { ProgressEvent, VertexRecord } from "../progress/progress.ts";
import { createSolver } from "./create-solver.ts";
import { createMemoryKeyStore } from "./memory-key-store.ts";
import type {
	CacheMapInput,
	Edge,
	Job,
	JobOptions,
	KeyStore,
	Op,
	ResultHandling,
	ResultRecord,
	ResultStore,
	Solver,
	SolverOptions,
	Vertex,
	VertexSource,
} from "./solver.ts";

/** For tests: graphs of tiny ops that compute texts and count their calls. */

/** A handle on a text. Every handle must be released once. */
export interface Text {
	readonly text: string;
	released: boolean;
}

/** Holds work until it is opened; `entered` resolves when the first work has come. */
export interface Gate {
	readonly entered: Promise<void>;
	/** Resolves when work that waits was aborted. */
	readonly aborted: Promise<void>;
	open(): void;
	wait(signal: AbortSignal): Promise<void>;
}

export function createGate(): Gate {
	const entered = Promise.withResolvers<void>();
	const aborted = Promise.withResolvers<void>();
	const opened = Promise.withResolvers<void>();
	return {
		entered: entered.promise,
		aborted: aborted.promise,
		open: opened.resolve,
		wait: async (signal) => {
			entered.resolve();
			await new Promise<void>((resolve, reject) => {
				opened.promise.then(resolve);
				signal.addEventListener("abort", () => {
					aborted.resolve();
					reject(canceled(signal.reason));
				});
			});
		},
	};
}

export interface FakeOptions {
	readonly inputs?: readonly Edge[];
	/** Digests of the cache maps; default one, from the name. */
	readonly keys?: readonly string[];
	/** Inputs whose content is part of the key: true for all. */
	readonly content?: boolean | readonly number[];
	/** What it computes, by default `name(inputs)`. An array is several outputs. */
	readonly output?: (inputs: readonly string[]) => string | readonly string[];
	readonly gate?: Gate;
	readonly mapGate?: Gate;
	readonly contentGate?: Gate;
	/** Shared by vertices that are the same step in different builds. */
	readonly digest?: string;
	readonly ignoreCache?: boolean;
	readonly unlimited?: boolean;
	readonly source?: VertexSource;
	readonly selector?: string;
	/** A graph that is solved inside. */
	readonly nested?: Edge;
}

interface Payload extends FakeOptions {
	readonly name: string;
}

export function vertex(name: string, options: FakeOptions = {}): Edge {
	const { source, ignoreCache = false } = options;
	const inputs = options.inputs ?? [];
	const digest = sha256(options.digest ?? [name, ...inputs.map((input) => input.vertex.digest)].join(" "));
	const payload: Payload = { ...options, name };
	return {
		vertex: {
			digest,
			name,
			inputs,
			payload,
			options: { ignoreCache, ...(source === undefined ? {} : { source }) },
		},
		index: 0,
	};
}

export interface FakeStore extends ResultStore<Text> {
	/** Texts by id of their record. */
	readonly texts: Map<string, string>;
	/** Whose loading fails. */
	readonly damaged: Set<string>;
}

export interface World extends AsyncDisposable {
	readonly solver: Solver<Text>;
	readonly keys: KeyStore;
	readonly results: FakeStore;
	/** `map a`, `content a 0`, `execute a`, `load <text>`, `save <text>` in order. */
	readonly calls: string[];
	/** Handles that were not released. */
	readonly live: Set<Text>;
	openJob(options?: Partial<JobOptions<Text>>): FakeJob;
	executed(): string[];
	/** Forgets the calls so far. */
	clear(): void;
}

export interface FakeJob extends AsyncDisposable {
	readonly job: Job<Text>;
	readonly events: ProgressEvent[];
	/** The text of an edge. */
	text(edge: Edge, signal?: AbortSignal): Promise<string>;
	/** Records of the vertex of this name in order. */
	records(name: string): VertexRecord[];
	last(name: string): VertexRecord | undefined;
}

export const never: AbortSignal = new AbortController().signal;
let jobs = 0;

export function createWorld(
	options: Partial<SolverOptions<Text>> & { readonly calls?: string[] } = {},
): World {
	const calls = options.calls ?? [];
	const live = new Set<Text>();
	const keys = options.keys ?? createMemoryKeyStore();
	const results = (options.results as FakeStore | undefined) ?? createFakeStore(calls, live);
	const handling: ResultHandling<Text> = {
		clone: (result) => open(live, use(result).text),
		release: async (result) => {
			use(result);
			result.released = true;
			live.delete(result);
		},
	};
	const solver = createSolver<Text>({
		resolveOp: (of, builder) => createOp(of, builder, calls, live),
		handling,
		...options,
		keys,
		results,
	});
	return {
		solver,
		keys,
		results,
		calls,
		live,
		openJob: (jobOptions) => openJob(solver, jobOptions),
		executed: () => calls.filter((call) => call.startsWith("execute ")).map((call) => call.slice(8)),
		clear: () => {
			calls.length = 0;
		},
		[Symbol.asyncDispose]: () => solver[Symbol.asyncDispose](),
	};
}

function openJob(solver: Solver<Text>, options: Partial<JobOptions<Text>> = {}): FakeJob {
	const events: ProgressEvent[] = [];
	const job = solver.openJob({
		id: `job ${++jobs}`,
		progress: { write: (event) => events.push(event) },
		...options,
	});
	const records = (name: string): VertexRecord[] =>
		events.flatMap((event) => (event.kind === "vertex" && event.vertex.name === name ? [event.vertex] : []));
	return {
		job,
		events,
		records,
		last: (name) => records(name).at(-1),
		text: async (edge, signal = never) => {
			const built = await job.build(edge, { signal });
			const { text } = use(built.result);
			await built.release();
			return text;
		},
		[Symbol.asyncDispose]: () => job[Symbol.asyncDispose](),
	};
}

function open(live: Set<Text>, text: string): Text {
	const handle = { text, released: false };
	live.add(handle);
	return handle;
}

function use(handle: Text): Text {
	if (handle.released) {
		throw new Error(`a handle on ${handle.text} is used after its release`);
	}
	return handle;
}

/** Results by text: the same text has the same id. */
export function createFakeStore(calls: string[], live: Set<Text>): FakeStore {
	const texts = new Map<string, string>();
	const damaged = new Set<string>();
	let time = 0;
	return {
		texts,
		damaged,
		save: async (result) => {
			calls.push(`save ${result.text}`);
			texts.set(result.text, result.text);
			damaged.delete(result.text);
			return { id: result.text, createdAt: ++time };
		},
		load: async (record: ResultRecord) => {
			calls.push(`load ${record.id}`);
			const text = texts.get(record.id);
			if (damaged.has(record.id)) {
				throw new Error(`${record.id} is damaged`);
			}
			return text === undefined ? undefined : { result: open(live, text) };
		},
		exists: async (record) => texts.has(record.id),
	};
}

function createOp(
	of: Vertex,
	builder: Parameters<SolverOptions<Text>["resolveOp"]>[1],
	calls: string[],
	live: Set<Text>,
): Op<Text> {
	const payload = of.payload as Payload;
	const { name, content = false, selector } = payload;
	const digests = payload.keys ?? [sha256(name)];
	const input = (index: number): CacheMapInput<Text> => ({
		...(selector === undefined ? {} : { selector: sha256(selector) }),
		...(content === true || (content !== false && content.includes(index))
			? {
					contentDigest: async (result, { signal }) => {
						calls.push(`content ${name} ${index}`);
						await payload.contentGate?.wait(signal);
						return sha256(result.text);
					},
				}
			: {}),
	});
	return {
		...(payload.unlimited === true ? { unlimited: true } : {}),
		cacheMap: async (index, { signal }) => {
			calls.push(`map ${name}`);
			await payload.mapGate?.wait(signal);
			const digest = digests[index] ?? "";
			return {
				map: { digest, inputs: of.inputs.map((_, at) => input(at)) },
				last: index === digests.length - 1,
			};
		},
		execute: async (inputs, { signal, progress, vertex: digest }) => {
			calls.push(`execute ${name}`);
			const data = new TextEncoder().encode(name);
			progress.write({ kind: "log", log: { vertex: digest, stream: 1, data, timestamp: 0 } });
			await payload.gate?.wait(signal);
			const texts = inputs.map((handle) => {
				use(handle);
				return handle.text;
			});
			if (payload.nested !== undefined) {
				const built = await builder.build(payload.nested, { signal });
				texts.push(built.result.text);
				await built.release();
			}
			const output = payload.output?.(texts) ?? `${name}(${texts.join(",")})`;
			return (typeof output === "string" ? [output] : output).map((text) => open(live, text));
		},
	};
}

export function fail(error: Error): never {
	throw error;
}

export function sourceOf(filename: string, line: number): VertexSource {
	const position = { line, character: 0 };
	return {
		file: { filename, data: new TextEncoder().encode("FROM scratch\n") },
		ranges: [{ start: position, end: position }],
	};
}
