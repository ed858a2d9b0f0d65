import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import type { Archiver } from "../archive/archive.ts";
import { createArchiver } from "../archive/archiver.ts";
import type { ThreadPool } from "../async/pool.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import type { Database } from "../database/database.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { SnapshotId, Snapshotter, SnapshotUsage } from "../snapshot/snapshot.ts";
import type { MountSpec } from "../sys/sys.ts";
import { diffIdKey } from "./blob-descriptors.ts";
import type {
	BlobOptions,
	CacheManager,
	CreateMutableOptions,
	DescribeOptions,
	FromLayersOptions,
	ImageLayer,
	ImmutableRef,
	LayerBlob,
	MutableDigests,
	MutableRef,
	PruneOptions,
	RefId,
	RefWorkOptions,
	UsageRecord,
} from "./cache.ts";
import { DigestCache } from "./content-digests.ts";
import { DiskUse } from "./disk-use.ts";
import { LayerBlobs } from "./layer-blobs.ts";
import { LayerFiles } from "./layer-files.ts";
import {
	type CacheRecord,
	createRecord,
	layersBetween,
	layersOf,
	type NewRecord,
	newSnapshotId,
} from "./record.ts";
import { nextChainId, RecordTable } from "./record-table.ts";
import { createImmutableRef, createMutableRef, ownSnapshots, type RefOwner, recordOf } from "./refs.ts";
import { sweep, withDescendants } from "./sweep.ts";
import { TemporaryMounts } from "./temporary-mounts.ts";
import { isInUse, shareFiles } from "./usage.ts";

export interface OpenCacheOptions {
	/** For what is under way: mount points and half-made blobs. Empty between runs. */
	readonly root: string;
	readonly database: Database;
	readonly content: ContentStore & Partial<LocalContent>;
	readonly snapshotter: Snapshotter;
	/** Default: one whose work is done by `pool`. */
	readonly archiver?: Archiver;
	readonly pool: ThreadPool;
	/** Damage that was found and became a miss. */
	readonly warn: (message: string) => void;
	/**
	 * Blobs that others than the cache need: closures of kept images, build history. Asked when blobs are about to be
	 * removed. Without it blobs that no record names are left alone.
	 */
	readonly keptBlobs?: () => Promise<ReadonlySet<Digest>>;
	/** Whether the layers with these diff ids belong to a kept image, for `shared` in `du`. Default: none. */
	readonly isShared?: (diffIds: readonly Digest[]) => boolean;
	/** Disk use of what else is in the state directory, for `du`. */
	readonly otherFiles?: () => SnapshotUsage;
	/** Called after a blob's bytes were removed. */
	readonly blobRemoved?: (digest: Digest) => void;
	/** Called after records were pruned: others may know of results that are gone. */
	readonly afterPrune?: () => void;
	/** Identifies this run of the machine; default: the kernel's boot id. */
	readonly bootId?: string;
}

/** Opens the cache, after bringing records and files together. */
export async function openCache(options: OpenCacheOptions): Promise<CacheManager> {
	mkdirSync(options.root, { recursive: true, mode: 0o700 });
	rmSync(`${options.root}/blobs`, { recursive: true, force: true });
	const mounts = new TemporaryMounts(`${options.root}/mounts`);
	const table = new RecordTable(options.database);
	const bootId = options.bootId ?? readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
	const sameBoot = table.getState("boot") === bootId;
	const unnamed = await sweep({
		table,
		content: options.content,
		snapshotter: options.snapshotter,
		keptBlobs: options.keptBlobs,
		lostSince: sameBoot ? undefined : Number(table.getState("synced") ?? 0),
		warn: options.warn,
	});
	if (!sameBoot) {
		table.setState("boot", bootId);
	}
	return new Manager(options, table, mounts, unnamed);
}

/**
 * The disk is told to take what was written this long after the first write: often enough, and seldom beside a build step, which it
 * slows (a COPY of 50,000 files takes three times as long beside it).
 */
const syncDelayMs = 10_000;
/** What a killed process loses of the order in which records are collected. */
const usesDelayMs = 1000;

