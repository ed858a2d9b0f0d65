import { statSync } from "node:fs";
import type { ContentStore, LocalContent } from "../content/content.ts";
import type { Snapshotter, SnapshotUsage } from "../snapshot/snapshot.ts";
import type { PruneOptions, UsageRecord } from "./cache.ts";
import type { CacheRecord } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import { ownSnapshots } from "./refs.ts";

export interface MeasureOptions {
	readonly table: RecordTable;
	readonly content: ContentStore & Partial<LocalContent>;
	readonly snapshotter: Snapshotter;
}

/**
 * What a record takes of the disk: its snapshots and blobs, in allocated blocks. A blob of several records is counted with the
 * oldest of them. The answer is kept until something of the record changes.
 */
export async function measureRecord(
	record: CacheRecord,
	{ table, content, snapshotter }: MeasureOptions,
	signal: AbortSignal,
): Promise<SnapshotUsage> {
	if (record.size !== undefined) {
		return record.size;
	}
	let bytes = 0;
	let inodes = 0;
	for (const id of ownSnapshots(record)) {
		if (snapshotter.exists(id)) {
			const usage = await snapshotter.usage(id, { signal });
			bytes += usage.bytes;
			inodes += usage.inodes;
		}
	}
	for (const digest of record.blobs.keys()) {
		const info = table.blobOwners(digest)[0] === record ? await content.info(digest) : undefined;
		if (info !== undefined) {
			const path = content.path?.(digest);
			bytes += path === undefined ? info.size : statSync(path).blocks * 512;
			inodes++;
		}
	}
	const usage = { bytes, inodes };
	// What is written to meanwhile has no size that would be worth keeping.
	if (!record.mutable || record.handles === 0) {
		record.size = usage;
		if (!record.removed) {
			table.save(record);
		}
	}
	return usage;
}

/** One of two twins stands for both: the immutable one while it is in use. */
export function isShown(record: CacheRecord): boolean {
	const { twin } = record;
	if (twin === undefined) {
		return true;
	}
	return record.mutable ? twin.handles === 0 : record.handles > 0;
}

/** In use: it has a handle, or something that stands on it has. */
export function isInUse(record: CacheRecord): boolean {
	const seen = new Set<CacheRecord>();
	const pending = [record];
	for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
		if (at.handles > 0) {
			return true;
		}
		for (const child of at.children) {
			if (!seen.has(child)) {
				seen.add(child);
				pending.push(child);
			}
		}
	}
	return false;
}

export function describeRecord(
	record: CacheRecord,
	usage: SnapshotUsage,
	flags: { readonly inUse: boolean; readonly shared: boolean },
): UsageRecord {
	return {
		id: record.id,
		mutable: record.mutable,
		...flags,
		parents: record.parents.flatMap((parent) => parent?.id ?? []),
		createdAt: record.createdAt,
		lastUsedAt: record.lastUsedAt,
		usageCount: record.usageCount,
		description: record.description,
		recordType: record.recordType,
		...usage,
	};
}

/** Records that may go: nobody uses them and nothing stands on them. Least worth keeping first, as BuildKit ranks them. */
export function pruneCandidates(
	records: Iterable<CacheRecord>,
	isShared: (record: CacheRecord) => boolean,
	options: Pick<PruneOptions, "all" | "keepDurationMs">,
	now: number,
): readonly CacheRecord[] {
	const candidates = [...records].filter((record) => {
		if (!isShown(record) || record.handles > 0 || record.children.size > 0 || isPinnedByTwin(record)) {
			return false;
		}
		if (!options.all) {
			const kept = record.recordType === "internal" || record.recordType === "frontend";
			if (kept || isShared(record)) {
				return false;
			}
		}
		const cutOff = now - (options.keepDurationMs ?? 0);
		return !(
			options.keepDurationMs !== undefined &&
			options.keepDurationMs > 0 &&
			(record.lastUsedAt ?? 0) > cutOff
		);
	});
	const lastUsed = rank(candidates, (record) => record.lastUsedAt ?? 0);
	const count = rank(candidates, (record) => record.usageCount);
	const worth = (record: CacheRecord): number => (lastUsed.get(record) ?? 0) + (count.get(record) ?? 0);
	return candidates.sort((a, b) => worth(a) - worth(b));
}

function isPinnedByTwin({ twin }: CacheRecord): boolean {
	return twin !== undefined && (twin.handles > 0 || twin.children.size > 0);
}

/** Place in the order of a value, from above 0 to 1; equal values have equal places. */
function rank(
	records: readonly CacheRecord[],
	value: (record: CacheRecord) => number,
): ReadonlyMap<CacheRecord, number> {
	const values = [...new Set([0, ...records.map(value)])].sort((a, b) => a - b);
	const places = new Map(values.map((each, index) => [each, (index + 1) / values.length]));
	return new Map(records.map((record) => [record, places.get(value(record)) ?? 0]));
}
