import { rmSync } from "node:fs";
import type { Archiver, FetchLayerRequest, LayerBlob as WrittenBlob } from "../archive/archive.ts";
import { adoptOrphans } from "../archive/extract-tree.ts";
import { createSingleFlight, type SingleFlight } from "../async/single-flight.ts";
import type { ContentProvider, ContentStore, LocalContent } from "../content/content.ts";
import { hasCode, type SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { SnapshotId, Snapshotter } from "../snapshot/snapshot.ts";
import type { MountSpec } from "../sys/sys.ts";
import { expectedOf } from "./blob-descriptors.ts";
import type { BlobOptions, LayerBlob, RefWorkOptions } from "./cache.ts";
import type { LayerBlobs } from "./layer-blobs.ts";
import { countChunks, reportSpan } from "./layer-progress.ts";
import { LayerWriter } from "./layer-writer.ts";
import {
	type CacheRecord,
	layersBetween,
	layersOf,
	newSnapshotId,
	sizeHolder,
	snapshotOf,
} from "./record.ts";
import type { RecordTable } from "./record-table.ts";
import type { TemporaryMounts } from "./temporary-mounts.ts";

export interface LayerFilesOptions {
	readonly table: RecordTable;
	readonly content: ContentStore & Partial<LocalContent>;
	readonly snapshotter: Snapshotter;
	readonly archiver: Archiver;
	readonly blobs: LayerBlobs;
	readonly mounts: TemporaryMounts;
	/** For blobs, if the content store keeps no files. */
	readonly temporaryPath: () => string;
	readonly changed: () => void;
	readonly warn: (message: string) => void;
}

/**
 * Makes the files of records real: each piece of work once, however many ask for it at the same time. Layers of one image are
 * downloaded in parallel (`LayerBlobs`); with overlayfs they are unpacked in parallel too, as each has a directory of its own. Blobs of
 * what has none are made by `LayerWriter`.
 */
export class LayerFiles {
	readonly #options: LayerFilesOptions;
	readonly #flights: SingleFlight<string, void> = createSingleFlight();
	readonly #blobs: LayerBlobs;

	readonly #writer: LayerWriter;

	constructor(options: LayerFilesOptions) {
		this.#options = options;
		this.#blobs = options.blobs;
		this.#writer = new LayerWriter(options, this);
	}

	/** True if `stack` can be called. */
	isReal(record: CacheRecord): boolean {
		if (this.#ownsFiles(record)) {
			const below = record.kind === "layer" ? record.parents[0] : undefined;
			return record.snapshot !== undefined && (below === undefined || this.isReal(below));
		}
		const layers = layersOf(record);
		return layers.every(
			(layer, index) =>
				this.isReal(layer) && (layer.portable !== undefined || standsOn(layer, layers.slice(0, index))),
		);
	}

	/** The snapshots that together are the record's tree, lowest first. The record is real. */
	stack(record: CacheRecord | undefined): readonly SnapshotId[] {
		if (record === undefined) {
			return [];
		}
		if (this.#options.snapshotter.stacking === undefined) {
			return [snapshotOf(record)];
		}
		if (record.kind === "layer") {
			return [...this.stack(record.parents[0]), snapshotOf(record)];
		}
		if (this.#ownsFiles(record)) {
			return [snapshotOf(record)];
		}
		const layers = layersOf(record);
		return layers.map((layer, index) =>
			standsOn(layer, layers.slice(0, index)) ? snapshotOf(layer) : (layer.portable ?? snapshotOf(layer)),
		);
	}

	view(record: CacheRecord | undefined): readonly MountSpec[] {
		return this.#options.snapshotter.view(this.stack(record));
	}

	/** Fetches and unpacks whatever is missing of the record's tree. */
	async makeReal(record: CacheRecord | undefined, options: RefWorkOptions): Promise<void> {
		if (record === undefined || this.isReal(record)) {
			return;
		}
		const work = (signal: AbortSignal): Promise<void> => {
			const inner = { ...options, signal };
			if (record.kind === "layer") {
				return this.#unpack(record, inner);
			}
			if (this.#options.snapshotter.stacking === undefined) {
				return this.#buildTree(record, inner);
			}
			return this.#ownsFiles(record) ? this.#buildDiff(record, inner) : this.#prepareStack(record, inner);
		};
		await this.#flights.run(`real ${record.id}`, work, options);
	}

	/** The blobs of the record's layers, lowest first. */
	async blobs(record: CacheRecord, options: BlobOptions): Promise<readonly LayerBlob[]> {
		return Promise.all(layersOf(record).map((layer) => this.#writer.blob(layer, options)));
	}

	/** The same blobs if all of them are there. */
	async knownBlobs(record: CacheRecord, options: BlobOptions): Promise<readonly LayerBlob[] | undefined> {
		const found = await Promise.all(layersOf(record).map((layer) => this.#blobs.knownBlob(layer, options)));
		return found.every((blob) => blob !== undefined) ? found : undefined;
	}

	#ownsFiles(record: CacheRecord): boolean {
		if (record.kind === "layer" || this.#options.snapshotter.stacking === undefined) {
			return true;
		}
		return record.kind === "diff" && layersBetween(record.parents[0], record.parents[1]) === undefined;
	}

	/** A layer of an image: its blob, and then its files on top of those of its parents. */
	async #unpack(layer: CacheRecord, options: RefWorkOptions): Promise<void> {
		const [parent] = layer.parents;
		if (layer.snapshot !== undefined) {
			// Only something below was lost.
			await this.makeReal(parent, options);
			return;
		}
		if (this.#options.snapshotter.stacking !== undefined) {
			await this.#unpackBeside(layer, parent, options);
			return;
		}
		const [descriptor] = await Promise.all([
			this.#blobs.fetch(layer, options),
			this.makeReal(parent, options),
		]);
		await this.#unpackOnto(layer, descriptor, options);
	}

	async #unpackOnto(layer: CacheRecord, descriptor: Descriptor, options: RefWorkOptions): Promise<void> {
		const parents = this.stack(layer.parents[0]);
		await reportSpan(layer, options, `extracting ${descriptor.digest}`, "extracting", () =>
			this.#extract(layer, { blobs: [{ layer, descriptor }], parents, detached: false }, options),
		);
	}

	/** While the layers below are still being unpacked: an overlay directory needs little of them, and only in the end. */
	async #unpackBeside(
		layer: CacheRecord,
		parent: CacheRecord | undefined,
		options: RefWorkOptions,
	): Promise<void> {
		const { snapshotter } = this.#options;
		const below = this.makeReal(parent, options);
		below.catch(() => {});
		const { id, descriptor, unpacked, failure } = await this.#unpackSomewhere(layer, options);
		if (unpacked === undefined) {
			await snapshotter.remove(id);
			if (hasCode(failure, "not-found") && parent !== undefined) {
				// A hard link to a file of a layer below, perhaps.
				await below;
				await this.#unpackOnto(layer, descriptor, options);
				return;
			}
			await this.#distrust(failure, [descriptor]);
			throw wrap(failure, `failed to extract layer ${descriptor.digest}`);
		}
		try {
			await below;
			const dirs = this.stack(parent).map((each) => snapshotter.layer(each, []).dir);
			adoptOrphans(snapshotter.layer(id, []).dir, unpacked.orphans ?? [], dirs.reverse());
		} catch (thrown) {
			await snapshotter.remove(id);
			throw toError(thrown);
		}
		this.#finish(layer, id);
	}

	/** Unpacks the layer's blob into a new snapshot, from here or while it arrives. What fails in unpacking is an answer. */
	async #unpackSomewhere(layer: CacheRecord, options: RefWorkOptions): Promise<UnpackedBlob> {
		const { content, archiver } = this.#options;
		const here = await this.#blobs.blobHere(layer);
		if (here === undefined && content.adopt !== undefined && content.temporaryPath !== undefined) {
			return this.#blobs.fromOrigins(layer, options, (descriptor, provider) =>
				this.#fetchAndUnpack(layer, descriptor, provider, options),
			);
		}
		const descriptor = here ?? (await this.#blobs.fetch(layer, options));
		const { id, request } = await this.#beginUnpacking(layer, descriptor, options);
		try {
			const unpacked = await reportSpan(layer, options, `extracting ${descriptor.digest}`, "extracting", () =>
				archiver.extractLayer(
					{ ...request, source: this.#blobs.source(layer, descriptor, options.signal) },
					options,
				),
			);
			return { id, descriptor, unpacked, failure: undefined };
		} catch (thrown) {
			return { id, descriptor, unpacked: undefined, failure: toError(thrown) };
		}
	}

	async #fetchAndUnpack(
		layer: CacheRecord,
		descriptor: Descriptor,
		provider: ContentProvider,
		options: RefWorkOptions,
	): Promise<UnpackedBlob> {
		const { content, archiver, snapshotter } = this.#options;
		const keepAt = content.temporaryPath?.() ?? this.#options.temporaryPath();
		const { id, request } = await this.#beginUnpacking(layer, descriptor, options);
		const arrived = Promise.withResolvers<void>();
		const counted = countChunks(provider.read(descriptor, options), layer, options, descriptor);
		const chunks = (async function* () {
			yield* counted;
			arrived.resolve();
		})();
		try {
			const fetching = archiver.fetchLayer({ ...request, chunks, keepAt }, options);
			// Only what is left to do after the last byte is shown as unpacking.
			const shown = arrived.promise.then(() =>
				reportSpan(layer, options, `extracting ${descriptor.digest}`, "extracting", () => fetching),
			);
			shown.catch(() => {});
			const fetched = await fetching;
			await shown.catch(() => {});
			await content.adopt?.(keepAt, descriptor);
			return fetched.kind === "unpacked"
				? { id, descriptor, unpacked: fetched.layer, failure: undefined }
				: { id, descriptor, unpacked: undefined, failure: fetched.failure };
		} catch (thrown) {
			rmSync(keepAt, { force: true });
			await snapshotter.remove(id);
			throw toError(thrown);
		}
	}

	/** A snapshot for a layer's own files. Those of the lowest layer are a tree, others are changes to what is below. */
	async #beginUnpacking(
		layer: CacheRecord,
		descriptor: Descriptor,
		{ signal }: RefWorkOptions,
	): Promise<{ readonly id: SnapshotId; readonly request: Omit<FetchLayerRequest, "chunks" | "keepAt"> }> {
		const { snapshotter } = this.#options;
		const detached = layer.parents[0] !== undefined;
		const id = newSnapshotId();
		await snapshotter.create({ id, parents: [], detached, signal });
		return {
			id,
			request: {
				root: snapshotter.layer(id, []).dir,
				whiteouts: detached ? snapshotter.whiteouts : "apply",
				reportOrphans: true,
				expected: expectedOf(layer, descriptor),
			},
		};
	}

	#finish(record: CacheRecord, snapshot: SnapshotId): void {
		record.snapshot = snapshot;
		record.size = undefined;
		record.writtenAt = Date.now();
		this.#options.table.save(record);
		this.#options.changed();
		// From now on the files are enough.
		record.origins.length = 0;
	}

	/** A blob that does not hold what its name says must not be found again. */
	async #distrust(thrown: unknown, blobs: readonly Descriptor[]): Promise<void> {
		if (hasCode(thrown, "data-loss")) {
			for (const { digest } of blobs) {
				await this.#options.content.delete(digest);
			}
		}
	}

	/** The difference of two trees that have no layers in common: a layer of changes, made by comparing them. */
	async #buildDiff(record: CacheRecord, options: RefWorkOptions): Promise<void> {
		const descriptor = await this.#writer.write(record, {
			...options,
			compression: "uncompressed",
			force: false,
		});
		await this.#extract(
			record,
			{ blobs: [{ layer: record, descriptor }], parents: [], detached: true },
			options,
		);
	}

	/** Layers in a new order, each fit to stand there. */
	async #prepareStack(record: CacheRecord, options: RefWorkOptions): Promise<void> {
		const { stacking, snapshotter } = { ...this.#options, stacking: this.#options.snapshotter.stacking };
		const layers = layersOf(record);
		await Promise.all(layers.map((layer) => this.makeReal(layer, options)));
		for (const [index, layer] of layers.entries()) {
			if (stacking === undefined || layer.portable !== undefined || standsOn(layer, layers.slice(0, index))) {
				continue;
			}
			const prepare = async (signal: AbortSignal): Promise<void> => {
				const from = snapshotOf(layer);
				// Without parents and not made by comparing, overlayfs was never in between.
				const plain = layer.kind === "layer" && layer.parents[0] === undefined;
				if (plain || (await stacking.isPortable(from, { signal }))) {
					layer.portable = from;
				} else {
					const id = newSnapshotId();
					const below = layer.parents[0];
					await this.#options.mounts.use(snapshotter.view(this.stack(below)), (base) =>
						stacking.makePortable({ id, from, base, signal }),
					);
					layer.portable = id;
					sizeHolder(layer).size = undefined;
				}
				this.#options.table.save(layer);
			};
			await this.#flights.run(`portable ${layer.id}`, prepare, options);
		}
	}

	/** Where snapshots are whole trees, a merge or diff is made by applying its layers one after the other. */
	async #buildTree(record: CacheRecord, options: RefWorkOptions): Promise<void> {
		const first = record.kind === "merge" ? record.parents[0] : undefined;
		const lower = layersOf(first);
		const all = layersOf(record);
		// The first tree is a beginning only if no layer of it was taken up further above.
		const shared = lower.every((layer, index) => layer === all[index]);
		if (record.kind === "diff" && all[0] === record) {
			await this.#buildDiff(record, options);
			return;
		}
		const layers = shared ? all.slice(lower.length) : all;
		if (shared) {
			await this.makeReal(first, options);
		}
		const blobs = await Promise.all(
			layers.map(async (layer) => ({ layer, descriptor: await this.#writer.anyBlob(layer, options) })),
		);
		const parents = shared && first !== undefined ? this.stack(first) : [];
		await this.#extract(record, { blobs, parents, detached: false }, options);
	}

	async #extract(
		record: CacheRecord,
		from: {
			readonly blobs: readonly { readonly layer: CacheRecord; readonly descriptor: Descriptor }[];
			readonly parents: readonly SnapshotId[];
			readonly detached: boolean;
		},
		{ signal }: RefWorkOptions,
	): Promise<void> {
		const { snapshotter, archiver, mounts } = this.#options;
		const id = newSnapshotId();
		const { parents, detached } = from;
		await snapshotter.create({ id, parents, detached, signal });
		try {
			const { dir } = snapshotter.layer(id, parents);
			const below = [...parents].reverse().map((parent) => snapshotter.layer(parent, []).dir);
			const onChanges = snapshotter.stacking !== undefined && (parents.length > 0 || detached);
			const extractInto = async (root: string, whiteouts: Snapshotter["whiteouts"]): Promise<void> => {
				for (const { layer, descriptor } of from.blobs) {
					const source = this.#blobs.source(layer, descriptor, signal);
					const expected = expectedOf(layer, descriptor);
					const request = { source, root, whiteouts, expected };
					await archiver.extractLayer(whiteouts === "apply" ? request : { ...request, parents: below }, {
						signal,
					});
				}
			};
			try {
				await extractInto(dir, onChanges ? snapshotter.whiteouts : "apply");
			} catch (thrown) {
				if (!onChanges || parents.length === 0 || !hasCode(thrown, "not-found")) {
					throw thrown;
				}
				// A hard link to a file of a layer below: only the merged tree has its target.
				await snapshotter.remove(id);
				await snapshotter.create({ id, parents, signal });
				await mounts.use(snapshotter.mounts(id, parents), (root) => extractInto(root, "apply"));
			}
			this.#finish(record, detached ? await this.#detach(id, signal) : id);
		} catch (thrown) {
			record.snapshot = undefined;
			await snapshotter.remove(id);
			await this.#distrust(
				thrown,
				from.blobs.map(({ descriptor }) => descriptor),
			);
			const names = from.blobs.map(({ descriptor }) => descriptor.digest).join(", ");
			throw wrap(thrown, `failed to extract layer ${names}`);
		}
	}

	/** Changes without a tree of their own must say where they have whiteouts, or overlayfs would show them. */
	async #detach(id: SnapshotId, signal: AbortSignal): Promise<SnapshotId> {
		const { snapshotter } = this.#options;
		const { stacking } = snapshotter;
		if (stacking === undefined || (await stacking.isPortable(id, { signal }))) {
			return id;
		}
		const made = newSnapshotId();
		await stacking.makePortable({ id: made, from: id, base: undefined, signal });
		await snapshotter.remove(id);
		return made;
	}
}

/** A snapshot with a layer's files, or why there are none; the blob is here in both cases. */
interface UnpackedBlob {
	readonly id: SnapshotId;
	readonly descriptor: Descriptor;
	readonly unpacked: WrittenBlob | undefined;
	readonly failure: SlipwayError | undefined;
}

/** True if a layer stands on just those that it was made on. */
function standsOn(layer: CacheRecord, below: readonly CacheRecord[]): boolean {
	if (layer.kind !== "layer") {
		return below.length === 0;
	}
	const made = layersOf(layer.parents[0]);
	return made.length === below.length && made.every((each, index) => each === below[index]);
}
