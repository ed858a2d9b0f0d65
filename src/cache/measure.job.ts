import type { JobContext } from "../async/job.ts";
import { measureTrees, type TreesUsage } from "../snapshot/measure.ts";

/** Disk use of directories together. One that goes meanwhile is an error. */
export function run(directories: readonly string[], context: JobContext): TreesUsage | undefined {
	return measureTrees(directories, undefined, () => context.throwIfAborted());
}
