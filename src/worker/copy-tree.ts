import {
	chmodSync,
	linkSync,
	lstatSync,
	mkdirSync,
	readdirSync,
	readlinkSync,
	rmSync,
	symlinkSync,
	unlinkSync,
} from "node:fs";
import { SlipwayError } from "../errors/errors.ts";
import { createPathFilter, type FilterState, type PathFilter } from "../patterns/path-filter.ts";
import { copyFile } from "../sys/copy.ts";
import { makeNode, setTimes, timestampOf } from "../sys/node.ts";
import { changeOwnOwner } from "../sys/owner.ts";
import type { SysPath, Timestamp } from "../sys/sys.ts";
import { getXattr, listXattrs, setXattr } from "../sys/xattr.ts";
import { parseSymbolicMode } from "./symbolic-mode.ts";

/**
 * Copying a file or a tree in the manner of LLB's copy action: owners, modes and times are kept or set, hard links within one
 * copy stay links, a directory that exists is merged into. Both paths are resolved already; nothing below them is followed.
 */
export interface CopyTreeOptions {
	/** Undefined keeps the owners of the source. */
	readonly owner?: { readonly uid: number; readonly gid: number };
	/** Permission bits for everything; undefined keeps them. */
	readonly mode?: number;
	/** In chmod's words, takes the place of `mode`. Empty: none. */
	readonly modeText: string;
	/** For everything; undefined keeps the times of the source. */
	readonly time?: Timestamp;
	readonly includePatterns: readonly string[];
	readonly excludePatterns: readonly string[];
	/** Something of another type at the destination gives way; otherwise that is an error. */
	readonly replaceExisting: boolean;
	/** Nobody writes to the source's files any more: a copy that differs in nothing may be a hard link to the original. */
	readonly mayLink: boolean;
	/** Called between files; throws to end the copy. */
	readonly check: () => void;
}

type Stat = import("node:fs").BigIntStats;

interface PendingDirectory {
	readonly source: SysPath;
	readonly target: SysPath;
	readonly stat: Stat;
	made: boolean;
}

/** What the system takes away from the mode of a new file. */
const umask = process.umask();

const typeMask = 0o170000n;
const fileTypes = { directory: 0o040000n, file: 0o100000n, symlink: 0o120000n };

/** Copies `source` to be `target`, whose parent exists. Throws with the path of the file that could not be read or written. */
export function copyTree(source: SysPath, target: SysPath, options: CopyTreeOptions): void {
	new TreeCopier(options).copy(source, target);
}

class TreeCopier {
	readonly #options: CopyTreeOptions;
	readonly #filter: PathFilter | undefined;
	readonly #modeOf: (mode: number, isDirectory: boolean) => number;
	/** First copies of files that have several names, by device and inode. */
	readonly #links = new Map<string, SysPath>();
	/** Directories on the way down that the filter has not shown yet: made when something below them is. */
	readonly #pending: PendingDirectory[] = [];

	#mayLink: boolean;

	constructor(options: CopyTreeOptions) {
		this.#options = options;
		this.#mayLink = options.mayLink;
		const { includePatterns: include, excludePatterns: exclude, mode } = options;
		this.#filter =
			include.length > 0 || exclude.length > 0 ? createPathFilter({ include, exclude }) : undefined;
		this.#modeOf =
			options.modeText !== ""
				? parseSymbolicMode(options.modeText)
				: mode === undefined
					? (own) => own & 0o7777
					: () => mode & 0o7777;
	}

	copy(source: SysPath, target: SysPath): void {
		this.#copyEntry(source, target, "", undefined);
	}

