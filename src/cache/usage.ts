import { readdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { ThreadPool } from "../async/pool.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import { toError } from "../errors/errors.ts";
import { type Digest, isDigest, sha256 } from "../oci/digest.ts";
import { measureTrees, type TreesUsage } from "../snapshot/measure.ts";
import type { SnapshotId, Snapshotter, SnapshotUsage } from "../snapshot/snapshot.ts";
import type { PruneOptions, RefId, UsageRecord } from "./cache.ts";
import { type CacheRecord, layersOf, sizeHolder } from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import { ownSnapshots } from "./refs.ts";

export interface MeasureOptions {
	readonly table: RecordTable;
	readonly content: ContentStore & Partial<LocalContent>;
	readonly snapshotter: Snapshotter;
	readonly pool: ThreadPool;
	/** Blobs that stay whatever happens to records: they are counted by `measureOthers`. */
	readonly kept: ReadonlySet<Digest>;
	readonly signal: AbortSignal;
}

/** What a record takes of the disk: what its removal would free, and files that others have a name of too. */
export interface RecordUsage extends SnapshotUsage {
	/** As in `TreesUsage`; read from the database where the size is a kept one. */
	readonly shared: () => Float64Array;
}

export const nothingShared = (): Float64Array => new Float64Array();

/** Trees up to this size are walked at once: a trip to a thread costs as much. */
const smallTree = 200;

/**
 * What a record takes of the disk: its snapshots and blobs, in allocated blocks. A blob of several records is counted with the
 * oldest of them. The answer for the snapshots is kept while it can't change. That of a record whose files have names elsewhere, which
 * come and go with other records, is kept with those files: `shareOut` counts them once. Before files get their first name elsewhere
 * the size is forgotten (`shareFiles` of refs).
 */
export async function measureRecord(
	record: CacheRecord,
	options: MeasureOptions & {
		/** What removing the record frees: of blobs those that no other has, of files those that have no name left elsewhere. */
		readonly alone?: boolean;
	},
): Promise<RecordUsage> {
	const { table, content, kept, alone = false } = options;
	const files = await measureFiles(record, options, alone);
	let { bytes, inodes } = files;
	for (const digest of record.blobs.keys()) {
		const owners = table.blobOwners(digest);
		if (!kept.has(digest) && owners[0] === record && !(alone && owners.length > 1)) {
			const size = await blobBytes(content, digest);
			bytes += size ?? 0;
			inodes += size === undefined ? 0 : 1;
		}
	}
	return { bytes, inodes, shared: files.shared };
}

async function measureFiles(
	record: CacheRecord,
	{ table, snapshotter, pool, signal }: MeasureOptions,
	alone: boolean,
): Promise<RecordUsage> {
	const holder = sizeHolder(record);
	const { size, changes } = holder;
	if (size !== undefined && !(alone && size.sharedBytes > 0)) {
		const { bytes, inodes, sharedBytes } = size;
		const shared = sharedBytes === 0 ? nothingShared : () => table.sharedFiles(holder);
		return { bytes, inodes, shared };
	}
	const ownNow = (): readonly SnapshotId[] =>
		[record, record.twin].flatMap((each) => (each === undefined ? [] : ownSnapshots(each)));
	const own = ownNow();
	const directories = [...own]
		.filter((id) => snapshotter.exists(id))
		.map((id) => `${snapshotter.root}/${id}`);
	let usage: TreesUsage;
	try {
		usage =
			measureTrees(directories, smallTree) ??
			(await pool.run<readonly string[], TreesUsage>("cache/measure", directories, { signal }));
	} catch (thrown) {
		if (record.removed) {
			return { bytes: 0, inodes: 0, shared: nothingShared };
		}
		throw toError(thrown);
	}
	const changed =
		holder !== sizeHolder(record) ||
		holder.linking > 0 ||
		holder.changes !== changes ||
		ownNow().join() !== own.join();
	// What is written to meanwhile has no size that would be worth keeping.
	if ((!holder.mutable || holder.handles === 0) && !holder.removed && !changed) {
		table.saveSize(holder, usage, usage.shared);
	}
	return { bytes: usage.bytes, inodes: usage.inodes, shared: () => usage.shared };
}

/**
 * Whoever makes hard links to a tree's files (`mayLink` of worker/copy-tree.ts) holds this meanwhile. They can be made between plain
 * directories: with overlayfs those of single layers, without it those of the topmost.
 */
export function shareFiles(
	record: CacheRecord,
	{ table, snapshotter }: Pick<MeasureOptions, "table" | "snapshotter">,
): Disposable {
	const layers = layersOf(record);
	const isPlain = snapshotter.name === "native" || layers.length <= 1;
	const holders = isPlain ? [...new Set([record, ...layers.slice(-1)].map(sizeHolder))] : [];
	const forget = (by: number): void => {
		for (const holder of holders) {
			holder.linking += by;
			holder.changes++;
			if (holder.size !== undefined) {
				holder.size = undefined;
				table.save(holder);
			}
		}
	};
	forget(1);
	return { [Symbol.dispose]: () => forget(-1) };
}

/** Undefined if it is not there. */
async function blobBytes(content: MeasureOptions["content"], digest: Digest): Promise<number | undefined> {
	const path = content.path?.(digest);
	if (path === undefined) {
		return (await content.info(digest))?.size;
	}
	const stat = statSync(path, { throwIfNoEntry: false });
	return stat === undefined ? undefined : stat.blocks * 512;
}

/**
 * The records with the files that several have counted once: with the one that is likely to stay longest, since what goes
 * before it frees nothing.
 */
export async function shareOut(
	measured: readonly { readonly record: CacheRecord; readonly usage: RecordUsage }[],
): Promise<ReadonlyMap<CacheRecord, SnapshotUsage>> {
	const counted = new Set<number>();
	const answer = new Map<CacheRecord, SnapshotUsage>();
	const staying = [...measured].sort(
		(a, b) =>
			Number(a.record.recordType !== "regular") - Number(b.record.recordType !== "regular") ||
			Number(a.record.mutable) - Number(b.record.mutable) ||
			a.record.createdAt - b.record.createdAt,
	);
	for (const { record, usage } of staying) {
		let { bytes, inodes } = usage;
		const shared = usage.shared();
		for (let at = 0; at < shared.length; at += 2) {
			const inode = shared[at] ?? 0;
			if (!counted.has(inode)) {
				counted.add(inode);
				bytes += shared[at + 1] ?? 0;
				inodes++;
			}
		}
		if (shared.length > 0) {
			// The thread is others' too.
			await nextTurn();
		}
		answer.set(record, { bytes, inodes });
	}
	return answer;
}

/** Blobs that no record is counted with: of named images, of the history, documents of images. */
export async function measureOtherBlobs({
	table,
	content,
	kept,
	signal,
}: Pick<MeasureOptions, "table" | "content" | "kept" | "signal">): Promise<SnapshotUsage> {
	let bytes = 0;
	let inodes = 0;
	for await (const digest of listDigests(content)) {
		signal.throwIfAborted();
		if (kept.has(digest) || !table.hasBlob(digest)) {
			const size = await blobBytes(content, digest);
			bytes += size ?? 0;
			inodes += size === undefined ? 0 : 1;
		}
	}
	return { bytes, inodes };
}

/** Removes blobs that no record and nobody else names: of images whose name another one has got, of exports that were killed. */
export async function removeUnnamedBlobs(
	{ table, content, kept, signal }: Pick<MeasureOptions, "table" | "content" | "kept" | "signal">,
	{ olderThanMs, removed }: { readonly olderThanMs: number; readonly removed: (digest: Digest) => void },
): Promise<SnapshotUsage> {
	let bytes = 0;
	let inodes = 0;
	const before = Date.now() - olderThanMs;
	for await (const digest of listDigests(content)) {
		signal.throwIfAborted();
		const path = content.path?.(digest);
		if (path === undefined || kept.has(digest) || table.hasBlob(digest)) {
			continue;
		}
		const stat = statSync(path, { throwIfNoEntry: false });
		if (stat !== undefined && stat.mtimeMs < before && stat.ctimeMs < before) {
			await content.delete(digest);
			removed(digest);
			bytes += stat.blocks * 512;
			inodes++;
		}
	}
	return { bytes, inodes };
}

/** Names only, where blobs are files: the store's own list asks for the size of each. */
export async function* listDigests(
	content: ContentStore & Partial<LocalContent>,
): AsyncGenerator<Digest, void> {
	const sample = content.path?.(sha256(""));
	if (sample === undefined) {
		for await (const { digest } of content.list()) {
			yield digest;
		}
		return;
	}
	const algorithms = dirname(dirname(sample));
	for (const algorithm of readdirSync(algorithms)) {
		for (const name of readdirSync(`${algorithms}/${algorithm}`)) {
			const digest = `${algorithm}:${name}`;
			if (isDigest(digest)) {
				yield digest;
			}
		}
	}
}

/** What is no record and goes with none: shown, so that all of the disk is accounted for, and never pruned. */
export function describeOther(
	id: string,
	description: string,
	usage: SnapshotUsage & { readonly inUse?: boolean },
): UsageRecord {
	return {
		id: id as RefId,
		mutable: false,
		inUse: usage.inUse ?? true,
		shared: false,
		parents: [],
		createdAt: Date.now(),
		lastUsedAt: undefined,
		usageCount: 0,
		description,
		recordType: "internal",
		bytes: usage.bytes,
		inodes: usage.inodes,
	};
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
		bytes: usage.bytes,
		inodes: usage.inodes,
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
