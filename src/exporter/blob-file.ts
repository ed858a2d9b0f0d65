import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { toError } from "../errors/errors.ts";
import { algorithmOf, type Digest } from "../oci/digest.ts";
import type { Damage } from "./layer-files.ts";

/** A blob as worker threads see it. */
export interface BlobFile {
	readonly digest: Digest;
	readonly size: number;
	readonly path: string;
}

export interface ReadBlobOptions {
	/** Called between chunks; throws to stop. */
	readonly check: () => void;
	readonly verify: boolean;
	/** The chunk is good until the call returns. */
	readonly onChunk: (chunk: Uint8Array) => void;
}

/** Large enough that calls cost nothing, small enough to stay in the processor's cache from one use to the next. */
const chunkBytes = 256 << 10;
let scratch: Buffer | undefined;

/** Reads a whole blob on the calling thread. The answer is what is wrong with it. */
export function readBlobFile(
	{ digest, size, path }: BlobFile,
	{ check, verify, onChunk }: ReadBlobOptions,
): Damage | undefined {
	scratch ??= Buffer.allocUnsafeSlow(chunkBytes);
	let file: number;
	try {
		file = openSync(path, "r");
	} catch (thrown) {
		if (toError(thrown).code === "not-found") {
			return { digest, found: "its file is gone" };
		}
		throw thrown;
	}
	try {
		const actualSize = fstatSync(file).size;
		if (actualSize !== size) {
			return { digest, found: `it has ${actualSize} of ${size} bytes` };
		}
		const hash = verify ? createHash(algorithmOf(digest)) : undefined;
		for (let at = 0; at < size; ) {
			check();
			const got = readSync(file, scratch, 0, scratch.length, null);
			if (got === 0) {
				return { digest, found: `it has ${at} of ${size} bytes` };
			}
			const chunk = scratch.subarray(0, got);
			hash?.update(chunk);
			onChunk(chunk);
			at += got;
		}
		const actual = hash === undefined ? digest : `${algorithmOf(digest)}:${hash.digest("hex")}`;
		return actual === digest ? undefined : { digest, found: `its bytes have digest ${actual}` };
	} finally {
		closeSync(file);
	}
}
