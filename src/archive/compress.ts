import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, constants as fsConstants, fsyncSync, openSync, rmSync, writeSync } from "node:fs";
import { constants, createZstdCompress } from "node:zlib";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { CompressionOptions, LayerBlob, Sha256 } from "./archive.ts";
import { gzipBlock, gzipHeader, gzipTrailer, updateCrc, windowBytes } from "./gzip.ts";

/** Blocks that are being deflated at once: enough to keep libuv's threads busy, few enough to stay small in memory. */
const inFlight = 8;

export interface BlobWriteOptions {
	readonly compression: CompressionOptions;
	readonly signal: AbortSignal;
	/** Called when a block's bytes are needed no more. */
	readonly release: (block: Uint8Array) => void;
}

/** Where compressed bytes go; called in order. */
type Sink = (bytes: Uint8Array) => void;

/**
 * Compresses the blocks into a new file and takes both digests on the way. All blocks but the last have the same length. The
 * file is synced; on failure it is gone.
 */
export async function writeBlob(
	blocks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
	dest: string,
	options: BlobWriteOptions,
): Promise<Omit<LayerBlob, "entries">> {
	checkLevel(options.compression);
	let fd: number;
	try {
		fd = openSync(dest, fsConstants.O_WRONLY | fsConstants.O_CREAT | fsConstants.O_EXCL, 0o644);
	} catch (thrown) {
		throw wrap(thrown, "create blob");
	}
	const outer = createHash("sha256");
	// The tar's own digest; of an uncompressed blob it is the same, and hashing is the dearest thing here.
	const inner = options.compression.kind === "uncompressed" ? undefined : createHash("sha256");
	let size = 0;
	let uncompressedSize = 0;
	const sink: Sink = (bytes) => {
		outer.update(bytes);
		size += bytes.length;
		for (let at = 0; at < bytes.length; ) {
			at += writeSync(fd, bytes, at, bytes.length - at);
		}
	};
	async function* counted(): AsyncGenerator<Uint8Array> {
		for await (const block of blocks) {
			options.signal.throwIfAborted();
			inner?.update(block);
			uncompressedSize += block.length;
			yield block;
		}
	}
	try {
		await compressors[options.compression.kind](counted(), sink, options);
		fsyncSync(fd);
		closeSync(fd);
	} catch (thrown) {
		closeSync(fd);
		rmSync(dest, { force: true });
		throw options.signal.aborted ? toError(options.signal.reason) : wrap(thrown, `write ${dest}`);
	}
	const digest: Sha256 = `sha256:${outer.digest("hex")}`;
	const diffId: Sha256 = inner === undefined ? digest : `sha256:${inner.digest("hex")}`;
	return { compression: options.compression.kind, digest, size, diffId, uncompressedSize };
}

type Compressor = (blocks: AsyncIterable<Uint8Array>, sink: Sink, options: BlobWriteOptions) => Promise<void>;

const compressors: Readonly<Record<CompressionOptions["kind"], Compressor>> = {
	async uncompressed(blocks, sink, { release }) {
		for await (const block of blocks) {
			sink(block);
			release(block);
		}
	},

	async gzip(blocks, sink, { compression, release }) {
		const level = compression.level ?? 6;
		const pending: { readonly block: Uint8Array; readonly deflated: Promise<Uint8Array> }[] = [];
		const finishFirst = async (): Promise<void> => {
			const first = pending.shift();
			if (first !== undefined) {
				sink(await first.deflated);
				release(first.block);
			}
		};
		let crc = 0;
		let size = 0;
		let before: Uint8Array | undefined;
		sink(gzipHeader);
		try {
			for await (const block of blocks) {
				crc = updateCrc(crc, block);
				size += block.length;
				const deflated = gzipBlock(block, before, level);
				deflated.catch(() => {});
				pending.push({ block, deflated });
				before = Uint8Array.prototype.slice.call(block, -windowBytes);
				if (pending.length >= inFlight) {
					await finishFirst();
				}
			}
			while (pending.length > 0) {
				await finishFirst();
			}
		} finally {
			await Promise.allSettled(pending.map(({ deflated }) => deflated));
		}
		sink(gzipTrailer(crc, size));
	},

	async zstd(blocks, sink, { compression, release }) {
		const stream = createZstdCompress({
			chunkSize: 256 << 10,
			params: {
				[constants.ZSTD_c_compressionLevel]: compression.level ?? 3,
				[constants.ZSTD_c_checksumFlag]: 1,
			},
		});
		const failed = Promise.withResolvers<never>();
		failed.promise.catch(() => {});
		stream.on("error", failed.reject);
		stream.on("data", sink);
		const ended = once(stream, "end");
		ended.catch(() => {});
		try {
			for await (const block of blocks) {
				await Promise.race([
					failed.promise,
					new Promise<void>((resolve) => stream.write(block, () => resolve())),
				]);
				release(block);
			}
			stream.end();
			await Promise.race([failed.promise, ended]);
		} finally {
			stream.destroy();
		}
	},
};

const levels: Readonly<Record<CompressionOptions["kind"], readonly [least: number, most: number]>> = {
	uncompressed: [0, Number.POSITIVE_INFINITY],
	gzip: [0, 9],
	zstd: [1, 22],
};

function checkLevel({ kind, level }: CompressionOptions): void {
	const [least, most] = levels[kind];
	if (
		level !== undefined &&
		kind !== "uncompressed" &&
		!(Number.isInteger(level) && level >= least && level <= most)
	) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid ${kind} compression level ${level}, must be ${least} to ${most}`,
		);
	}
}

/** The chunks in blocks of one length, but for the last; the same bytes give the same blocks however they arrived. */
export async function* inBlocks(
	chunks: AsyncIterable<Uint8Array>,
	take: () => Uint8Array,
): AsyncGenerator<Uint8Array> {
	let block = take();
	let filled = 0;
	for await (const chunk of chunks) {
		for (let at = 0; at < chunk.length; ) {
			const length = Math.min(chunk.length - at, block.length - filled);
			block.set(chunk.subarray(at, at + length), filled);
			at += length;
			filled += length;
			if (filled === block.length) {
				yield block;
				block = take();
				filled = 0;
			}
		}
	}
	if (filled > 0) {
		yield block.subarray(0, filled);
	}
}
