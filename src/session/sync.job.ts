import type { JobContext } from "../async/job.ts";
import { canceled } from "../errors/errors.ts";
import type { SyncRequest, SyncSummary } from "./session.ts";
import { syncTree } from "./sync-tree.ts";

export interface SyncJobInput {
	readonly source: string;
	readonly request: Omit<SyncRequest, "name">;
	/** One 32-bit word; not 0: stop. The job answers only when it no longer writes. */
	readonly stop: SharedArrayBuffer;
}

/** How often progress is sent, in milliseconds. */
const progressEveryMs = 50;

export function run(input: SyncJobInput, context: JobContext): SyncSummary {
	const stop = new Int32Array(input.stop);
	let posted = 0;
	const summary = syncTree({
		source: input.source,
		request: input.request,
		throwIfAborted() {
			context.throwIfAborted();
			if (Atomics.load(stop, 0) !== 0) {
				throw canceled();
			}
		},
		onBytes(total) {
			const now = performance.now();
			if (now - posted >= progressEveryMs) {
				posted = now;
				context.post(total);
			}
		},
		limits: {
			entries: Number.POSITIVE_INFINITY,
			steps: Number.POSITIVE_INFINITY,
			bytes: Number.POSITIVE_INFINITY,
		},
	});
	// Without limits there always is one.
	return summary as SyncSummary;
}
