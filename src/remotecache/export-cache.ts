import { createLimit } from "../async/limit.ts";
import type { ImmutableRef } from "../cache/cache.ts";
import { withStatus } from "../exporter/status.ts";
import type { Digest } from "../oci/digest.ts";
import type { CacheKey, CacheSource, StepContext } from "../solver/solver.ts";
import { CacheChains } from "./chains.ts";
import { collectRecords } from "./collect-records.ts";
import { toConfig } from "./config.ts";
import type { CacheBlob, CacheTarget, ExportMode } from "./remotecache.ts";

export interface ExportCacheOptions {
	readonly mode: ExportMode;
	/** The local store and what was imported. */
	readonly sources: readonly CacheSource<ImmutableRef | undefined>[];
	readonly context: StepContext;
}

/** Blobs on their way to one target; registries limit themselves further. */
const maxUploads = 4;

/** Sends each blob once, several at a time, shown as `writing layer …`. */
export class Uploads {
	readonly #target: CacheTarget;
	readonly #limit = createLimit(maxUploads);
	readonly #sent = new Map<Digest, Promise<void>>();

	constructor(target: CacheTarget) {
		this.#target = target;
	}

	send(blob: CacheBlob, context: StepContext): Promise<void> {
		const { digest } = blob.descriptor;
		let sent = this.#sent.get(digest);
		if (sent === undefined) {
			sent = this.#send(blob, context);
			sent.catch(() => {});
			this.#sent.set(digest, sent);
		}
		return sent;
	}

	async #send(blob: CacheBlob, context: StepContext): Promise<void> {
		using _slot = await this.#limit.acquire(context);
		await withStatus(context, `writing layer ${blob.descriptor.digest}`, () =>
			this.#target.sendBlob(blob, context),
		);
	}

	/** Waits for what is still on its way, however it ends. */
	async settled(): Promise<void> {
		await Promise.allSettled(this.#sent.values());
	}
}

/** Exports the results that have these keys: one list of keys for each platform. Gives what becomes part of the response. */
export async function exportCache(
	target: CacheTarget,
	results: readonly (readonly CacheKey[])[],
	{ mode, sources, context }: ExportCacheOptions,
): Promise<Readonly<Record<string, string>>> {
	await using held = new AsyncDisposableStack();
	const stop = new AbortController();
	const inner = { ...context, signal: AbortSignal.any([context.signal, stop.signal]) };
	const uploads = new Uploads(target);
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
