import type { JobContext } from "../async/job.ts";
import { type BlobFile, readBlobFile } from "./blob-file.ts";
import type { Damage } from "./layer-files.ts";
import { type Stoppable, stopCheck } from "./run-to-end.ts";

export interface VerifyBlobsInput {
	readonly blobs: readonly BlobFile[];
}

/** The first blob whose bytes do not have its digest. */
export function run(input: VerifyBlobsInput & Stoppable, context: JobContext): Damage | undefined {
	const check = stopCheck(input, () => context.throwIfAborted());
	for (const blob of input.blobs) {
		const damage = readBlobFile(blob, { check, verify: true, onChunk: () => {} });
		if (damage !== undefined) {
			return damage;
		}
	}
	return undefined;
}
