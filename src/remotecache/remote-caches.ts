import type { CacheManager, ImmutableRef, LayerBlob } from "../cache/cache.ts";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";
import type { CacheKey, CacheSource, StepContext } from "../solver/solver.ts";
import { boolean, invalid } from "./attributes.ts";
import { nameOf } from "./cache-name.ts";
import { CacheChains } from "./chains.ts";
import { collectRecords } from "./collect-records.ts";
import { exportCache } from "./export-cache.ts";
import { chainsOf, createImportedSource, type ImportedSource } from "./imported-source.ts";
import { inlineRecords } from "./inline.ts";
import type {
	CacheBackend,
	CacheOptions,
	CacheOrigin,
	CacheTarget,
	ExportMode,
	MountPlace,
} from "./remotecache.ts";
import { Uploads } from "./uploads.ts";

type Output = ImmutableRef | undefined;

export interface RemoteCachesOptions {
	readonly cache: Pick<CacheManager, "fromLayers">;
	/** The builder's own keys and results. */
	readonly local: CacheSource<Output>;
	readonly backends: readonly CacheBackend[];
}

/** What `--cache-to` asks for. */
export interface CacheExports {
	readonly targets: readonly ExportPlan[];
	/** The image itself carries its cache. */
	readonly inline: boolean;
}

export interface ExportPlan {
	readonly target: CacheTarget;
	readonly uploads: Uploads;
	readonly mode: ExportMode;
	/** The build fails if the export does (`ignore-error=false`). */
	readonly required: boolean;
}

/** All places that caches are brought to and fetched from. */
export interface RemoteCaches {
	/** Throws `invalid-argument` for options that are wrong, before anything is built. */
	exports(entries: readonly CacheOptions[], session: Session): CacheExports;
	/** The same. */
	origin(entry: CacheOptions, session: Session): CacheOrigin;
	/** Where cache mounts are kept. Throws `invalid-argument` as well. */
	mountPlace(entry: CacheOptions, session: Session): MountPlace;
	/** Reads a cache and makes it known to the solver. Throws whatever is wrong with it. */
	read(origin: CacheOrigin, context: StepContext): Promise<ImportedSource>;
	/** Sends what is known of the results; one list of keys for each. Gives what becomes part of the build's response. */
	send(
		plan: ExportPlan,
		results: readonly (readonly CacheKey[])[],
		imported: readonly CacheSource<Output>[],
		context: StepContext,
	): Promise<Readonly<Record<string, string>>>;
	/** The cache that an image with these layers carries; undefined if there is nothing to say. */
	inline(
		keys: readonly CacheKey[],
		layers: readonly LayerBlob[],
		imported: readonly CacheSource<Output>[],
		context: StepContext,
	): Promise<Uint8Array | undefined>;
}

export function createRemoteCaches({ cache, local, backends }: RemoteCachesOptions): RemoteCaches {
	const find = (type: string): CacheBackend | undefined => backends.find((each) => each.type === type);
	return {
		exports: (entries, session) => {
			const own = entries.filter(({ type }) => type !== "inline");
			checkDuplicates(own);
			return {
				inline: own.length < entries.length,
				targets: own.map((entry) => {
					const backend = find(entry.type);
					if (backend?.target === undefined) {
						throw invalid(`unknown cache exporter: ${JSON.stringify(entry.type)}`);
					}
					const target = configured(`${entry.type} cache exporter`, () =>
						backend.target?.(entry.attrs, session),
					);
					return {
						target,
						uploads: new Uploads(target),
						// BuildKit takes any other mode for `min`.
						mode: entry.attrs["mode"] === "max" ? "max" : "min",
						required: boolean(entry.attrs, "ignore-error") === false,
					};
				}),
			};
		},
		origin: (entry, session) => {
			const backend = find(entry.type);
			if (backend?.origin === undefined) {
				throw invalid(`unknown cache importer: ${entry.type}`);
			}
			return configured(`${entry.type} cache importer`, () => backend.origin?.(entry.attrs, session));
		},
		mountPlace: (entry, session) => {
			const backend = find(entry.type);
			if (backend?.mounts === undefined) {
				throw invalid(`unknown place for cache mounts: ${JSON.stringify(entry.type)}`);
			}
			return configured(`${entry.type} cache mounts`, () => backend.mounts?.(entry.attrs, session));
		},
		read: async (origin, context) => {
			const { progress, vertex } = context;
			const chains = new CacheChains();
			for (const imported of await origin.read(context)) {
				chainsOf(imported, chains);
			}
			return createImportedSource(chains, {
				cache,
				onLost: (digest, error) => {
					const short = `layer ${digest} of cache ${origin.name} could not be had: ${toError(error).message}`;
					progress.write({ kind: "warning", warning: { vertex, level: 1, short, detail: [] } });
				},
			});
		},
		send: (plan, results, imported, context) =>
			exportCache(plan.target, results, {
				mode: plan.mode,
				sources: [local, ...imported],
				context,
				uploads: plan.uploads,
			}),
		inline: async (keys, layers, imported, context) => {
			await using held = new AsyncDisposableStack();
			const chains = new CacheChains();
			await collectRecords(keys, chains, {
				mode: "min",
				form: { compression: "gzip", level: undefined, force: false },
				sources: [local, ...imported],
				context,
				held,
			});
			return inlineRecords(
				chains,
				layers.map(({ descriptor, diffId }) => ({ digest: descriptor.digest, diffId })),
			);
		},
	};
}

function configured<T>(what: string, make: () => T | undefined): T {
	try {
		const made = make();
		if (made !== undefined) {
			return made;
		}
	} catch (error) {
		throw wrap(error, `failed to configure ${what}`);
	}
	throw new SlipwayError("internal", `${what} was not made`);
}

/** The same place twice would have two exports overwrite each other. */
function checkDuplicates(entries: readonly CacheOptions[]): void {
	const seen = new Set<string>();
	const duplicates = entries.filter((entry) => {
		const key = nameOf(entry);
		const isKnown = seen.has(key);
		seen.add(key);
		return isKnown;
	});
	if (duplicates.length > 0) {
		throw invalid(`duplicate cache exports [${duplicates.map(({ type }) => type).join(" ")}]`);
	}
}
