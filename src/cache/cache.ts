import type { ContentProvider } from "../content/content.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { Compression } from "../oci/media-types.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { SnapshotId, SnapshotUsage } from "../snapshot/snapshot.ts";
import type { MountSpec } from "../sys/sys.ts";

declare const refIdBrand: unique symbol;

/** Id of a cache record: 25 characters of base 36, as BuildKit's. */
export type RefId = string & { readonly [refIdBrand]: true };

/**
 * The cache: records of file system trees, and handles on them.
 *
 * A *record* is kept in the metadata database and says what a tree is made of. An immutable record is one of
 *
 * - a *layer*: one snapshot and/or one blob on top of an optional parent. It is lazy while its blob has not been
 *   fetched, or has not been unpacked into a snapshot; whatever needs its files makes that happen, once for all.
 * - a *merge*: the layers of several refs stacked in order. It has no files of its own.
 * - a *diff*: what `upper` has over `lower`. If lower's layers are the beginning of upper's it is simply the others.
 *
 * A *ref* is a counted handle on a record; records with a handle are in use and never collected. A mutable ref is the
 * only writer of its snapshot; `commit` ends it and gives the immutable one. Handles are released exactly once (releasing
 * again does nothing). A record without handles stays until garbage collection or `prune` takes it; a mutable record without
 * handles stays only if it was made to be kept (`retain`): cache mounts, local sources.
 *
 * On start everything on disk that no record names is swept, and a record whose files are gone is dropped.
 */
export interface CacheManager extends AsyncDisposable {
	createMutable(options: CreateMutableOptions): Promise<MutableRef>;
	/** A handle on a kept mutable record; undefined if it is gone. Throws `failed-precondition` while another handle has it. */
	getMutable(id: RefId): Promise<MutableRef | undefined>;
	/** A handle on an immutable record; undefined if there is none or its files are damaged. */
	get(id: RefId): Promise<ImmutableRef | undefined>;
	/**
	 * A ref for the layers of an image, base first, that fetches from `provider` only what is asked for.
	 * Layers that are known by chain id are shared. Undefined for no layers.
	 */
	fromLayers(layers: readonly ImageLayer[], options: FromLayersOptions): Promise<ImmutableRef | undefined>;
	merge(refs: readonly ImmutableRef[], options: DescribeOptions): Promise<ImmutableRef | undefined>;
	/** Undefined sides are the empty tree. */
	diff(
		lower: ImmutableRef | undefined,
		upper: ImmutableRef | undefined,
		options: DescribeOptions,
	): Promise<ImmutableRef | undefined>;
	/** Records that have the index value, newest first: for cache mounts, shared keys and the like. See `setIndex` of refs. */
	search(index: string): readonly RefId[];
	/** The files of a record alone, to look at without a handle: they may change and go meanwhile. */
	snapshotOf(id: RefId): SnapshotId | undefined;
	/** False when `get` is known to give nothing; without a look at the disk. */
	has(id: RefId): boolean;
	/**
	 * All that takes room in the state directory, each file once: records, and two lines of type `internal` that are no records
	 * and never pruned, `images` (blobs that named images and the history keep) and `metadata` (databases and the like).
	 */
	usage(options: { readonly signal: AbortSignal }): Promise<readonly UsageRecord[]>;
	/** Removes and tells what was removed; `bytes` of each is what the disk got back by it. */
	prune(options: PruneOptions): AsyncIterable<UsageRecord>;
}

/** What `du` calls the kind of a record. */
export type RecordType =
	| "internal"
	| "frontend"
	| "source.local"
	| "source.git.checkout"
	| "exec.cachemount"
	| "regular";

export interface DescribeOptions {
	/** Shown by `du`; the vertex's name as a rule. */
	readonly description: string;
	/** Default `regular`. */
	readonly recordType?: RecordType;
	/** Milliseconds since the epoch; default now. */
	readonly createdAt?: number;
	readonly signal: AbortSignal;
}

export interface CreateMutableOptions extends DescribeOptions {
	readonly parent?: ImmutableRef;
	/** Keep the record when its last handle is released. Default false: the files go with the handle. */
	readonly retain?: boolean;
	/** Where making a lazy parent real is reported. */
	readonly progress?: ProgressSink;
	readonly vertex?: Digest;
}

export interface ImageLayer {
	readonly descriptor: Descriptor;
	readonly diffId: Digest;
	/** From the image's history. */
	readonly createdAt?: number;
	readonly description?: string;
}

export interface FromLayersOptions extends DescribeOptions {
	readonly provider: ContentProvider;
	/** True once it is known that `provider` does not have the blob after all: then the layer is not taken for one that can be had. */
	readonly isLost?: (digest: Digest) => boolean;
	/** Reports `downloading` and `extracting` while a lazy layer is made real; who asks for files may give another. */
	readonly progress?: ProgressSink;
	readonly vertex?: Digest;
}

interface RefBase extends AsyncDisposable {
	readonly id: RefId;
	/** The same as disposing. */
	release(): Promise<void>;
	/** Small values kept with the record in the database; undefined deletes. Written at once. */
	getMetadata(key: string): string | undefined;
	setMetadata(key: string, value: string | undefined): void;
	/** Makes the record findable by `search`. */
	setIndex(index: string): void;
}

