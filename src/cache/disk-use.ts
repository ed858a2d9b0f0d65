import type { Digest } from "../oci/digest.ts";
import type { SnapshotUsage } from "../snapshot/snapshot.ts";
import type { PruneOptions, UsageRecord } from "./cache.ts";
import type { OpenCacheOptions } from "./manager.ts";
import { type CacheRecord, layersOf } from "./record.ts";
import { withDescendants } from "./sweep.ts";
import {
	describeOther,
	describeRecord,
	isInUse,
	isShown,
	type MeasureOptions,
	measureOtherBlobs,
	measureRecord,
	nothingShared,
	pruneCandidates,
	type RecordUsage,
	removeUnnamedBlobs,
	shareOut,
} from "./usage.ts";

export interface DiskUseOptions
	extends Pick<MeasureOptions, "table" | "content" | "snapshotter" | "pool">,
		Pick<OpenCacheOptions, "isShared" | "otherFiles" | "blobRemoved" | "afterPrune"> {
	/** Whether blobs that no record names may go: somebody says which of them others need. */
	readonly removesBlobs: boolean;
	readonly keptBlobs: () => Promise<ReadonlySet<Digest>>;
	/** With their files. */
	readonly remove: (records: readonly CacheRecord[]) => Promise<void>;
}

/** What the records and all else in the state directory take of the disk, and which of them go when there must be room. */
export class DiskUse {
	readonly #options: DiskUseOptions;

	constructor(options: DiskUseOptions) {
		this.#options = options;
	}

	async usage({ signal }: { readonly signal: AbortSignal }): Promise<readonly UsageRecord[]> {
		const options = await this.#measuring(signal);
		const records = await this.#recordUsage(options);
		const blobs = await measureOtherBlobs(options);
		const others = this.#options.otherFiles?.();
		return [
			...records,
			...(blobs.inodes === 0
				? []
				: [describeOther("images", "blobs of named images and of the history", blobs)]),
			...(others === undefined ? [] : [describeOther("metadata", describedOthers, others)]),
		];
	}

	async #recordUsage(options: MeasureOptions): Promise<readonly UsageRecord[]> {
		const measured = [];
		for (const record of [...this.#options.table.all()].filter(isShown)) {
			options.signal.throwIfAborted();
			if (record.removed) {
				continue;
			}
			const writing = record.mutable && record.handles > 0;
			measured.push({ record, usage: writing ? nothingUsed : await measureRecord(record, options) });
		}
		const usage = await shareOut(measured);
		return measured.map(({ record }) =>
			describeRecord(record, usage.get(record) ?? nothingUsed, {
				inUse: isInUse(record),
				shared: this.#isShared(record),
			}),
		);
	}

	async *prune(options: PruneOptions): AsyncGenerator<UsageRecord, void> {
		const before = this.#options.otherFiles?.();
		let removed = false;
		try {
			for await (const line of this.#pruneRecords(options)) {
				removed = true;
				yield line;
			}
			const line = await this.#pruneBlobs(options);
			if (line !== undefined) {
				yield line;
			}
		} finally {
			if (removed) {
				this.#options.afterPrune?.();
			}
		}
		const after = removed ? this.#options.otherFiles?.() : undefined;
		if (before !== undefined && after !== undefined && after.bytes < before.bytes) {
			const bytes = before.bytes - after.bytes;
			const line = describeOther("metadata", describedOthers, { bytes, inodes: 0, inUse: false });
			if (options.matches?.(line) !== false) {
				yield line;
			}
		}
	}

	async #pruneBlobs({
		matches,
		keepDurationMs = 0,
		keepBytes,
		signal,
	}: PruneOptions): Promise<UsageRecord | undefined> {
		const describe = (usage: SnapshotUsage): UsageRecord =>
			describeOther("blobs", "blobs that nothing names any more", { ...usage, inUse: false });
		if (!this.#options.removesBlobs || matches?.(describe(nothingUsed)) === false) {
			return undefined;
		}
		// A build may be about to name what is there already.
		if ([...this.#options.table.all()].some(({ handles }) => handles > 0)) {
			return undefined;
		}
		const usage = await removeUnnamedBlobs(await this.#measuring(signal), {
			// Under a limit only what is of no use: documents of images spare a question to their registry.
			olderThanMs: Math.max(keepDurationMs, keepBytes === undefined ? youngBlobMs : documentMs),
			removed: (digest) => this.#options.blobRemoved?.(digest),
		});
		return usage.inodes === 0 ? undefined : describe(usage);
	}

	async *#pruneRecords(options: PruneOptions): AsyncGenerator<UsageRecord, void> {
		const { signal, keepBytes, usedAtMostBytes = Number.POSITIVE_INFINITY } = options;
		if (keepBytes !== undefined && usedAtMostBytes <= keepBytes) {
			return;
		}
		let measuring: MeasureOptions | undefined;
		let used: number | undefined;
		const skipped = new Set<CacheRecord>();
		const describe = (record: CacheRecord, usage: SnapshotUsage): UsageRecord =>
			describeRecord(record, usage, { inUse: false, shared: this.#isShared(record) });
		for (;;) {
			signal.throwIfAborted();
			const candidates = pruneCandidates(
				this.#options.table.all(),
				(record) => this.#isShared(record),
				options,
				Date.now(),
			).filter((record) => {
				if (!skipped.has(record) && options.matches?.(describe(record, nothingUsed)) === false) {
					skipped.add(record);
				}
				return !skipped.has(record);
			});
			if (candidates.length === 0) {
				return;
			}
			measuring ??= await this.#measuring(signal);
			if (keepBytes !== undefined) {
				used ??= (await this.#recordUsage(measuring)).reduce(
					(sum, record) => sum + (record.shared ? 0 : record.bytes),
					0,
				);
				if (used <= keepBytes) {
					return;
				}
			}
			for (const record of candidates) {
				signal.throwIfAborted();
				const usage = await measureRecord(record, { ...measuring, alone: true });
				const line = describe(record, usage);
				// Somebody may have taken it while it was measured.
				if (record.removed || isInUse(record) || record.children.size > 0 || !isShown(record)) {
					continue;
				}
				await this.#options.remove(withDescendants([record]));
				used = used === undefined ? undefined : used - usage.bytes;
				yield line;
				if (keepBytes !== undefined) {
					// What stood under it may be worth less than what came next.
					break;
				}
			}
		}
	}

	async #measuring(signal: AbortSignal): Promise<MeasureOptions> {
		const { table, content, snapshotter, pool, keptBlobs } = this.#options;
		return { table, content, snapshotter, pool, kept: await keptBlobs(), signal };
	}

	#isShared(record: CacheRecord): boolean {
		const { isShared } = this.#options;
		const diffIds = isShared === undefined ? [] : layersOf(record).flatMap((layer) => layer.diffId ?? []);
		return isShared !== undefined && diffIds.length > 0 && isShared(diffIds);
	}
}

const describedOthers = "databases and other small files";

/** More than there is between the writing of an image's documents and that of its name. */
const youngBlobMs = 60_000;
const documentMs = 24 * 3_600_000;

const nothingUsed: RecordUsage = { bytes: 0, inodes: 0, shared: nothingShared };
