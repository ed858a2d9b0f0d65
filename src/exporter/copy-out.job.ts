import type { JobContext } from "../async/job.ts";
import { CopyOut } from "./copy-out.ts";
import { type Stoppable, stopCheck } from "./run-to-end.ts";

export interface CopyOutTree {
	/** For messages. */
	readonly platformId: string;
	/** Undefined is an empty tree. */
	readonly root: string | undefined;
	/** A directory in the target to put the tree into; empty is the target itself. */
	readonly prefix: string;
	/** For every file; undefined leaves each its own. */
	readonly modifiedSeconds?: number;
}

export interface CopyOutInput {
	readonly trees: readonly CopyOutTree[];
	/** Exists; resolved. */
	readonly directory: string;
	/** Remove what is in none of the trees. */
	readonly mirror: boolean;
	/** Who gets the files. */
	readonly uid: number;
	readonly gid: number;
}

const progressEveryMs = 50;

export function run(input: CopyOutInput & Stoppable, context: JobContext): void {
	let posted = 0;
	using copy = new CopyOut(input, {
		check: stopCheck(input, () => context.throwIfAborted()),
		onBytes(total) {
			const now = performance.now();
			if (now - posted >= progressEveryMs) {
				posted = now;
				context.post(total);
			}
		},
	});
	context.post(copy.run());
}
