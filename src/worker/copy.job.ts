import type { JobContext } from "../async/job.ts";
import { type CopyRequest, copyPath } from "./file-actions.ts";

/** Worker-thread job: copies paths one after the other. */
export function run(requests: readonly CopyRequest[], context: JobContext): void {
	for (const request of requests) {
		copyPath(request, () => context.throwIfAborted());
	}
}
