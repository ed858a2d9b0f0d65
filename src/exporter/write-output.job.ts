import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import type { TarPart } from "../archive/archive.ts";
import { BlockPool, pack } from "../archive/pack.ts";
import { tarItems } from "../archive/tar-tree.ts";
import type { JobContext } from "../async/job.ts";
import { toError } from "../errors/errors.ts";
import { algorithmOf, type Digest } from "../oci/digest.ts";
import type { Damage } from "./layer-files.ts";
import { type Stoppable, stopCheck } from "./run-to-end.ts";

export type FilePart =
	| { readonly kind: "bytes"; readonly bytes: Uint8Array }
	| { readonly kind: "blob"; readonly digest: Digest; readonly size: number; readonly path: string };

export interface WriteOutputInput {
	/** A regular file, written from its present offset on. */
	readonly fd: number;
	readonly content:
		| { readonly kind: "parts"; readonly parts: readonly FilePart[] }
		| { readonly kind: "trees"; readonly parts: readonly TarPart[] };
}

/** Writes an archive straight to its file. Blobs are hashed as they pass: the answer is the first that is not what its name says. */
export function run(input: WriteOutputInput & Stoppable, context: JobContext): Damage | undefined {
	const check = stopCheck(input, () => context.throwIfAborted());
	const { fd, content } = input;
	if (content.kind === "trees") {
		const blocks = new BlockPool();
		for (const block of pack(tarItems(content.parts), blocks, check)) {
			writeAll(fd, block);
			blocks.give(block);
		}
		return undefined;
	}
	for (const part of content.parts) {
		check();
		if (part.kind === "bytes") {
			writeAll(fd, part.bytes);
			continue;
		}
		const damage = copyBlob(part, fd, check);
		if (damage !== undefined) {
			return damage;
		}
	}
	return undefined;
}

/** Large enough that calls cost nothing, small enough to stay in the processor's cache between hash and write. */
const chunkBytes = 256 << 10;
let scratch: Buffer | undefined;

function copyBlob(
	{ digest, size, path }: Extract<FilePart, { kind: "blob" }>,
	to: number,
	check: () => void,
): Damage | undefined {
	scratch ??= Buffer.allocUnsafeSlow(chunkBytes);
	let from: number;
	try {
		from = openSync(path, "r");
	} catch (thrown) {
		if (toError(thrown).code === "not-found") {
			return { digest, found: "its file is gone" };
		}
		throw thrown;
	}
	try {
		const actualSize = fstatSync(from).size;
		if (actualSize !== size) {
			return { digest, found: `it has ${actualSize} of ${size} bytes` };
		}
		const hash = createHash(algorithmOf(digest));
		for (let at = 0; at < size; ) {
			check();
			const got = readSync(from, scratch, 0, scratch.length, null);
			if (got === 0) {
				return { digest, found: `it has ${at} of ${size} bytes` };
			}
			const chunk = scratch.subarray(0, got);
			hash.update(chunk);
			writeAll(to, chunk);
			at += got;
		}
		const actual = `${algorithmOf(digest)}:${hash.digest("hex")}`;
		return actual === digest ? undefined : { digest, found: `its bytes have digest ${actual}` };
	} finally {
		closeSync(from);
	}
}

function writeAll(fd: number, bytes: Uint8Array): void {
	for (let at = 0; at < bytes.length; ) {
		at += writeSync(fd, bytes, at);
	}
}
