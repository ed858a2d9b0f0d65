import { SlipwayError } from "../errors/errors.ts";
import type { SnapshotId } from "../snapshot/snapshot.ts";
import type { MountSpec } from "../sys/sys.ts";
import type {
	BlobOptions,
	ContentDigests,
	ImmutableRef,
	LayerBlob,
	LayerRef,
	MutableDigests,
	MutableRef,
	RefId,
	RefWorkOptions,
} from "./cache.ts";
import { type CacheRecord, layersOf } from "./record.ts";

/** What handles ask of the manager. */
export interface RefOwner {
	release(record: CacheRecord): Promise<void>;
	hold(record: CacheRecord): ImmutableRef;
	commit(record: CacheRecord): ImmutableRef;
	freeze(record: CacheRecord): ImmutableRef;
	discard(record: CacheRecord): Promise<void>;
	isReal(record: CacheRecord): boolean;
	shareFiles(record: CacheRecord): Disposable;
	mounts(record: CacheRecord, options: RefWorkOptions): Promise<readonly MountSpec[]>;
	mutableMounts(record: CacheRecord): readonly MountSpec[];
	directory(record: CacheRecord): string;
	blobs(record: CacheRecord, options: BlobOptions): Promise<readonly LayerBlob[]>;
	knownBlobs(record: CacheRecord, options: BlobOptions): Promise<readonly LayerBlob[] | undefined>;
	digests(record: CacheRecord): MutableDigests;
	getMetadata(record: CacheRecord, key: string): string | undefined;
	setMetadata(record: CacheRecord, key: string, value: string | undefined): void;
	setIndex(record: CacheRecord, index: string): void;
}

/** One counted handle. `end` takes it back without releasing the record, for a change of state. */
class Handle {
	readonly owner: RefOwner;
	readonly id: RefId;
	#record: CacheRecord | undefined;

	constructor(owner: RefOwner, record: CacheRecord) {
		this.owner = owner;
		this.id = record.id;
		this.#record = record;
	}

	get record(): CacheRecord {
		if (this.#record === undefined) {
			throw new SlipwayError("failed-precondition", `cache ref ${this.id} was released`);
		}
		return this.#record;
	}

	end(): CacheRecord {
		const { record } = this;
		this.#record = undefined;
		return record;
	}

	async release(): Promise<void> {
		if (this.#record !== undefined) {
			await this.owner.release(this.end());
		}
	}
}

const handleOf = new WeakMap<ImmutableRef, Handle>();

/** The record behind a ref that this room gave out. */
export function recordOf(ref: ImmutableRef): CacheRecord {
	const handle = handleOf.get(ref);
	if (handle === undefined) {
		throw new SlipwayError("invalid-argument", `cache ref ${ref.id} is not of this cache`);
	}
	return handle.record;
}

/** The caller has counted the handle. */
export function createImmutableRef(owner: RefOwner, record: CacheRecord): ImmutableRef {
	const handle = new Handle(owner, record);
	const release = (): Promise<void> => handle.release();
	const ref: ImmutableRef = {
		kind: "immutable",
		id: record.id,
		createdAt: record.createdAt,
		description: record.description,
		clone: () => owner.hold(handle.record),
		async layers({ signal }): Promise<readonly LayerRef[]> {
			signal.throwIfAborted();
			return layersOf(handle.record).map((layer) => ({ id: layer.id, snapshot: layer.snapshot }));
		},
		mounts: async (options) => owner.mounts(handle.record, options),
		isReal: () => owner.isReal(handle.record),
		shareFiles: () => owner.shareFiles(handle.record),
		blobs: async (options) => owner.blobs(handle.record, options),
		knownBlobs: async (options) => owner.knownBlobs(handle.record, options),
		get digests(): ContentDigests {
			return owner.digests(handle.record);
		},
		getMetadata: (key) => owner.getMetadata(handle.record, key),
		setMetadata: (key, value) => owner.setMetadata(handle.record, key, value),
		setIndex: (index) => owner.setIndex(handle.record, index),
		release,
		[Symbol.asyncDispose]: release,
	};
	handleOf.set(ref, handle);
	return ref;
}

/** The caller has counted the handle. */
export function createMutableRef(owner: RefOwner, record: CacheRecord): MutableRef {
	const handle = new Handle(owner, record);
	const release = (): Promise<void> => handle.release();
	return {
		kind: "mutable",
		id: record.id,
		mounts: () => owner.mutableMounts(handle.record),
		directory: () => owner.directory(handle.record),
		commit: async () => owner.commit(handle.end()),
		freeze: async () => owner.freeze(handle.end()),
		discard: async () => owner.discard(handle.end()),
		get digests(): MutableDigests {
			return owner.digests(handle.record);
		},
		getMetadata: (key) => owner.getMetadata(handle.record, key),
		setMetadata: (key, value) => owner.setMetadata(handle.record, key, value),
		setIndex: (index) => owner.setIndex(handle.record, index),
		release,
		[Symbol.asyncDispose]: release,
	};
}

/** The snapshots that a record alone owns; one that it shares with its twin is the mutable one's. */
export function ownSnapshots(record: CacheRecord): readonly SnapshotId[] {
	const own: SnapshotId[] = [];
	if (record.snapshot !== undefined && (record.mutable || record.twin === undefined)) {
		own.push(record.snapshot);
	}
	if (record.portable !== undefined && record.portable !== record.snapshot) {
		own.push(record.portable);
	}
	return own;
}
