import { closeSync, constants, lstatSync, openSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import { type ByteString, fsPath, textOf } from "../sys/byte-names.ts";

/**
 * A directory that is written to by relative paths. Every directory on the way is opened by its own name without following
 * links and stays open, and names are looked up in the open one: whatever links the tree holds, or is made to hold meanwhile,
 * nothing outside of it is reached.
 */
export interface TargetTree extends Disposable {
	/** The path of an entry for system calls, good until the next call. Throws if a part in front is no directory. */
	at(path: ByteString): string | Buffer;
	/** A descriptor of the directory, good until the next call. */
	directory(path: ByteString): number;
	/** Removes what is at the path with all below it; nothing there is no error. */
	remove(path: ByteString): void;
}

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

export function openTargetTree(root: string): TargetTree {
	const open: { readonly name: ByteString; readonly fd: number }[] = [
		{ name: "", fd: openDirectory(root, root) },
	];
	let current = "";
	const close = (keep: number): void => {
		for (const { fd } of open.splice(keep)) {
			closeSync(fd);
		}
	};
	const enter = (path: ByteString): number => {
		if (path !== current) {
			const parts = path === "" ? [] : path.split("/");
			let same = 0;
			while (same < parts.length && open[same + 1]?.name === parts[same]) {
				same += 1;
			}
			close(same + 1);
			current = parts.slice(0, same).join("/");
			for (const part of parts.slice(same)) {
				const parent = open.at(-1)?.fd ?? -1;
				open.push({ name: part, fd: openDirectory(entryPath(parent, part), textOf(path)) });
				current = current === "" ? part : `${current}/${part}`;
			}
		}
		return open.at(-1)?.fd ?? -1;
	};
	/** What is cached below a path that goes away must not be used again. */
	const forget = (path: ByteString): void => {
		if (current === path || current.startsWith(`${path}/`)) {
			const slash = path.lastIndexOf("/");
			enter(slash === -1 ? "" : path.slice(0, slash));
		}
	};
	return {
		at(path) {
			const slash = path.lastIndexOf("/");
			const fd = enter(slash === -1 ? "" : path.slice(0, slash));
			return entryPath(fd, path.slice(slash + 1));
		},
		directory: enter,
		remove(path) {
			forget(path);
			const slash = path.lastIndexOf("/");
			const fd = enter(slash === -1 ? "" : path.slice(0, slash));
			removeEntry(fd, path.slice(slash + 1), path);
		},
		[Symbol.dispose]() {
			close(0);
		},
	};
}

/** `openat` by way of procfs: Node has no such call. */
function entryPath(directory: number, name: ByteString): string | Buffer {
	if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
		throw new SlipwayError("invalid-argument", `invalid file name ${JSON.stringify(textOf(name))}`);
	}
	return fsPath(`/proc/self/fd/${directory}/${name}`);
}

function openDirectory(path: string | Buffer, shown: string): number {
	try {
		return openSync(path, directoryFlags);
	} catch (thrown) {
		throw wrap(thrown, `could not open directory ${JSON.stringify(shown)} of the copy`);
	}
}

function removeEntry(directory: number, name: ByteString, shown: ByteString): void {
	const path = entryPath(directory, name);
	try {
		const stat = lstatSync(path, { throwIfNoEntry: false });
		if (stat === undefined) {
			return;
		}
		if (!stat.isDirectory()) {
			unlinkSync(path);
			return;
		}
		const fd = openDirectory(path, textOf(shown));
		try {
			for (const child of readdirSync(`/proc/self/fd/${fd}`, "latin1")) {
				removeEntry(fd, child, `${shown}/${child}`);
			}
		} finally {
			closeSync(fd);
		}
		rmdirSync(path);
	} catch (thrown) {
		throw thrown instanceof SlipwayError
			? thrown
			: wrap(toError(thrown), `could not remove ${JSON.stringify(textOf(shown))} from the copy`);
	}
}
