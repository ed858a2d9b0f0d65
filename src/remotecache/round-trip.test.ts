import assert from "node:assert/strict";
import { test } from "node:test";
import type { ImmutableRef, LayerBlob } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { discardProgress } from "../progress/progress.ts";
import { createSolver } from "../solver/create-solver.ts";
import { createMemoryKeyStore } from "../solver/memory-key-store.ts";
import type {
	BuiltEdge,
	CacheSource,
	Edge,
	KeyStore,
	Op,
	ResultRecord,
	ResultStore,
	Solver,
	StepContext,
} from "../solver/solver.ts";
import { CacheChains } from "./chains.ts";
import { collectRecords } from "./collect-records.ts";
import { parseConfig, toConfig, writeConfig } from "./config.ts";
import { exportCache } from "./export-cache.ts";
import { chainsOf, createImportedSource } from "./imported-source.ts";
import type { CacheConfig, CacheTarget, ExportMode, ImportedCache } from "./remotecache.ts";

type Output = ImmutableRef | undefined;

const { signal } = new AbortController();
const context: StepContext = {
	signal,
	vertex: sha256("test"),
	progress: discardProgress,
	clients: () => [],
};

/** A tree that is only a list of names of layers. `known` ones have blobs. */
interface FakeRef extends ImmutableRef {
	readonly layerNames: readonly string[];
}

const withBlobs = new Set<string>();
/** Steps that fail the next time. */
const failing = new Set<string>();

function refOf(...layerNames: readonly string[]): FakeRef {
	const blobs = (): readonly LayerBlob[] =>
		layerNames.map((name) => {
			withBlobs.add(name);
			return {
				descriptor: { mediaType: mediaTypes.ociLayerGzip, digest: sha256(name), size: name.length },
				diffId: sha256(`plain ${name}`),
				createdAt: 5,
				description: name,
				provider: { read: () => assert.fail("nobody needs the files") },
			};
		});
	const ref: Partial<FakeRef> = {
		layerNames,
		clone: () => refOf(...layerNames),
		release: async () => {},
		blobs: async () => blobs(),
		knownBlobs: async () => (layerNames.every((name) => withBlobs.has(name)) ? blobs() : undefined),
	};
	return ref as FakeRef;
}

interface Step {
	readonly name: string;
	readonly inputs?: readonly Edge[];
	/** Inputs are known by their content as well. */
	readonly content?: boolean;
	/** Matches nothing in another build by definition. */
	readonly random?: boolean;
}

function step({ name, inputs = [], content = false, random = false }: Step): Edge {
	return {
		vertex: {
			digest: sha256(`${name} ${inputs.map((input) => input.vertex.digest).join(" ")}`),
			name,
			inputs,
			payload: { content, random },
			options: { ignoreCache: false },
		},
		index: 0,
	};
}

interface World extends AsyncDisposable {
	readonly solver: Solver<Output>;
	readonly local: CacheSource<Output>;
	readonly ran: string[];
	/** The builder's own results, by id. */
	readonly kept: Map<string, readonly string[]>;
	build(edge: Edge, sources?: readonly CacheSource<Output>[]): Promise<BuiltEdge<Output>>;
}

function createWorld(): World {
	const keys: KeyStore = createMemoryKeyStore();
	const kept = new Map<string, readonly string[]>();
	const ran: string[] = [];
	const results: ResultStore<Output> = {
		save: async (ref): Promise<ResultRecord> => {
			const id = (ref as FakeRef).layerNames.join("+");
			kept.set(id, (ref as FakeRef).layerNames);
			return { id, createdAt: 1000 };
		},
		load: async ({ id }) => {
			const names = kept.get(id);
			return names === undefined ? undefined : { result: refOf(...names) };
		},
		exists: async ({ id }) => kept.has(id),
	};
	const solver = createSolver<Output>({
		keys,
		results,
		handling: { clone: (ref) => ref?.clone(), release: async () => {} },
		resolveOp: ({ name, inputs, payload }): Op<Output> => {
			const { content, random } = payload as { readonly content: boolean; readonly random: boolean };
			return {
				cacheMap: async () => ({
					last: true,
					map: {
						digest: random ? `random:${name}` : sha256(`op ${name}`),
						inputs: inputs.map(() =>
							content
								? {
										selector: sha256("selector"),
										contentDigest: async (ref) => sha256(`content of ${(ref as FakeRef).layerNames.at(-1)}`),
									}
								: {},
						),
					},
				}),
				execute: async (refs) => {
					if (failing.delete(name)) {
						throw new SlipwayError("data-loss", "layer is gone");
					}
					ran.push(name);
					return [refOf(...((refs[0] as FakeRef | undefined)?.layerNames ?? []), `layer ${name}`)];
				},
			};
		},
	});
	const jobs = new AsyncDisposableStack();
	let count = 0;
	return {
		solver,
		local: { keys, results },
		ran,
		kept,
		build: async (edge, sources = []) => {
			const job = jobs.use(solver.openJob({ id: `job${count++}`, progress: discardProgress }));
			return await job.build(edge, { signal, sources });
		},
		async [Symbol.asyncDispose]() {
			await jobs.disposeAsync();
			await solver[Symbol.asyncDispose]();
		},
	};
}

