import type { JobContext } from "../async/job.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { digestFile } from "./content-digest-file.ts";
import { scanTree } from "./content-digest-scan.ts";

/** `root` and `path` are byte strings; a path begins with a slash. */
export type DigestTask =
	| { readonly kind: "scan"; readonly root: ByteString; readonly path: ByteString }
	/** Paths joined by NUL; the answer is their digests in hex, joined. */
	| { readonly kind: "hash"; readonly root: ByteString; readonly paths: string };

export function run(task: DigestTask, context: JobContext): string {
	switch (task.kind) {
		case "scan":
			return scanTree(task.root + task.path, undefined, () => context.throwIfAborted()) ?? "";
		case "hash":
			return task.paths
				.split("\0")
				.map((path) => {
					context.throwIfAborted();
					return digestFile(task.root + path);
				})
				.join("");
	}
}
