import type { ContentProvider } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { randomBase36 } from "../oci/identity.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { SnapshotId, SnapshotUsage } from "../snapshot/snapshot.ts";
import type { RecordType, RefId } from "./cache.ts";

/**
 * A record as it is held in memory: one object per record, shared by all handles and child records. What the database
 * keeps of it is written by `RecordTable.save` after each change.
 */
export interface CacheRecord {
	readonly id: RefId;
	readonly kind: "layer" | "merge" | "diff";
	/** layer: none or one. merge: in order. diff: lower and upper, undefined for the empty tree. */
	readonly parents: readonly (CacheRecord | undefined)[];
	mutable: boolean;
	retain: boolean;
	/** The layer's files; of a merge or diff, files made for it where they cannot be put together from others. */
	snapshot: SnapshotId | undefined;
	/** The same files fit for other parents; equal to `snapshot` if they are by themselves; undefined: not known. */
	portable: SnapshotId | undefined;
	diffId: Digest | undefined;
	/** Blobs of this layer, each in another form. Whether their bytes are here is the content store's knowledge. */
	readonly blobs: Map<Digest, Descriptor>;
	/** The mutable record that shares this immutable one's snapshot, and the other way round. */
	twin: CacheRecord | undefined;
	readonly description: string;
	readonly recordType: RecordType;
	readonly createdAt: number;
	lastUsedAt: number | undefined;
	usageCount: number;
	/** Of the files, without blobs; undefined: not measured since the last change. Of twins the mutable one has it. */
	size: RecordSize | undefined;
	/** When the snapshot was finished; what is younger than the last sync does not survive a power failure. */
	writtenAt: number;

	/** Not kept: open handles, records that have this one as parent, where lazy blobs can be had. */
	handles: number;
	readonly children: Set<CacheRecord>;
	readonly origins: BlobOrigin[];
	chainId: Digest | undefined;
	removed: boolean;
	/** How many are making hard links to the files, and how often that or writing began or ended: what is measured meanwhile is not kept. */
	linking: number;
	changes: number;
}

export interface RecordSize extends SnapshotUsage {
	/** Of files that others have a name of too, which are not in `bytes`; `RecordTable.sharedFiles` has which. */
	readonly sharedBytes: number;
}

/** Where the blobs of a lazy layer can be fetched, and who is told about it by default. */
export interface BlobOrigin {
	readonly provider: ContentProvider;
	readonly isLost: ((digest: Digest) => boolean) | undefined;
	readonly progress: ProgressSink | undefined;
	readonly vertex: Digest | undefined;
}

/** What has to be given for a new record; the rest begins empty. */
export type NewRecord = Pick<CacheRecord, "kind" | "parents" | "description" | "recordType" | "createdAt"> &
	Partial<
		Pick<
			CacheRecord,
			| "id"
			| "mutable"
			| "retain"
			| "snapshot"
			| "portable"
			| "diffId"
			| "size"
			| "writtenAt"
			| "lastUsedAt"
			| "usageCount"
		>
	>;

export function createRecord(record: NewRecord): CacheRecord {
	return {
		id: record.id ?? newRefId(),
		mutable: false,
		retain: false,
		snapshot: undefined,
		portable: undefined,
		diffId: undefined,
		blobs: new Map(),
		twin: undefined,
		lastUsedAt: undefined,
		usageCount: 0,
		size: undefined,
		writtenAt: 0,
		handles: 0,
		children: new Set(),
		origins: [],
		chainId: undefined,
		removed: false,
		linking: 0,
		changes: 0,
		...record,
	};
}

/** The record that has the size of another's files: of twins the mutable one. */
export function sizeHolder(record: CacheRecord): CacheRecord {
	return record.mutable ? record : (record.twin ?? record);
}

export function newRefId(): RefId {
	return randomBase36(25) as RefId;
}

/** Short, because the paths of all layers have to fit into the options of one mount. */
export function newSnapshotId(): SnapshotId {
	return randomBase36(10) as SnapshotId;
}

/**
 * The layers that a record's tree is made of, lowest first; each is a record with files or a blob of its own. A layer that
 * comes more than once counts at its topmost place: what is in it wins there, and hides all of it below.
 */
export function layersOf(record: CacheRecord | undefined): readonly CacheRecord[] {
	if (record === undefined) {
		return [];
	}
	switch (record.kind) {
		case "layer": {
			const layers: CacheRecord[] = [];
			for (let at: CacheRecord | undefined = record; at !== undefined; at = at.parents[0]) {
				if (at.kind !== "layer") {
					return [...layersOf(at), ...layers.reverse()];
				}
				layers.push(at);
			}
			return layers.reverse();
		}
		case "merge": {
			const layers = record.parents.flatMap(layersOf);
			return layers.filter((layer, index) => layers.lastIndexOf(layer) === index);
		}
		case "diff":
			return layersBetween(record.parents[0], record.parents[1]) ?? [record];
	}
}

/** What `upper` has above `lower`; undefined unless lower's layers are the beginning of upper's. */
export function layersBetween(
	lower: CacheRecord | undefined,
	upper: CacheRecord | undefined,
): readonly CacheRecord[] | undefined {
	const below = layersOf(lower);
	const all = layersOf(upper);
	return below.length <= all.length && below.every((layer, index) => layer === all[index])
		? all.slice(below.length)
		: undefined;
}

/** Of a record that is real. */
export function snapshotOf(record: CacheRecord): SnapshotId {
	if (record.snapshot === undefined) {
		throw new SlipwayError("internal", `cache record ${record.id} is used before it has files`);
	}
	return record.snapshot;
}
