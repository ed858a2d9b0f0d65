import { createHash } from "node:crypto";
import { closeSync, constants as fsConstants, fsyncSync, openSync, rmSync, writeSync } from "node:fs";
import { promisify } from "node:util";
import { constants, zstdCompress } from "node:zlib";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { CompressionOptions, LayerBlob, Sha256 } from "./archive.ts";
import { type EstargzTrailer, writeEstargz } from "./estargz.ts";
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
	let plain: string | undefined;
	let trailer: EstargzTrailer | undefined;
	try {
		const made = await compressors[options.compression.kind](counted(), sink, options);
		if (made !== undefined) {
			trailer = made;
			plain = inner?.copy().digest("hex");
			inner?.update(made.tar);
			uncompressedSize += made.tar.length;
		}
		fsyncSync(fd);
		closeSync(fd);
	} catch (thrown) {
		closeSync(fd);
		rmSync(dest, { force: true });
		throw options.signal.aborted ? toError(options.signal.reason) : wrap(thrown, `write ${dest}`);
	}
	const digest: Sha256 = `sha256:${outer.digest("hex")}`;
	const diffId: Sha256 = inner === undefined ? digest : `sha256:${inner.digest("hex")}`;
	const { kind } = options.compression;
	return {
		compression: kind === "estargz" ? "gzip" : kind,
		digest,
		size,
		diffId,
		uncompressedSize,
		...(trailer === undefined
			? {}
			: { toc: { digest: trailer.tocDigest, plainDiffId: `sha256:${plain ?? ""}` as const } }),
	};
}

type Compressor = (
	blocks: AsyncIterable<Uint8Array>,
	sink: Sink,
	options: BlobWriteOptions,
) => Promise<EstargzTrailer | undefined>;

const compressors: Readonly<Record<CompressionOptions["kind"], Compressor>> = {
	async uncompressed(blocks, sink, { release }) {
		for await (const block of blocks) {
			sink(block);
			release(block);
		}
		return undefined;
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
		return undefined;
	},

	estargz: (blocks, sink, { compression, release }) =>
		writeEstargz(blocks, { level: compression.level ?? 6, sink, release }),

	/** Frames of a few blocks each (RFC 8878, section 3.1: a stream is one or more), compressed at the same time. */
	async zstd(blocks, sink, { compression, release }) {
		const level = compression.level ?? 3;
		const frameBlocks = level > farSeeingLevel ? 16 : 4;
		const params = {
			[constants.ZSTD_c_compressionLevel]: level,
			[constants.ZSTD_c_checksumFlag]: 1,
		};
		const pending: Promise<Uint8Array>[] = [];
		let parts: Uint8Array[] = [];
		const finishFirst = async (): Promise<void> => sink((await pending.shift()) ?? new Uint8Array());
		const closeFrame = async (): Promise<void> => {
			const content = Buffer.concat(parts);
			for (const block of parts.splice(0)) {
				release(block);
			}
			const frame = zstdFrame(content, { params });
			frame.catch(() => {});
			pending.push(frame);
			if (pending.length >= framesInFlight) {
				await finishFirst();
			}
		};
		try {
			let isEmpty = true;
			for await (const block of blocks) {
				isEmpty = false;
				parts.push(block);
				if (parts.length === frameBlocks) {
					await closeFrame();
				}
			}
			if (parts.length > 0 || isEmpty) {
				await closeFrame();
			}
			while (pending.length > 0) {
				await finishFirst();
			}
		} finally {
			await Promise.allSettled(pending);
			parts = [];
		}
		return undefined;
	},
};

const zstdFrame = promisify<Uint8Array, import("node:zlib").ZstdOptions, Buffer>(zstdCompress);
/** Frames that are being compressed at once. */
const framesInFlight = 4;
/** Up to this level zstd looks back 2 MiB at most, so that frames of 4 MiB cost next to nothing; above, up to 8 MiB and more. */
const farSeeingLevel = 8;

const levels: Readonly<Record<CompressionOptions["kind"], readonly [least: number, most: number]>> = {
	uncompressed: [0, Number.POSITIVE_INFINITY],
	gzip: [0, 9],
	estargz: [0, 9],
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