export interface MutableRef extends RefBase {
	readonly kind: "mutable";
	/** How to mount the tree for writing. The caller mounts and unmounts. */
	mounts(): readonly MountSpec[];
	/** Ends this ref; nobody writes any more. The immutable ref has the same record. */
	commit(): Promise<ImmutableRef>;
	/**
	 * Ends this ref and gives an immutable one of the present state, while the record stays writable for its next owner
	 * ("equal mutable" of BuildKit): a local source is synced into the same directory again by the next build.
	 * `getMutable` refuses while the immutable one is in use, and drops it when nobody uses it. Once something is
	 * built on the immutable one it owns the files alone, and the mutable record is gone.
	 */
	freeze(): Promise<ImmutableRef>;
	/** Releases the handle and removes the record and its files, also one that was made to be kept. */
	discard(): Promise<void>;
	/** The directory of this snapshot's own files; equals the tree when the ref has no parent. */
	directory(): string;
	/**
	 * Digests of the tree as it stands. They outlive `commit` and `freeze`, up to which the writer tells what it
	 * changes; released otherwise, all is forgotten.
	 */
	readonly digests: MutableDigests;
}

export interface ImmutableRef extends RefBase {
	readonly kind: "immutable";
	clone(): ImmutableRef;
	/** The records whose layers make up this tree, lowest first, merges and diffs resolved. */
	layers(options: { readonly signal: AbortSignal }): Promise<readonly LayerRef[]>;
	/** Makes sure that all files are there (fetch, unpack), then says how to mount them read-only. */
	mounts(options: RefWorkOptions): Promise<readonly MountSpec[]>;
	/** True if mounting needs no work. */
	isReal(): boolean;
	/** Held by whoever makes hard links to the files elsewhere: what the record takes of the disk is another afterwards. */
	shareFiles(): Disposable;
	/**
	 * The blobs of all layers, lowest first, in one compression: existing blobs are kept unless `force` is set, missing ones
	 * are made from the snapshots in worker threads and kept. Lazy blobs are not fetched; `provider` of the answer reads them.
	 */
	blobs(options: BlobOptions): Promise<readonly LayerBlob[]>;
	/** The same without making any; undefined if one is missing. */
	knownBlobs(options: BlobOptions): Promise<readonly LayerBlob[] | undefined>;
	readonly digests: ContentDigests;
	readonly createdAt: number;
	readonly description: string;
}

export interface LayerRef {
	readonly id: RefId;
	readonly snapshot: SnapshotId | undefined;
}

export interface RefWorkOptions {
	readonly signal: AbortSignal;
	readonly progress?: ProgressSink;
	/** The vertex that progress of this work is shown under. */
	readonly vertex?: Digest;
}

export interface BlobOptions extends RefWorkOptions {
	/** eStargz is gzip with a table of contents, which makes the layer's diff ID another one. */
	readonly compression: Compression | "estargz";
	/** Undefined is the format's default (gzip 6, zstd 3). */
	readonly level?: number;
	/** Make blobs of this compression also for layers that have one of another. */
	readonly force: boolean;
}

export interface LayerBlob {
	readonly descriptor: Descriptor;
	readonly diffId: Digest;
	/** The layer's diff ID in other compressions, where this blob is eStargz and has one of its own. */
	readonly plainDiffId?: Digest;
	readonly createdAt: number;
	readonly description: string;
	readonly provider: ContentProvider;
}

/**
 * Content digests of paths in a tree, as BuildKit's contenthash computes them (spec/llb.md, section 7), so that cache keys
 * travel. Known digests are kept per record; files are read in worker threads.
 */
export interface ContentDigests {
	/** The digest of what is at `path` (absolute, in the tree). Throws `not-found` naming the path. */
	digest(path: string, options: DigestOptions): Promise<Digest>;
}

/**
 * The digests of a tree that is written to. Whatever changes a file whose digest may be known says so.
 */
export interface MutableDigests extends ContentDigests {
	/** Forgets what is known about these absolute paths: made, changed or deleted. A deleted directory stands for all in it. */
	invalidate(paths: Iterable<string>): void;
	/** Notes the digest of a file, link or directory (its header) that was computed while it was written. */
	set(path: string, entry: DigestEntry): void;
	/** The tree came from a client, which sends no root directory: it digests as nothing, as in BuildKit's local sources. */
	omitRoot(): void;
}

export interface DigestEntry {
	readonly kind: "file" | "directory" | "symlink";
	/** SHA-256 of `digestHeader` (content-digest-header.ts) and a file's data. Devices that a client sent need it: on disk they count otherwise. */
	readonly digest: Digest;
	/** Of a symbolic link. */
	readonly target?: string;
}

export interface DigestOptions extends RefWorkOptions {
	/** Follow a symbolic link in the last component. */
	readonly followLinks: boolean;
	/** `path` may have `*`, `?` and `[…]`. */
	readonly wildcard: boolean;
	readonly includePatterns: readonly string[];
	readonly excludePatterns: readonly string[];
	/** With `wildcard` or patterns: paths that must begin one of what is included; `not-found` otherwise. */
	readonly requiredPaths?: readonly string[];
}

export interface UsageRecord extends SnapshotUsage {
	readonly id: RefId;
	readonly mutable: boolean;
	readonly inUse: boolean;
	readonly shared: boolean;
	readonly parents: readonly RefId[];
	/** Milliseconds since the epoch. */
	readonly createdAt: number;
	readonly lastUsedAt: number | undefined;
	readonly usageCount: number;
	readonly description: string;
	readonly recordType: RecordType;
}

export interface PruneOptions {
	/** Also internal and frontend records and those that share layers with an image. */
	readonly all: boolean;
	/** Only records not used for this long. */
	readonly keepDurationMs?: number;
	/** Stop when records use no more than this. */
	readonly keepBytes?: number;
	/** What is known of the records without a look at them, from the use of the whole disk: if that is within `keepBytes` none is measured. */
	readonly usedAtMostBytes?: number;
	/** Sizes are not known yet. */
	readonly matches?: (record: UsageRecord) => boolean;
	readonly signal: AbortSignal;
}
