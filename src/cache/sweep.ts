import type { ContentStore, LocalContent } from "../content/content.ts";
import type { Digest } from "../oci/digest.ts";
import type { SnapshotId, Snapshotter } from "../snapshot/snapshot.ts";
import type { CacheRecord } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import { listDigests } from "./usage.ts";

export interface SweepOptions {
	readonly table: RecordTable;
	readonly content: ContentStore & Partial<LocalContent>;
	readonly snapshotter: Snapshotter;
	/** Blobs that somebody else needs; undefined: nobody knows, so none is removed. */
	readonly keptBlobs: (() => Promise<ReadonlySet<Digest>>) | undefined;
	/** Files written after this time may have been lost by the machine; undefined: it did not go down. */
	readonly lostSince: number | undefined;
	readonly warn: (message: string) => void;
}

/**
 * Brings records and files together after a start: files that no record names go, and records whose files are gone or whose
 * writer was killed. Only the names in two directories are read. The answer is the snapshots that are left to remove,
 * which may take its time.
 */
export async function sweep(options: SweepOptions): Promise<readonly SnapshotId[]> {
	const { table, snapshotter, warn } = options;
	const there = new Set(await snapshotter.list());
	const gone: CacheRecord[] = [];
	for (const record of table.all()) {
		if (record.mutable && !record.retain) {
			gone.push(record);
			continue;
		}
		// What a cache mount's owner wanted to be safe it synced itself.
		const synced =
			record.recordType === "exec.cachemount" || record.writtenAt <= (options.lostSince ?? Number.MAX_VALUE);
		const lost = !synced;
		if (record.snapshot !== undefined && (lost || !there.has(record.snapshot))) {
			if (!lost) {
				warn(`files of cache record ${record.id} (${record.description}) are gone`);
			}
			// With a blob it can be unpacked again.
			if (record.mutable || record.blobs.size === 0) {
				gone.push(record);
			} else {
				record.snapshot = undefined;
				record.portable = undefined;
				record.size = undefined;
				table.save(record);
			}
		} else if (record.portable !== undefined && !there.has(record.portable)) {
			record.portable = undefined;
			table.save(record);
		}
	}
	if (gone.length > 0) {
		table.remove(withDescendants(gone));
	}
	await sweepBlobs(options);
	const named = new Set<SnapshotId>();
	for (const { snapshot, portable } of table.all()) {
		for (const id of [snapshot, portable]) {
			if (id !== undefined) {
				named.add(id);
			}
		}
	}
	return [...there].filter((id) => !named.has(id));
}

/** The records and all that stand on them or share their files, uppermost first. */
export function withDescendants(records: Iterable<CacheRecord>): readonly CacheRecord[] {
	const found = new Set<CacheRecord>();
	const pending = [...records];
	for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
		if (!found.has(at)) {
			found.add(at);
			pending.push(...at.children);
			if (at.mutable && at.twin !== undefined) {
				pending.push(at.twin);
			}
		}
	}
	return [...found].reverse();
}

async function sweepBlobs({ table, content, keptBlobs }: SweepOptions): Promise<void> {
	if (keptBlobs === undefined) {
		return;
	}
	let kept: ReadonlySet<Digest> | undefined;
	for await (const digest of listDigests(content)) {
		if (!table.hasBlob(digest)) {
			kept ??= await keptBlobs();
			if (!kept.has(digest)) {
				await content.delete(digest);
			}
		}
	}
}
