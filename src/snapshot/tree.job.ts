import type { JobContext } from "../async/job.ts";
import { removeTree } from "../sys/remove.ts";
import { copyTree } from "./copy-tree.ts";
import { measureTree } from "./measure.ts";
import { type AttributePrefix, isPortable, linkTree } from "./portable.ts";

/** Work on whole trees of files, for a thread of its own. */
export type TreeTask =
	| { readonly kind: "remove"; readonly path: string }
	| { readonly kind: "measure"; readonly path: string }
	/** Fills the directory `to`, which exists, with a copy of what is in `from`. */
	| { readonly kind: "copy"; readonly from: string; readonly to: string }
	| { readonly kind: "is-portable"; readonly path: string; readonly prefix: AttributePrefix }
	| {
			readonly kind: "link";
			readonly from: string;
			readonly to: string;
			readonly base: string | undefined;
			readonly prefix: AttributePrefix;
	  };

export function run(task: TreeTask, context: JobContext): unknown {
	const check = (): void => context.throwIfAborted();
	switch (task.kind) {
		case "remove":
			removeTree(task.path);
			return undefined;
		case "measure":
			return measureTree(task.path, undefined, check);
		case "copy":
			copyTree(task.from, task.to, check);
			return undefined;
		case "is-portable":
			return isPortable(task.path, task.prefix, check);
		case "link":
			linkTree(task, check);
			return undefined;
	}
}
