import { threadId } from "node:worker_threads";
import { SlipwayError } from "../errors/errors.ts";
import { receiveBytes, sendBytes } from "./byte-channel.ts";
import type { JobContext } from "./job.ts";

/** What the pool's tests ask a thread to do. */
export type Probe =
	| { readonly kind: "echo"; readonly value: unknown }
	| { readonly kind: "thread" }
	| { readonly kind: "fail" }
	| { readonly kind: "exit" }
	/** Never waits: only the shared flag can end it. `progress[0]` becomes 1 when it runs and 2 when it ended. */
	| { readonly kind: "spin"; readonly progress: SharedArrayBuffer }
	/** Waits for the abort signal. */
	| { readonly kind: "wait" }
	| {
			readonly kind: "count";
			readonly port: import("node:worker_threads").MessagePort;
			readonly stopAfter?: number;
	  }
	| {
			readonly kind: "produce";
			readonly port: import("node:worker_threads").MessagePort;
			readonly bytes: number;
	  };

export async function run(probe: Probe, context: JobContext): Promise<unknown> {
	switch (probe.kind) {
		case "echo":
			context.post("one");
			context.post("two");
			return probe.value;
		case "thread":
			return threadId;
		case "fail":
			throw new SlipwayError("resource-exhausted", "disk is full", {
				details: [{ kind: "errno", errno: "ENOSPC" }],
				cause: new Error("below"),
			});
		case "exit":
			return process.exit(7);
		case "spin": {
			const progress = new Int32Array(probe.progress);
			Atomics.store(progress, 0, 1);
			try {
				for (;;) {
					context.throwIfAborted();
				}
			} finally {
				Atomics.store(progress, 0, 2);
				Atomics.notify(progress, 0);
			}
		}
		case "wait":
			return new Promise((_, reject) => {
				context.post("waiting");
				context.signal.addEventListener("abort", () => reject(context.signal.reason as Error));
			});
		case "count": {
			let total = 0;
			for await (const chunk of receiveBytes(probe.port, { signal: context.signal })) {
				total += chunk.length;
				if (probe.stopAfter !== undefined && total >= probe.stopAfter) {
					break;
				}
			}
			return total;
		}
		case "produce":
			await sendBytes(probe.port, chunksOf(probe.bytes), { signal: context.signal });
			return undefined;
	}
}

function* chunksOf(bytes: number): Generator<Uint8Array> {
	for (let left = bytes; left > 0; left -= 100_000) {
		yield new Uint8Array(Math.min(left, 100_000)).fill(7);
	}
}
