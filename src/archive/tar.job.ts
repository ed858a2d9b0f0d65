import type { MessagePort } from "node:worker_threads";
import { sendBytes } from "../async/byte-channel.ts";
import type { JobContext } from "../async/job.ts";
import type { TarPart } from "./archive.ts";
import { BlockPool, pack } from "./pack.ts";
import { tarItems } from "./tar-tree.ts";

export interface Input {
	readonly parts: readonly TarPart[];
	readonly port: MessagePort;
}

export async function run({ parts, port }: Input, context: JobContext): Promise<void> {
	const pool = new BlockPool();
	function* blocks(): Generator<Uint8Array> {
		for (const block of pack(tarItems(parts), pool, () => context.throwIfAborted())) {
			yield block;
			// Sending copies the block, so it is free as soon as the next one is wanted.
			pool.give(block);
		}
	}
	await sendBytes(port, blocks(), { signal: context.signal });
}
