import { createReadStream, rmSync } from "node:fs";
import type { LayerBlob as WrittenBlob } from "../archive/archive.ts";
import { createSingleFlight, type SingleFlight } from "../async/single-flight.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { describeWritten } from "./blob-descriptors.ts";
import type { BlobOptions, LayerBlob, RefWorkOptions } from "./cache.ts";
import type { LayerFiles, LayerFilesOptions } from "./layer-files.ts";
import { type CacheRecord, snapshotOf } from "./record.ts";

/** Makes blobs of layers, from their files or from a blob of another compression: each once, however many ask at the same time. */
export class LayerWriter {
	readonly #options: LayerFilesOptions;
	readonly #trees: Pick<LayerFiles, "makeReal" | "view" | "stack">;
	readonly #flights: SingleFlight<string, Descriptor> = createSingleFlight();

	constructor(options: LayerFilesOptions, trees: Pick<LayerFiles, "makeReal" | "view" | "stack">) {
		this.#options = options;
		this.#trees = trees;
	}

	async blob(layer: CacheRecord, options: BlobOptions): Promise<LayerBlob> {
		const known = await this.#options.blobs.knownBlob(layer, options);
		if (known !== undefined) {
			return known;
		}
		const descriptor = await this.#flights.run(
			`blob ${layer.id} ${options.compression} ${options.level ?? ""}`,
			(signal) => this.write(layer, { ...options, signal }),
			options,
		);
		return this.#options.blobs.describeBlob(layer, descriptor);
	}

	/** A blob whose bytes are here, in whatever compression. */
	async anyBlob(layer: CacheRecord, options: RefWorkOptions): Promise<Descriptor> {
		const [known] = await this.#options.blobs.reachableBlobs(layer);
		return known === undefined
			? (await this.blob(layer, { ...options, compression: "uncompressed", force: false })).descriptor
			: this.#options.blobs.fetch(layer, options);
	}

	/** From a blob of another compression, or from files. */
	async write(layer: CacheRecord, options: BlobOptions): Promise<Descriptor> {
		const { archiver, content, table } = this.#options;
		const { signal, level } = options;
		const compression = { kind: options.compression, ...(level === undefined ? {} : { level }) };
		const dest = content.temporaryPath?.() ?? this.#options.temporaryPath();
		let written: WrittenBlob;
		const [other] = await this.#options.blobs.reachableBlobs(layer);
		if (other !== undefined) {
			const descriptor = await this.#options.blobs.fetch(layer, options);
			written = await archiver.convertLayer(
				{
					source: this.#options.blobs.source(layer, descriptor, signal),
					dest,
					compression,
					expected: { digest: descriptor.digest, size: descriptor.size },
				},
				{ signal },
			);
		} else {
			written = await this.#writeFiles(layer, dest, compression, options);
		}
		if (!isDigest(written.digest) || !isDigest(written.diffId)) {
			throw new SlipwayError("internal", `layer writer gave an invalid digest for layer ${layer.id}`);
		}
		const descriptor = describeWritten(layer, written);
		await this.#adopt(dest, descriptor, signal);
		table.transaction(() => {
			table.addBlob(layer, descriptor);
			if (layer.diffId === undefined) {
				table.setDiffId(layer, (written.toc?.plainDiffId ?? written.diffId) as Digest);
			} else {
				table.save(layer);
			}
		});
		return descriptor;
	}

	async #writeFiles(
		layer: CacheRecord,
		dest: string,
		compression: { readonly kind: BlobOptions["compression"]; readonly level?: number },
		options: RefWorkOptions,
	): Promise<WrittenBlob> {
		const { archiver, mounts, snapshotter } = this.#options;
		const { signal } = options;
		if (layer.kind === "diff") {
			const [lower, upper] = layer.parents;
			await Promise.all([this.#trees.makeReal(lower, options), this.#trees.makeReal(upper, options)]);
			return mounts.use(this.#trees.view(lower), (base) =>
				mounts.use(this.#trees.view(upper), (target) =>
					archiver.writeLayer({ source: { kind: "diff", target, base }, dest, compression }, { signal }),
				),
			);
		}
		await this.#trees.makeReal(layer, options);
		const [parent] = layer.parents;
		const files = snapshotter.layer(snapshotOf(layer), this.#trees.stack(parent));
		if (files.kind === "tree") {
			const { dir: target, base } = files;
			const source = { kind: "diff", target, ...(base === undefined ? {} : { base }) } as const;
			return archiver.writeLayer({ source, dest, compression }, { signal });
		}
		const upper = files.dir;
		if (parent === undefined) {
			return archiver.writeLayer({ source: { kind: "overlay", upper }, dest, compression }, { signal });
		}
		return mounts.use(this.#trees.view(parent), (base) =>
			archiver.writeLayer({ source: { kind: "overlay", upper, base }, dest, compression }, { signal }),
		);
	}

	async #adopt(file: string, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
		const { content } = this.#options;
		if (content.adopt !== undefined) {
			await content.adopt(file, descriptor);
			return;
		}
		try {
			await content.write(createReadStream(file), { expected: descriptor, signal });
		} finally {
			rmSync(file, { force: true });
		}
	}
}
