import type { ImmutableRef, LayerBlob } from "../cache/cache.ts";
import { toError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { nameOf } from "../remotecache/cache-name.ts";
import type { ImportedSource } from "../remotecache/imported-source.ts";
import type { RemoteCaches } from "../remotecache/remote-caches.ts";
import type { CacheOptions } from "../remotecache/remotecache.ts";
import { EarlyUploads } from "../remotecache/uploads.ts";
import type { CacheKey, Job, StepContext, Vertex } from "../solver/solver.ts";
import type { Output } from "../worker/worker.ts";
import type { BuildOptions } from "./control.ts";

/** The imported and exported caches of one build. */
export interface BuildCaches extends AsyncDisposable {
	/** What a step has just made: if all steps are exported, it is on its way while others run. */
	made(vertex: Vertex, outputs: readonly Output[]): void;
	/**
	 * What these caches know, in order; each is read once. One that can't be had is shown as a failed step with a warning and is left
	 * out: a build does not depend on caches.
	 */
	sources(entries: readonly CacheOptions[]): Promise<readonly ImportedSource[]>;
	/** True, with a warning, if the error may come from imported results that could not be had: they are not found any more. */
	dropLost(error: unknown): boolean;
	/** What exporters of images ask for; undefined unless the image shall carry its cache. */
	inlineFor(
		keysOf: (ref: ImmutableRef) => readonly CacheKey[] | undefined,
	):
		| ((
				ref: ImmutableRef,
				layers: readonly LayerBlob[],
				context: StepContext,
		  ) => Promise<Uint8Array | undefined>)
		| undefined;
	/** Sends all that were asked for. A failure is a warning unless the client insisted (`ignore-error=false`). */
	export(results: readonly (readonly CacheKey[])[]): Promise<Readonly<Record<string, string>>>;
}

/** Throws `invalid-argument` for caches that can't be what is asked for. Begins to read those that are imported. */
export function openBuildCaches(
	caches: RemoteCaches,
	job: Job<Output>,
	request: { readonly cacheExports: readonly CacheOptions[]; readonly cacheImports: readonly CacheOptions[] },
	{ session, signal, progress }: Pick<BuildOptions, "session" | "signal" | "progress">,
): BuildCaches {
	const imports = new Map<string, Promise<ImportedSource | undefined>>();
	const imported: ImportedSource[] = [];
	const exports = caches.exports(request.cacheExports, session);

	async function read(entry: CacheOptions): Promise<ImportedSource | undefined> {
		const shown = nameOf(entry);
		const name = `importing cache manifest from ${shown}`;
		try {
			const source = await job.step({ id: name, name, signal }, (step) =>
				warnAbout(step, `cache ${shown} is not used`, () => caches.read(caches.origin(entry, session), step)),
			);
			imported.push(source);
			return source;
		} catch (error) {
			if (signal.aborted) {
				throw error;
			}
			return undefined;
		}
	}

	function importOf(entry: CacheOptions): Promise<ImportedSource | undefined> {
		const name = nameOf(entry);
		let source = imports.get(name);
		if (source === undefined) {
			source = read(entry);
			source.catch(() => {});
			imports.set(name, source);
		}
		return source;
	}

	for (const entry of request.cacheImports) {
		void importOf(entry);
	}
	const early = new EarlyUploads(
		exports.targets
			.filter(({ mode }) => mode === "max")
			.map(({ target, uploads }) => ({ form: target.form, uploads })),
	);
	return {
		made: ({ options: { exportCache } }, outputs) => {
			for (const ref of exportCache === false ? [] : outputs) {
				if (ref !== undefined) {
					early.add(ref);
				}
			}
		},
		[Symbol.asyncDispose]: () => early[Symbol.asyncDispose](),
		sources: async (entries) => {
			const all = await Promise.all(entries.map(importOf));
			return all.filter((source) => source !== undefined);
		},
		dropLost: (error) => {
			const isDropped = imported.map((source) => source.dropLost(error)).includes(true);
			if (isDropped) {
				const short = `an imported cache is damaged, what it was used for is built again: ${toError(error).message}`;
				progress.write({
					kind: "warning",
					warning: { vertex: sha256("imported caches"), level: 1, short, detail: [] },
				});
			}
			return isDropped;
		},
		inlineFor: (keysOf) =>
			exports.inline
				? async (ref, layers, context) => {
						const keys = keysOf(ref);
						return keys === undefined ? undefined : await caches.inline(keys, layers, imported, context);
					}
				: undefined,
		export: async (results) => {
			// The answer to a question has no trees.
			if (results.length === 0) {
				return {};
			}
			const responses = await Promise.all(
				exports.targets.map(async (plan, index) => {
					const { name } = plan.target;
					try {
						return await job.step({ id: `${name} ${index}`, name, signal }, (step) =>
							plan.required
								? caches.send(plan, results, imported, step)
								: warnAbout(step, `${name} failed`, () => caches.send(plan, results, imported, step)),
						);
					} catch (error) {
						if (plan.required || signal.aborted) {
							throw error;
						}
						return {};
					}
				}),
			);
			return Object.assign({}, ...responses) as Record<string, string>;
		},
	};
}

async function warnAbout<T>(step: StepContext, what: string, work: () => Promise<T>): Promise<T> {
	try {
		return await work();
	} catch (error) {
		if (!step.signal.aborted) {
			const warning = {
				vertex: step.vertex,
				level: 1,
				short: `${what}: ${toError(error).message}`,
				detail: [],
			};
			step.progress.write({ kind: "warning", warning });
		}
		throw error;
	}
}