async function exported(world: World, built: BuiltEdge<Output>, mode: ExportMode): Promise<ImportedCache> {
	await using held = new AsyncDisposableStack();
	const chains = new CacheChains();
	await collectRecords(built.keys, chains, {
		mode,
		form: { compression: "gzip", level: undefined, force: false },
		sources: [world.local],
		context,
		held,
	});
	const { config, blobs } = toConfig(chains);
	return { config: parseConfig(writeConfig(config)), blobs };
}

function imported(cache: ImportedCache): ReturnType<typeof createImportedSource> {
	return createImportedSource(chainsOf(cache), {
		cache: {
			fromLayers: async (layers) => refOf(...layers.map(({ description = "" }) => description)),
		},
		onLost: () => {},
	});
}

/** A context of a client, an image, and steps on both. */
function graph(): { readonly top: Edge; readonly middle: Edge } {
	const files = step({ name: "context", random: true });
	const image = step({ name: "image" });
	const first = step({ name: "first", inputs: [image] });
	const copy = step({ name: "copy", inputs: [first, files], content: true });
	return { top: step({ name: "top", inputs: [copy] }), middle: first };
}

function resultsOf({ records }: CacheConfig): number {
	return records.filter(({ results }) => results.length > 0).length;
}

test("max: a builder that knows nothing finds every step, by definition or by content, and runs only what it must look at", async () => {
	await using first = createWorld();
	const cache = await exported(first, await first.build(graph().top), "max");
	assert.equal(resultsOf(cache.config), 3, "all but the sources, whose files are there anyway");
	await using second = createWorld();
	const built = await second.build(graph().top, [imported(cache)]);
	assert.deepEqual((built.result as FakeRef).layerNames, [
		"layer image",
		"layer first",
		"layer copy",
		"layer top",
	]);
	assert.deepEqual(second.ran, ["context"], "whose content has to be known");
	const below = await second.build(graph().middle);
	assert.deepEqual((below.result as FakeRef).layerNames, ["layer image", "layer first"]);
	assert.deepEqual(second.ran, ["context"], "a beginning of the result was kept with it");
});

test("min: the result's own layers are exported for all steps that they belong to, others are not made", async () => {
	withBlobs.clear();
	await using world = createWorld();
	const other = step({ name: "other", inputs: [step({ name: "image" })] });
	const top = step({ name: "both", inputs: [graph().top, other] });
	const built = await world.build(top);
	const cache = await exported(world, built, "min");
	const digests: readonly Digest[] = cache.config.layers.map(({ blob }) => blob);
	assert.ok(digests.includes(sha256("layer first")) && !digests.includes(sha256("layer other")));
	const all = await exported(world, built, "max");
	assert.ok(all.blobs.has(sha256("layer other")));
});

test("what the store knows besides comes along: content that a fully cached build did not look at", async () => {
	await using world = createWorld();
	const one = step({ name: "one" });
	const uses = (from: Edge): Edge => step({ name: "use", inputs: [from], content: true });
	await world.build(uses(one));
	const again = await world.build(uses(one));
	const cache = await exported(world, again, "max");
	// Another step with the same content, which is only known once it has run.
	await using other = createWorld();
	const same = step({ name: "one", inputs: [step({ name: "below" })] });
	await other.build(uses(same), [imported(cache)]);
	assert.ok(!other.ran.includes("use"), other.ran.join(" "));
});