	#copyEntry(source: SysPath, target: SysPath, path: string, parent: FilterState | undefined): void {
		this.#options.check();
		const isTop = path === "";
		const stat = lstatSync(source as string, { bigint: true });
		const isDirectory = (stat.mode & typeMask) === fileTypes.directory;
		const state = isTop ? undefined : this.#filter?.visit(path, isDirectory, parent);
		const shown = state?.shown ?? true;
		if (isDirectory) {
			if (shown || state?.descend === true) {
				this.#copyDirectory({ source, target, stat, made: false }, path, state, shown);
			}
			return;
		}
		if (!shown) {
			return;
		}
		this.#makePending();
		this.#makeRoom(target);
		this.#copyLeaf(source, target, stat);
	}

	#copyDirectory(
		directory: PendingDirectory,
		path: string,
		state: FilterState | undefined,
		shown: boolean,
	): void {
		const isTop = path === "";
		let existed = false;
		if (shown) {
			this.#makePending();
			existed = this.#makeDirectory(directory);
		}
		this.#pending.push(directory);
		if (state?.descend ?? true) {
			for (const name of readNames(directory.source)) {
				const below = isTop ? textOf(name) : `${path}/${textOf(name)}`;
				this.#copyEntry(joinName(directory.source, name), joinName(directory.target, name), below, state);
			}
		}
		this.#pending.pop();
		if (!shown) {
			return;
		}
		// The top of a copy into a directory that was there keeps that one's metadata, but for its times.
		if (isTop && existed) {
			this.#setTimes(directory.target, directory.stat);
		} else {
			this.#setMetadata(directory.source, directory.target, directory.stat, false);
		}
	}

	/** True if it was there before. */
	#makeDirectory(directory: PendingDirectory): boolean {
		directory.made = true;
		const found = lstatSync(directory.target as string, { throwIfNoEntry: false });
		if (found?.isDirectory() === true) {
			return true;
		}
		if (found !== undefined) {
			if (!this.#options.replaceExisting) {
				throw new SlipwayError(
					"failed-precondition",
					`cannot copy to non-directory: ${textOf(directory.target)}`,
				);
			}
			unlinkSync(directory.target as string);
		}
		mkdirSync(directory.target as string, { mode: Number(directory.stat.mode & 0o7777n) });
		return false;
	}

	#makePending(): void {
		for (const directory of this.#pending) {
			if (!directory.made && !this.#makeDirectory(directory)) {
				this.#setMetadata(directory.source, directory.target, directory.stat, false);
			}
		}
	}

	#makeRoom(target: SysPath): void {
		const found = lstatSync(target as string, { throwIfNoEntry: false });
		if (found === undefined) {
			return;
		}
		if (!found.isDirectory()) {
			unlinkSync(target as string);
		} else if (this.#options.replaceExisting) {
			rmSync(target as string, { recursive: true });
		} else {
			throw new SlipwayError(
				"failed-precondition",
				`cannot replace to directory ${textOf(target)} with file`,
			);
		}
	}

	#copyLeaf(source: SysPath, target: SysPath, stat: Stat): void {
		const type = stat.mode & typeMask;
		if (type === fileTypes.symlink) {
			symlinkSync(readlinkSync(source as string, "buffer"), target as string);
			this.#setMetadata(source, target, stat, false);
			return;
		}
		if (type !== fileTypes.file) {
			makeNode(target, nodeKind(type), Number(stat.mode & 0o7777n), Number(stat.rdev));
			this.#setMetadata(source, target, stat, false);
			return;
		}
		if (stat.nlink > 1n) {
			const inode = `${stat.dev}:${stat.ino}`;
			const first = this.#links.get(inode);
			if (first !== undefined) {
				linkSync(first as string, target as string);
				return;
			}
			this.#links.set(inode, target);
		}
		const mode = this.#modeOf(Number(stat.mode), false);
		if (this.#mayLink && this.#isAlike(stat, mode) && this.#link(source, target)) {
			return;
		}
		copyFile(source, target, mode & 0o777);
		this.#setMetadata(source, target, stat, (mode & (umask | 0o7000)) === 0);
	}

	/** True if the copy would have the original's owner, mode and times. Files of several names are copied: links mean something. */
	#isAlike(stat: Stat, mode: number): boolean {
		const { owner, time } = this.#options;
		return (
			stat.nlink === 1n &&
			time === undefined &&
			mode === Number(stat.mode & 0o7777n) &&
			(owner === undefined || (BigInt(owner.uid) === stat.uid && BigInt(owner.gid) === stat.gid))
		);
	}

	/** False, and no further attempt, where the two are on different mounts or the file system cannot do it. */
	#link(source: SysPath, target: SysPath): boolean {
		try {
			linkSync(source as string, target as string);
			return true;
		} catch {
			this.#mayLink = false;
			return false;
		}
	}

	/** `modeIsSet`: the file was created with its mode, which no usual umask has changed. */
	#setMetadata(source: SysPath, target: SysPath, stat: Stat, modeIsSet: boolean): void {
		const type = stat.mode & typeMask;
		const uid = this.#options.owner?.uid ?? Number(stat.uid);
		const gid = this.#options.owner?.gid ?? Number(stat.gid);
		if (uid !== 0 || gid !== 0 || type === fileTypes.directory) {
			changeOwnOwner(target as string, uid, gid);
		}
		if (type !== fileTypes.symlink && !modeIsSet) {
			// After chown, which clears setuid and setgid.
			chmodSync(target as string, this.#modeOf(Number(stat.mode), type === fileTypes.directory));
		}
		copyXattrs(source, target);
		this.#setTimes(target, stat);
	}

	#setTimes(target: SysPath, stat: Stat): void {
		const { time } = this.#options;
		setTimes(target, time ?? timestampOf(stat.atimeNs), time ?? timestampOf(stat.mtimeNs));
	}
}

/** Attributes that the file system or the user's rights do not allow are left out, as BuildKit leaves them out. */
function copyXattrs(source: SysPath, target: SysPath): void {
	for (const name of listXattrs(source)) {
		const value = getXattr(source, name);
		if (value === undefined) {
			continue;
		}
		try {
			setXattr(target, name, value);
		} catch {}
	}
}

function nodeKind(type: bigint): "fifo" | "character" | "block" | "socket" {
	switch (type) {
		case 0o020000n:
			return "character";
		case 0o060000n:
			return "block";
		case 0o010000n:
			return "fifo";
		default:
			return "socket";
	}
}

/** Names as text, or as bytes in a directory where one is no UTF-8; in byte order as Go reads them. */
function readNames(directory: SysPath): readonly (string | Uint8Array)[] {
	const names = readdirSync(directory as string);
	if (names.some((name) => name.includes("\ufffd"))) {
		return readdirSync(directory as string, { encoding: "buffer" }).sort(Buffer.compare);
	}
	return names.sort();
}

function joinName(directory: SysPath, name: string | Uint8Array): SysPath {
	if (typeof directory === "string" && typeof name === "string") {
		return `${directory}/${name}`;
	}
	return Buffer.concat([Buffer.from(directory), Buffer.from("/"), Buffer.from(name)]);
}

function textOf(path: SysPath): string {
	return typeof path === "string" ? path : Buffer.from(path).toString();
}
