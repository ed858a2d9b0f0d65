import { closeSync, openSync, readSync, statSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { blobNotFound, checkAborted, rangeOf } from "./bytes.ts";
import type { BlobInfo, ReadOptions } from "./content.ts";

const chunkBytes = 256 << 10;
/** Buffers that take turns where chunks may be used again: a writer to a socket still holds the last one or two. */
const ringSize = 4;

/** Size of the file of a blob; undefined if there is none. */
export function fileInfo(file: string, digest: Digest): BlobInfo | undefined {
	const stat = statSync(file, { throwIfNoEntry: false });
	return stat === undefined || !stat.isFile() ? undefined : { digest, size: stat.size };
}

/** Reads the file of a blob as `ContentReader.read` does. */
export async function* readFileChunks(
	path: string,
	digest: Digest,
	options: ReadOptions,
): AsyncGenerator<Uint8Array, void> {
	checkAborted(options.signal);
	const size = fileInfo(path, digest)?.size;
	if (size === undefined) {
		throw blobNotFound(digest);
	}
	const { start, end } = rangeOf(digest, size, options);
	const file = open(path, digest);
	const ring: Buffer[] = [];
	try {
		for (let at = start, turn = 0; at < end; turn++) {
			checkAborted(options.signal);
			const bytes = Math.min(chunkBytes, end - at);
			const used = options.reuse === true ? ring[turn % ringSize] : undefined;
			const chunk = used?.subarray(0, bytes) ?? Buffer.allocUnsafeSlow(bytes);
			if (options.reuse === true && used === undefined) {
				ring.push(chunk);
			}
			const count = readSync(file, chunk, 0, chunk.length, at);
			if (count === 0) {
				throw new SlipwayError("data-loss", `blob ${digest} ended after ${at} of ${size} bytes`);
			}
			at += count;
			yield chunk.subarray(0, count);
			// A reader that never waits itself must not keep everybody else waiting.
			if (at < end) {
				await nextTurn();
			}
		}
	} catch (thrown) {
		throw toError(thrown);
	} finally {
		closeSync(file);
	}
}

/** The blob may have been removed since it was looked at. */
function open(path: string, digest: Digest): number {
	try {
		return openSync(path, "r");
	} catch (thrown) {
		throw (thrown as NodeJS.ErrnoException).code === "ENOENT" ? blobNotFound(digest) : toError(thrown);
	}
}
