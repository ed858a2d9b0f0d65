import { writeSync } from "node:fs";
import type { TarPart } from "../archive/archive.ts";
import { BlockPool, pack } from "../archive/pack.ts";
import { tarItems } from "../archive/tar-tree.ts";
import type { JobContext } from "../async/job.ts";
import { type BlobFile, readBlobFile } from "./blob-file.ts";
import type { Damage } from "./layer-files.ts";
import { type Stoppable, stopCheck } from "./run-to-end.ts";

export type FilePart =
	| { readonly kind: "bytes"; readonly bytes: Uint8Array }
	/** `verify`: hash the bytes as they pass. */
	| ({ readonly kind: "blob"; readonly verify: boolean } & BlobFile);

export interface WriteOutputInput {
	/** A regular file, written from its present offset on. */
	readonly fd: number;
	readonly content:
		| { readonly kind: "parts"; readonly parts: readonly FilePart[] }
		| { readonly kind: "trees"; readonly parts: readonly TarPart[] };
}

/** Writes an archive straight to its file. The answer is the first blob that is not what its name says, as far as that is looked at. */
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
		const damage = readBlobFile(part, {
			check,
			verify: part.verify,
			onChunk: (chunk) => writeAll(fd, chunk),
		});
		if (damage !== undefined) {
			return damage;
		}
	}
	return undefined;
}

function writeAll(fd: number, bytes: Uint8Array): void {
	for (let at = 0; at < bytes.length; ) {
		at += writeSync(fd, bytes, at);
	}
}
