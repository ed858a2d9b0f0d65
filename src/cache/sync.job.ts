import { closeSync, openSync } from "node:fs";
import { syncFileSystem } from "../sys/node.ts";

/** Waits until the file system of a directory has written out everything. */
export function run(dir: string): void {
	const fd = openSync(dir, "r");
	try {
		syncFileSystem(fd);
	} finally {
		closeSync(fd);
	}
}