test("a cache that was imported is exported again", async () => {
	await using first = createWorld();
	const cache = await exported(first, await first.build(graph().top), "max");
	await using second = createWorld();
	const source = imported(cache);
	const built = await second.build(graph().top, [source]);
	await using held = new AsyncDisposableStack();
	const chains = new CacheChains();
	const sources = [second.local, source];
	const form = { compression: "gzip", level: undefined, force: false } as const;
	await collectRecords(built.keys, chains, { mode: "max", form, sources, context, held });
	const again = toConfig(chains).config;
	const digests = ({ records }: CacheConfig): readonly string[] => records.map(({ digest }) => digest);
	assert.deepEqual(digests(again), digests(cache.config));
	assert.equal(resultsOf(again), 3);
});

test("results whose blobs could not be had are no longer found", async () => {
	await using first = createWorld();
	const cache = await exported(first, await first.build(graph().middle), "max");
	const lost: Digest[] = [];
	let ref: Output;
	const source = createImportedSource(
		chainsOf({
			config: cache.config,
			blobs: new Map(
				[...cache.blobs].map(([digest, blob]) => [
					digest,
					{
						...blob,
						provider: {
							// biome-ignore lint/correctness/useYield: it fails before
							read: async function* () {
								throw new Error("gone");
							},
						},
					},
				]),
			),
		}),
		{
			cache: {
				fromLayers: async (layers, { provider }) => {
					ref = refOf(...layers.map(({ description = "" }) => description));
					const [{ descriptor } = assert.fail()] = layers;
					await assert.rejects(async () => {
						for await (const _ of provider.read(descriptor, { signal })) {
							assert.fail();
						}
					});
					return ref;
				},
			},
			onLost: (digest) => lost.push(digest),
		},
	);
	await using second = createWorld();
	await second.build(graph().middle, [source]);
	assert.deepEqual(second.ran, []);
	assert.deepEqual(lost, [sha256("layer image")]);
	assert.equal(source.dropLost(new Error("something")), true);
	assert.equal(source.dropLost(new Error("something")), false, "nothing new");
	await using third = createWorld();
	await third.build(graph().middle, [source]);
	assert.deepEqual(third.ran, ["image", "first"]);
});

test("exportCache: a place that refuses half-way gets no config, and nothing is on its way when the error comes", async () => {
	await using world = createWorld();
	const built = await world.build(graph().top);
	let under = 0;
	let most = 0;
	const target: CacheTarget = {
		name: "test",
		form: { compression: "gzip", level: undefined, force: false },
		sendBlob: async ({ descriptor: { digest } }) => {
			under++;
			most = Math.max(most, under);
			await new Promise((resolve) => setImmediate(resolve));
			under--;
			if (digest === sha256("layer copy")) {
				throw new SlipwayError("unavailable", "no more");
			}
		},
		finish: () => assert.fail("the cache is not whole"),
	};
	await assert.rejects(
		exportCache(target, [built.keys], { mode: "max", sources: [world.local], context }),
		/no more/,
	);
	assert.equal(under, 0);
	assert.ok(most > 1, "several at a time");
});

test("a job lets go of imported results that turn out to be lost, and makes them in its next build", async () => {
	await using first = createWorld();
	const cache = await exported(first, await first.build(graph().middle), "max");
	let isLost = false;
	const { keys, results, dropLost } = imported(cache);
	const source: CacheSource<Output> = {
		keys,
		results: { ...results, exists: async (record) => !isLost && (await results.exists(record)) },
	};
	await using second = createWorld();
	const { solver, ran } = second;
	await using job = solver.openJob({ id: "job", progress: discardProgress });
	const edge = step({ name: "fails once", inputs: [graph().middle] });
	failing.add("fails once");
	await assert.rejects(job.build(edge, { signal, sources: [source] }), /layer is gone/);
	assert.deepEqual(ran, []);
	assert.equal(dropLost(new SlipwayError("data-loss", "layer is gone")), false, "nothing was read");
	await job.forgetLost({ signal });
	failing.add("fails once");
	await assert.rejects(job.build(edge, { signal, sources: [source] }), /layer is gone/);
	assert.deepEqual(ran, [], "what is not lost stays");
	isLost = true;
	second.kept.clear();
	await job.forgetLost({ signal });
	await job.build(edge, { signal, sources: [source] });
	assert.deepEqual(ran, ["image", "first", "fails once"]);
});
