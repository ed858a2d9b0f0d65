import type { FrontendRef } from "../frontend/frontend.ts";
import { mountTree } from "./mounted-tree.ts";
import { readTreeDirectory, readTreeFile, statTree } from "./tree-reader.ts";
import type { Output, WorkerServices } from "./worker.ts";

/** Reads a result's files for a frontend; `output` is asked for when the first file is. */
export function createRefReader(
	output: (signal: AbortSignal) => Promise<Output>,
	services: Pick<WorkerServices, "mountRoot" | "beforeMounts">,
): Pick<FrontendRef, "readFile" | "readDirectory" | "stat"> {
	const inTree = async <T>(signal: AbortSignal, work: (root: string) => T | Promise<T>): Promise<T> => {
		const ref = await output(signal);
		using tree = mountTree((await ref?.mounts({ signal })) ?? emptyTree, services);
		return await work(tree.path);
	};
	return {
		readFile: (path, { signal, ...range }) => inTree(signal, (root) => readTreeFile(root, path, range)),
		readDirectory: (path, { signal, includePattern }) =>
			inTree(signal, (root) => readTreeDirectory(root, path, { includePattern, signal })),
		stat: (path, { signal }) => inTree(signal, (root) => statTree(root, path)),
	};
}

/** How to mount a result that has no files. */
export const emptyTree = [{ type: "tmpfs", source: "tmpfs", options: ["size=4096", "ro"] }] as const;