class Manager implements CacheManager, RefOwner {
	readonly #options: OpenCacheOptions;
	readonly #table: RecordTable;
	readonly #files: LayerFiles;
	readonly #blobs: LayerBlobs;
	readonly #digests: DigestCache;
	readonly #disk: DiskUse;
	readonly #closing = new AbortController();
	/** Removals that nobody waits for. */
	readonly #background = new Set<Promise<void>>();
	#syncTimer: NodeJS.Timeout | undefined;
	/** Whose last use is to be written: a build ends with one of each of its refs. */
	readonly #used = new Set<CacheRecord>();
	#usedTimer: NodeJS.Timeout | undefined;

	constructor(
		options: OpenCacheOptions,
		table: RecordTable,
		mounts: TemporaryMounts,
		unnamed: readonly SnapshotId[],
	) {
		this.#options = options;
		this.#table = table;
		const { content, snapshotter, pool, database, warn } = options;
		this.#blobs = new LayerBlobs(content);
		this.#files = new LayerFiles({
			table,
			content,
			blobs: this.#blobs,
			snapshotter,
			archiver: options.archiver ?? createArchiver(pool),
			mounts,
			temporaryPath: () => {
				mkdirSync(`${options.root}/blobs`, { recursive: true });
				return `${options.root}/blobs/${randomBytes(8).toString("hex")}`;
			},
			changed: () => this.#scheduleSync(),
			warn,
		});
		this.#digests = new DigestCache({ database, pool, mounts, warn });
		this.#disk = new DiskUse({
			...options,
			table,
			removesBlobs: options.keptBlobs !== undefined,
			keptBlobs: () => this.#keptBlobs(),
			remove: (records) => this.#remove(records),
		});
		this.#removeSnapshots(unnamed);
	}

	async createMutable(options: CreateMutableOptions): Promise<MutableRef> {
		const { snapshotter } = this.#options;
		const { signal } = options;
		const parent = options.parent === undefined ? undefined : recordOf(options.parent);
		await this.#files.makeReal(parent, options);
		this.#finalize(parent);
		const snapshot = newSnapshotId();
		await snapshotter.create({ id: snapshot, parents: this.#files.stack(parent), signal });
		const record = this.#add({
			...described(options),
			kind: "layer",
			parents: parent === undefined ? [] : [parent],
			mutable: true,
			retain: options.retain ?? false,
			snapshot,
		});
		record.handles++;
		if (record.retain) {
			this.#digests.beginWriting(record.id);
		}
		return createMutableRef(this, record);
	}

	async getMutable(id: RefId): Promise<MutableRef | undefined> {
		const record = this.#table.get(id);
		if (record === undefined || !record.mutable) {
			return undefined;
		}
		const { twin } = record;
		if (record.handles > 0 || (twin !== undefined && (twin.handles > 0 || twin.children.size > 0))) {
			throw new SlipwayError("failed-precondition", `cache record ${id} is locked`);
		}
		if (record.snapshot === undefined || !this.#options.snapshotter.exists(record.snapshot)) {
			this.#options.warn(`files of cache record ${id} (${record.description}) are gone`);
			await this.#remove(withDescendants([record]));
			return undefined;
		}
		record.size = undefined;
		record.changes++;
		const left = this.#table.transaction(() => {
			const files = this.#removeRows(twin === undefined ? [] : [twin]);
			this.#table.save(record);
			this.#digests.beginWriting(record.id);
			return files;
		});
		record.handles++;
		await this.#removeFiles(left);
		return createMutableRef(this, record);
	}

	async get(id: RefId): Promise<ImmutableRef | undefined> {
		const record = this.#table.get(id);
		if (record === undefined || record.mutable || !(await this.#isWhole(record)) || record.removed) {
			return undefined;
		}
		return this.hold(record);
	}

	snapshotOf(id: RefId): SnapshotId | undefined {
		return this.#table.get(id)?.snapshot;
	}

	has(id: RefId): boolean {
		const record = this.#table.get(id);
		return record !== undefined && !record.mutable;
	}

	async fromLayers(
		layers: readonly ImageLayer[],
		options: FromLayersOptions,
	): Promise<ImmutableRef | undefined> {
		options.signal.throwIfAborted();
		const { provider, isLost, progress, vertex } = options;
		const origin = { provider, isLost, progress, vertex };
		let top: CacheRecord | undefined;
		this.#table.transaction(() => {
			let chainId: Digest | undefined;
			for (const layer of layers) {
				chainId = nextChainId(chainId, layer.diffId);
				let record = this.#table.byChain(chainId);
				if (record === undefined) {
					record = this.#add({
						...described(options),
						kind: "layer",
						parents: top === undefined ? [] : [top],
						diffId: layer.diffId,
						...(layer.createdAt === undefined ? {} : { createdAt: layer.createdAt }),
						...(layer.description === undefined ? {} : { description: layer.description }),
					});
				}
				if (!record.blobs.has(layer.descriptor.digest)) {
					this.#table.addBlob(record, withoutDiffId(layer.descriptor));
				}
				// The newest is asked first: its session is alive.
				record.origins.unshift(origin);
				record.origins.length = Math.min(record.origins.length, maxOrigins);
				top = record;
			}
		});
		return top === undefined ? undefined : this.hold(top);
	}

	async merge(refs: readonly ImmutableRef[], options: DescribeOptions): Promise<ImmutableRef | undefined> {
		options.signal.throwIfAborted();
		const parents = refs.map(recordOf);
		const [only, ...more] = parents;
		if (only === undefined || more.length === 0) {
			return only === undefined ? undefined : this.hold(only);
		}
		for (const parent of parents) {
			this.#finalize(parent);
		}
		return this.hold(this.#add({ ...described(options), kind: "merge", parents }));
	}

	async diff(
		lower: ImmutableRef | undefined,
		upper: ImmutableRef | undefined,
		options: DescribeOptions,
	): Promise<ImmutableRef | undefined> {
		options.signal.throwIfAborted();
		const parents = [lower, upper].map((ref) => (ref === undefined ? undefined : recordOf(ref)));
		const [below, above] = parents;
		if (layersOf(below).length === 0) {
			return above === undefined ? undefined : this.hold(above);
		}
		if (layersBetween(below, above)?.length === 0) {
			return undefined;
		}
		for (const parent of parents) {
			this.#finalize(parent);
		}
		return this.hold(this.#add({ ...described(options), kind: "diff", parents }));
	}

	search(index: string): readonly RefId[] {
		return this.#table.search(index);
	}

	usage(options: { readonly signal: AbortSignal }): Promise<readonly UsageRecord[]> {
		return this.#disk.usage(options);
	}

	prune(options: PruneOptions): AsyncGenerator<UsageRecord, void> {
		return this.#disk.prune(options);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#closing.abort(new SlipwayError("unavailable", "cache is closed"));
		clearTimeout(this.#syncTimer);
		this.#digests.save();
		this.#saveUses();
		await Promise.all(this.#background);
	}

	// What handles ask for.

	hold(record: CacheRecord): ImmutableRef {
		record.handles++;
		return createImmutableRef(this, record);
	}

	async release(record: CacheRecord): Promise<void> {
		record.handles--;
		if (record.handles > 0 || record.removed) {
			return;
		}
		if (record.mutable && !record.retain) {
			await this.#remove([record]);
			return;
		}
		if (record.mutable) {
			// The writer gave up: what it changed is not known.
			this.#digests.delete([record.id]);
		}
		this.#noteUse(record);
		if (record.twin !== undefined) {
			// The one that stands for both when nobody has a handle.
			this.#noteUse(record.twin);
		}
		// A provider that nobody holds any more may be a session that has ended.
		for (const layer of layersOf(record)) {
			if (layer.origins.length > 0 && !isInUse(layer)) {
				layer.origins.length = 0;
			}
		}
	}

	#noteUse(record: CacheRecord): void {
		record.usageCount++;
		record.lastUsedAt = Date.now();
		this.#used.add(record);
		this.#usedTimer ??= setTimeout(() => {
			try {
				this.#saveUses();
			} catch (thrown) {
				this.#options.warn(`the last use of cache records is not kept: ${toError(thrown).message}`);
			}
		}, usesDelayMs).unref();
	}

	#saveUses(): void {
		clearTimeout(this.#usedTimer);
		this.#usedTimer = undefined;
		const records = [...this.#used].filter((record) => !record.removed);
		this.#used.clear();
		this.#table.transaction(() => {
			for (const record of records) {
				this.#table.save(record);
			}
		});
	}

	async discard(record: CacheRecord): Promise<void> {
		record.handles--;
		await this.#remove(withDescendants([record]));
	}

	commit(record: CacheRecord): ImmutableRef {
		record.handles--;
		this.#digests.endWriting(record.id);
		record.mutable = false;
		record.retain = false;
		record.writtenAt = Date.now();
		record.size = undefined;
		this.#table.save(record);
		this.#scheduleSync();
		return this.hold(record);
	}

	freeze(record: CacheRecord): ImmutableRef {
		record.handles--;
		const { kind, parents, snapshot, description, recordType } = record;
		const writtenAt = Date.now();
		const twin = createRecord({
			kind,
			parents,
			snapshot,
			description,
			recordType,
			createdAt: writtenAt,
			writtenAt,
		});
		twin.twin = record;
		record.writtenAt = writtenAt;
		record.retain = true;
		record.size = undefined;
		this.#table.transaction(() => {
			this.#digests.endWriting(record.id);
			this.#table.add(twin);
			record.twin = twin;
			this.#table.save(record);
		});
		this.#scheduleSync();
		return this.hold(twin);
	}

	shareFiles(record: CacheRecord): Disposable {
		return shareFiles(record, { table: this.#table, snapshotter: this.#options.snapshotter });
	}

	isReal(record: CacheRecord): boolean {
		return this.#files.isReal(record);
	}

	async mounts(record: CacheRecord, options: RefWorkOptions): Promise<readonly MountSpec[]> {
		await this.#files.makeReal(record, options);
		return this.#files.view(record);
	}

	mutableMounts(record: CacheRecord): readonly MountSpec[] {
		return this.#options.snapshotter.mounts(this.#snapshotOf(record), this.#files.stack(record.parents[0]));
	}

	directory(record: CacheRecord): string {
		return this.#options.snapshotter.layer(this.#snapshotOf(record), []).dir;
	}

	blobs(record: CacheRecord, options: BlobOptions): Promise<readonly LayerBlob[]> {
		return this.#files.blobs(record, options);
	}

	knownBlobs(record: CacheRecord, options: BlobOptions): Promise<readonly LayerBlob[] | undefined> {
		return this.#files.knownBlobs(record, options);
	}

	digests(record: CacheRecord): MutableDigests {
		return this.#digests.of(digestKey(record), (options) => this.mounts(record, options));
	}

	getMetadata(record: CacheRecord, key: string): string | undefined {
		return this.#table.getMetadata(record.id, key);
	}

	setMetadata(record: CacheRecord, key: string, value: string | undefined): void {
		this.#table.setMetadata(record.id, key, value);
	}

	setIndex(record: CacheRecord, index: string): void {
		this.#table.setIndex(record.id, index);
	}

	#add(record: NewRecord): CacheRecord {
		const made = createRecord(record);
		this.#table.add(made);
		return made;
	}

	#snapshotOf(record: CacheRecord): SnapshotId {
		if (record.snapshot === undefined) {
			throw new SlipwayError("internal", `mutable cache record ${record.id} has no files`);
		}
		return record.snapshot;
	}

	/** Something is built on the record: it becomes the only owner of its files, and nobody syncs into them again. */
	#finalize(record: CacheRecord | undefined): void {
		const twin = record?.twin;
		if (record === undefined || twin === undefined) {
			return;
		}
		record.size = undefined;
		this.#digests.rename(twin.id, record.id);
		this.#table.transaction(() => {
			this.#table.remove([twin]);
			this.#table.save(record);
		});
	}

	/**
	 * False if the tree cannot be made: nobody provides its lazy layers at present, or, with a warning, files are gone that
	 * cannot be made again, which ends the record.
	 */
	async #isWhole(record: CacheRecord): Promise<boolean> {
		const { snapshotter, warn } = this.#options;
		const layers = layersOf(record);
		for (const part of new Set([...layers, record])) {
			let damaged = false;
			if (part.snapshot !== undefined && !snapshotter.exists(part.snapshot)) {
				damaged = true;
				warn(`files of cache record ${part.id} (${part.description}) are gone`);
				part.snapshot = undefined;
				part.portable = undefined;
				part.size = undefined;
				this.#table.save(part);
			}
			if (part.kind !== "layer" || (await this.#blobs.isAvailable(part))) {
				continue;
			}
			const lost = damaged ? withDescendants([part]) : [];
			if (lost.every((each) => each.handles === 0)) {
				await this.#remove(lost);
			}
			return false;
		}
		return true;
	}

	async #remove(records: readonly CacheRecord[]): Promise<void> {
		await this.#removeFiles(this.#removeRows(records));
	}

	/** What is left of them are files, which go after the rows. */
	#removeRows(records: readonly CacheRecord[]): LeftFiles {
		const snapshots = records.flatMap(ownSnapshots);
		const blobs = new Set(records.flatMap((record) => [...record.blobs.keys()]));
		const keys = records.filter((record) => record.mutable || record.twin === undefined).map(digestKey);
		this.#table.remove(records);
		this.#digests.delete(keys);
		return { snapshots, blobs };
	}

	async #removeFiles({ snapshots, blobs }: LeftFiles): Promise<void> {
		const unowned = [...blobs].filter((digest) => !this.#table.hasBlob(digest));
		const kept = unowned.length === 0 ? noBlobs : await this.#keptBlobs();
		for (const digest of unowned) {
			// An image may have come by while the kept ones were listed.
			if (!kept.has(digest) && !this.#table.hasBlob(digest)) {
				await this.#options.content.delete(digest);
				this.#options.blobRemoved?.(digest);
			}
		}
		await Promise.all(snapshots.map((id) => this.#removeSnapshot(id)));
	}

	async #keptBlobs(): Promise<ReadonlySet<Digest>> {
		return (await this.#options.keptBlobs?.()) ?? noBlobs;
	}

	#removeSnapshots(ids: readonly SnapshotId[]): void {
		for (const id of ids) {
			const removal = this.#removeSnapshot(id).finally(() => this.#background.delete(removal));
			this.#background.add(removal);
		}
	}

	/** What cannot be removed now is swept at the next start. */
	async #removeSnapshot(id: SnapshotId): Promise<void> {
		try {
			await this.#options.snapshotter.remove(id);
		} catch (thrown) {
			this.#options.warn(`files of snapshot ${id} could not be removed: ${toError(thrown).message}`);
		}
	}

	#scheduleSync(): void {
		this.#syncTimer ??= setTimeout(() => {
			this.#syncTimer = undefined;
			const removal = this.#sync().finally(() => this.#background.delete(removal));
			this.#background.add(removal);
		}, syncDelayMs).unref();
	}

	/** After this a power failure loses no file that was finished before. */
	async #sync(): Promise<void> {
		const began = Date.now();
		const dir = this.#options.snapshotter.root;
		try {
			await this.#options.pool.run("cache/sync", dir, { signal: this.#closing.signal });
			this.#table.setState("synced", String(began));
		} catch (thrown) {
			if (!this.#closing.signal.aborted) {
				this.#options.warn(`syncing ${dir} failed: ${toError(thrown).message}`);
			}
		}
	}
}

interface LeftFiles {
	readonly snapshots: readonly SnapshotId[];
	readonly blobs: ReadonlySet<Digest>;
}

const noBlobs: ReadonlySet<Digest> = new Set();

function withoutDiffId(descriptor: Descriptor): Descriptor {
	const { [diffIdKey]: _, ...annotations } = descriptor.annotations ?? {};
	return descriptor.annotations?.[diffIdKey] === undefined ? descriptor : { ...descriptor, annotations };
}

/** Providers of one layer that are remembered. */
const maxOrigins = 4;

function described({
	description,
	recordType,
	createdAt,
}: DescribeOptions): Pick<NewRecord, "description" | "recordType" | "createdAt"> {
	return { description, recordType: recordType ?? "regular", createdAt: createdAt ?? Date.now() };
}

/** Digests belong to a tree: twins have the same one, and a committed record that of its mutable time. */
function digestKey(record: CacheRecord): string {
	return record.kind === "layer" && record.twin !== undefined && !record.mutable ? record.twin.id : record.id;
}
