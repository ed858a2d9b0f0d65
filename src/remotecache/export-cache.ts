import type { ImmutableRef } from "../cache/cache.ts";
import { withStatus } from "../exporter/status.ts";
import type { CacheKey, CacheSource, StepContext } from "../solver/solver.ts";
import { CacheChains } from "./chains.ts";
import { collectRecords } from "./collect-records.ts";
import { toConfig } from "./config.ts";
import type { CacheBlob, CacheTarget, ExportMode } from "./remotecache.ts";
import { Uploads } from "./uploads.ts";

export interface ExportCacheOptions {
	readonly mode: ExportMode;
	/** The local store and what was imported. */
	readonly sources: readonly CacheSource<ImmutableRef | undefined>[];
	readonly context: StepContext;
	/** What was sent to the target before. */
	readonly uploads?: Uploads;
}

/** Exports the results that have these keys: one list of keys for each platform. Gives what becomes part of the response. */
export async function exportCache(
	target: CacheTarget,
	results: readonly (readonly CacheKey[])[],
	{ mode, sources, context, uploads = new Uploads(target) }: ExportCacheOptions,
): Promise<Readonly<Record<string, string>>> {
	await using held = new AsyncDisposableStack();
	const stop = new AbortController();
	const inner = { ...context, signal: AbortSignal.any([context.signal, stop.signal]) };
	try {
		const chains = new CacheChains();
		const cache = await withStatus(context, "preparing build cache for export", async () => {
			for (const keys of results) {
				const { form } = target;
				const onBlob = (blob: CacheBlob): void => void uploads.send(blob, inner);
				await collectRecords(keys, chains, { mode, form, sources, context: inner, held, onBlob });
			}
			return toConfig(chains);
		});
		if (cache.config.layers.length === 0) {
			await withStatus(context, "skipping cache export for empty result", async () => {});
			return {};
		}
		return await withStatus(context, "sending cache export", async () => {
			await Promise.all([...cache.blobs.values()].map((blob) => uploads.send(blob, inner)));
			return await target.finish(cache, inner);
		});
	} catch (error) {
		stop.abort(error);
		throw error;
	} finally {
		await uploads.settled();
	}
}
