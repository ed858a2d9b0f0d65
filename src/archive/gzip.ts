import { promisify } from "node:util";
import { constants, crc32, deflateRaw, deflateRawSync } from "node:zlib";

/**
 * gzip (RFC 1952) in parallel: each block of input is deflated on its own on libuv's threads, with the 32 KiB before it as
 * dictionary, and ends at a byte boundary. Joined they are one member, as good as a single stream makes it, and the same
 * bytes whatever the number of threads. The blocks must have the same borders every time for that.
 */

const deflateBlock = promisify<Uint8Array, import("node:zlib").ZlibOptions, Buffer>(deflateRaw);

/** How far back deflate can refer. */
export const windowBytes: number = 32 << 10;

/** No name, no time, unknown system: nothing that differs between machines. */
export const gzipHeader: Uint8Array = new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);

/** The end of the deflate stream, an empty last block, and the check words: CRC and size modulo 2^32 of the input. */
export function gzipTrailer(crc: number, size: number): Uint8Array {
	const trailer = Buffer.alloc(10);
	trailer[0] = 3;
	trailer.writeUInt32LE(crc, 2);
	trailer.writeUInt32LE(size % 2 ** 32, 6);
	return trailer;
}

export function updateCrc(crc: number, block: Uint8Array): number {
	return crc32(block, crc);
}

/** A block's part of the deflate stream. `before` is the input's last bytes before it, at most a window. */
export async function gzipBlock(
	block: Uint8Array,
	before: Uint8Array | undefined,
	level: number,
): Promise<Uint8Array> {
	if (level > 0 && seemsIncompressible(block)) {
		return storedBlock(block);
	}
	return await deflateBlock(block, {
		level,
		finishFlush: constants.Z_SYNC_FLUSH,
		// One output buffer: asked for chunk by chunk, each would be a job of its own.
		chunkSize: block.length + (block.length >> 8) + 1024,
		...(before === undefined || before.length === 0 ? {} : { dictionary: before }),
	});
}

const sampleBytes = 4096;
/** A block shorter than this is deflated without a look: there is nothing to save. */
const leastSampled = 16 * sampleBytes;

/** Three samples at the fastest level. Only data that does not shrink at all is stored: it costs most and gains nothing. */
function seemsIncompressible(block: Uint8Array): boolean {
	if (block.length < leastSampled) {
		return false;
	}
	const step = Math.floor((block.length - sampleBytes) / 3);
	return [step >> 1, step + (step >> 1), 2 * step + (step >> 1)].every(
		(at) => deflateRawSync(block.subarray(at, at + sampleBytes), { level: 1 }).length >= sampleBytes,
	);
}

/** RFC 1951 section 3.2.4: at most 65,535 bytes as they are, after their count and its complement. */
function storedBlock(block: Uint8Array): Uint8Array {
	const most = 65_535;
	const parts = Math.ceil(block.length / most);
	const out = Buffer.allocUnsafe(block.length + 5 * parts);
	let at = 0;
	for (let from = 0; from < block.length; from += most) {
		const length = Math.min(most, block.length - from);
		out[at] = 0;
		out.writeUInt16LE(length, at + 1);
		out.writeUInt16LE(length ^ 0xffff, at + 3);
		out.set(block.subarray(from, from + length), at + 5);
		at += 5 + length;
	}
	return out;
}
