import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readSync } from "node:fs";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { FrontendEntry } from "../frontend/frontend.ts";
import { resolveInRoot } from "../sys/root-path.ts";

/** As much as one message of BuildKit's API holds. */
const maxFileBytes = 16 * 1024 * 1024;

/** Reads files of a mounted tree for a frontend; no path leads out of it. Errors name the path as the tree has it. */
export function readTreeFile(root: string, path: string, maxBytes?: number): Uint8Array {
	return at(path, () => {
		const fd = openSync(
			resolveInRoot(root, path),
			constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW,
		);
		try {
			const stat = fstatSync(fd);
			if (!stat.isFile()) {
				throw new SlipwayError("invalid-argument", `${path} is not a regular file`);
			}
			const size = Math.min(stat.size, maxBytes ?? stat.size);
			if (size > maxFileBytes) {
				throw new SlipwayError("resource-exhausted", `${path} has ${size} bytes, more than ${maxFileBytes}`);
			}
			const data = new Uint8Array(size);
			const length = readSync(fd, data, 0, size, 0);
			return data.subarray(0, length);
		} finally {
			closeSync(fd);
		}
	});
}

export function readTreeDirectory(root: string, path: string): readonly FrontendEntry[] {
	return at(path, () => {
		const directory = resolveInRoot(root, path);
		return readdirSync(directory)
			.sort()
			.map((name) => entryOf(`${directory}/${name}`, name));
	});
}

export function statTree(root: string, path: string): FrontendEntry {
	return at(path, () => entryOf(resolveInRoot(root, path), path.slice(path.lastIndexOf("/") + 1)));
}

function entryOf(path: string, name: string): FrontendEntry {
	const stat = lstatSync(path);
	const kind = stat.isFile()
		? "file"
		: stat.isDirectory()
			? "directory"
			: stat.isSymbolicLink()
				? "symlink"
				: "other";
	return { name, kind, size: stat.size, modifiedMs: stat.mtimeMs };
}

function at<T>(path: string, work: () => T): T {
	try {
		return work();
	} catch (thrown) {
		const error = toError(thrown);
		const text = error.code === "not-found" ? `open ${path}: no such file or directory` : error.message;
		throw new SlipwayError(error.code, text, { cause: thrown, details: error.details });
	}
}
