import { randomBytes } from "node:crypto";
import {
	type BigIntStats,
	chmodSync,
	closeSync,
	constants,
	fchmodSync,
	fstatSync,
	linkSync,
	lstatSync,
	mkdirSync,
	openSync,
	readdirSync,
	readlinkSync,
	renameSync,
	symlinkSync,
	unlinkSync,
} from "node:fs";
import { walk } from "../archive/walk.ts";
import { findDetail, hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { openTargetTree, type TargetTree } from "../session/target-tree.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { copyContent } from "../sys/copy.ts";
import { makeNode, setTimes, timestampOf } from "../sys/node.ts";
import { changeOpenOwner, changeOwnOwner } from "../sys/owner.ts";
import type { Timestamp } from "../sys/sys.ts";
import { getXattr, listXattrs, setXattr } from "../sys/xattr.ts";
import type { CopyOutInput, CopyOutTree } from "./copy-out.job.ts";

export interface CopyOutHooks {
	/** Called between files; throws to end the copy. */
	readonly check: () => void;
	readonly onBytes: (total: number) => void;
}

/**
 * Copies trees into a directory that others own: a file is made beside its name and put there at once, a directory that is there
 * is filled, what is of another kind gives way. The directory may hold links to anywhere, put there by whoever; none is followed.
 */
export class CopyOut implements Disposable {
	readonly #input: CopyOutInput;
	readonly #hooks: CopyOutHooks;
	readonly #target: TargetTree;
	/** A second way in, for the other name of a hard link. */
	readonly #first: TargetTree;
	/** Directories to finish: their modes may forbid, and their times change with, what is written into them. */
	readonly #directories: NewDirectory[] = [];
	/** Directories that were not there before, with a slash behind: nothing is in the way there. */
	readonly #made = new Set<ByteString>();
	/** With `mirror`: all that stays. */
	readonly #kept = new Set<ByteString>();
	#bytes = 0;
	/** For names that nobody else uses. */
	readonly #unique: string = randomBytes(6).toString("hex");
	#replaced = 0;

	constructor(input: CopyOutInput, hooks: CopyOutHooks) {
		this.#input = input;
		this.#hooks = hooks;
		this.#target = openTargetTree(input.directory);
		this.#first = openTargetTree(input.directory);
	}

	/** Answers with the bytes that were written. */
	run(): number {
		const { trees, mirror } = this.#input;
		checkClashes(trees);
		for (const tree of trees) {
			this.#copyTree(tree);
		}
		for (const directory of this.#directories.reverse()) {
			this.#attempt(directory.path, () => this.#finish(directory));
		}
		if (mirror) {
			this.#removeOthers("");
		}
		return this.#bytes;
	}

	[Symbol.dispose](): void {
		this.#target[Symbol.dispose]();
		this.#first[Symbol.dispose]();
	}

	#copyTree({ root, prefix, modifiedSeconds }: CopyOutTree): void {
		const epoch = modifiedSeconds === undefined ? undefined : { seconds: modifiedSeconds, nanoseconds: 0 };
		const folder = bytesOf(prefix);
		if (folder !== "") {
			this.#directory(folder, 0o755, epoch ?? zeroTime, undefined);
		}
		if (root === undefined) {
			return;
		}
		const from = bytesOf(root);
		/** First names of files that have several, by inode. */
		const names = new Map<string, ByteString>();
		for (const { path, stats } of walk(from)) {
			this.#hooks.check();
			const target = folder === "" ? path.slice(1) : folder + path;
			const source = from + path;
			const time = epoch ?? timestampOf(stats.mtimeNs);
			if (stats.isDirectory()) {
				this.#directory(target, modeOf(stats), time, source);
				continue;
			}
			this.#attempt(target, () => this.#leaf(source, target, stats, time, names));
		}
	}

	#directory(path: ByteString, mode: number, time: Timestamp, source: ByteString | undefined): void {
		this.#keep(path);
		this.#directories.push({ path, mode, time, source });
		this.#attempt(path, () => {
			try {
				mkdirSync(this.#target.at(path), 0o700);
				this.#made.add(`${path}/`);
			} catch (thrown) {
				if (!hasCode(toError(thrown), "already-exists")) {
					throw thrown;
				}
				if (!lstatSync(this.#target.at(path)).isDirectory()) {
					unlinkSync(this.#target.at(path));
					mkdirSync(this.#target.at(path), 0o700);
				}
			}
		});
	}

	/** The owner first, as a change of owner clears bits of the mode; the time last. */
	#finish({ path, mode, time, source }: NewDirectory): void {
		const fd = this.#target.directory(path);
		changeOpenOwner(fd, this.#input.uid, this.#input.gid);
		fchmodSync(fd, mode);
		const at = `/proc/self/fd/${fd}/.`;
		if (source !== undefined) {
			copyXattrs(source, at);
		}
		setTimes(at, time, time);
	}

	#leaf(
		source: ByteString,
		path: ByteString,
		stats: BigIntStats,
		time: Timestamp,
		names: Map<string, ByteString>,
	): void {
		this.#keep(path);
		const inode = `${stats.dev}:${stats.ino}`;
		const first = stats.nlink > 1n ? names.get(inode) : undefined;
		if (first !== undefined && this.#link(first, path)) {
			return;
		}
		if (stats.nlink > 1n) {
			names.set(inode, path);
		}
		this.#place(path, (at) => {
			if (stats.isFile()) {
				this.#file(source, at, stats, time);
				return;
			}
			if (stats.isSymbolicLink()) {
				symlinkSync(readlinkSync(fsPath(source), { encoding: "buffer" }), at);
			} else if (stats.isSocket()) {
				// Nobody listens at it any more; a file keeps the name, as in a tar.
				closeSync(openSync(at, newFile, 0o600));
			} else {
				const kind = stats.isFIFO() ? "fifo" : stats.isBlockDevice() ? "block" : "character";
				makeNode(at, kind, 0o600, kind === "fifo" ? 0 : Number(stats.rdev));
			}
			changeOwnOwner(at, this.#input.uid, this.#input.gid);
			if (!stats.isSymbolicLink()) {
				changeMode(at, modeOf(stats));
			}
			copyXattrs(source, at);
			setTimes(at, time, time);
		});
	}

	/** False where the file system of the target cannot link these two. */
	#link(first: ByteString, path: ByteString): boolean {
		try {
			const from = this.#first.at(first);
			this.#place(path, (at) => linkSync(from, at), true);
			return true;
		} catch (thrown) {
			const errno = findDetail(toError(thrown), "errno")?.errno;
			if (errno === "EMLINK" || errno === "EPERM" || errno === "EOPNOTSUPP" || errno === "EXDEV") {
				return false;
			}
			throw thrown;
		}
	}

	#file(source: ByteString, at: string | Buffer, stats: BigIntStats, time: Timestamp): void {
		const from = openSync(fsPath(source), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
		let to = -1;
		try {
			to = openSync(at, newFile, 0o600);
			copyContent(from, to);
			const made = fstatSync(to);
			if (made.uid !== this.#input.uid || made.gid !== this.#input.gid) {
				changeOpenOwner(to, this.#input.uid, this.#input.gid);
			}
			fchmodSync(to, modeOf(stats));
			copyXattrs(source, at);
			setTimes(at, time, time);
			this.#bytes += made.size;
			this.#hooks.onBytes(this.#bytes);
		} catch (thrown) {
			if (to >= 0) {
				unlinkSync(at);
			}
			throw thrown;
		} finally {
			closeSync(from);
			if (to >= 0) {
				closeSync(to);
			}
		}
	}

	/** Makes a new entry; where the name is taken, under another name first, which then takes its place. */
	#place(path: ByteString, make: (at: string | Buffer) => void, isLink = false): void {
		const folder = path.slice(0, path.lastIndexOf("/") + 1);
		if (this.#made.has(folder) || lstatSync(this.#target.at(path), { throwIfNoEntry: false }) === undefined) {
			try {
				make(this.#target.at(path));
				return;
			} catch (thrown) {
				if (!hasCode(toError(thrown), "already-exists")) {
					throw thrown;
				}
			}
		}
		const temporary = `${folder}.tmp.${this.#unique}.${this.#replaced++}`;
		try {
			make(this.#target.at(temporary));
			if (lstatSync(this.#target.at(path), { throwIfNoEntry: false })?.isDirectory() === true) {
				this.#target.remove(path);
			}
			renameSync(this.#target.at(temporary), this.#target.at(path));
			if (isLink) {
				// Renaming one name of a file to another of the same file does nothing.
				this.#target.remove(temporary);
			}
		} catch (thrown) {
			this.#target.remove(temporary);
			throw thrown;
		}
	}

	#removeOthers(folder: ByteString): void {
		this.#hooks.check();
		const fd = this.#target.directory(folder);
		for (const name of readdirSync(`/proc/self/fd/${fd}`, { encoding: "latin1" })) {
			const path = folder === "" ? name : `${folder}/${name}`;
			if (!this.#kept.has(path)) {
				this.#target.remove(path);
			} else if (lstatSync(this.#target.at(path), { throwIfNoEntry: false })?.isDirectory() === true) {
				this.#removeOthers(path);
			}
		}
	}

	#keep(path: ByteString): void {
		if (this.#input.mirror) {
			this.#kept.add(path);
		}
	}

	#attempt(path: ByteString, action: () => void): void {
		try {
			action();
		} catch (thrown) {
			throw hasCode(thrown, "canceled")
				? thrown
				: wrap(thrown, `writing ${JSON.stringify(textOf(path))} to ${this.#input.directory}`);
		}
	}
}

interface NewDirectory {
	readonly path: ByteString;
	readonly mode: number;
	readonly time: Timestamp;
	/** Whose attributes it gets. */
	readonly source: ByteString | undefined;
}

/** open(2): the name itself, for calls that take a descriptor; Node does not name it. */
const pathOnly = 0o10000000;

/** `chmod` by path would follow a link that somebody has put in the place of the name meanwhile. */
function changeMode(at: string | Buffer, mode: number): void {
	const fd = openSync(at, pathOnly | constants.O_NOFOLLOW);
	try {
		chmodSync(`/proc/self/fd/${fd}`, mode);
	} finally {
		closeSync(fd);
	}
}

const newFile = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const zeroTime: Timestamp = { seconds: 0, nanoseconds: 0 };

/** In one directory, two platforms must not have the same file; BuildKit's message. */
function checkClashes(trees: readonly CopyOutTree[]): void {
	if (trees.length < 2 || trees.some(({ prefix }) => prefix !== "")) {
		return;
	}
	const owners = new Map<ByteString, string>();
	for (const { root, platformId } of trees) {
		for (const { path, stats } of root === undefined ? [] : walk(bytesOf(root))) {
			const name = path.slice(1);
			const owner = owners.get(name);
			if (!stats.isDirectory() && owner !== undefined) {
				throw new SlipwayError(
					"invalid-argument",
					`cannot overwrite ${textOf(name)} from ${owner} with ${platformId} when split option is disabled`,
				);
			}
			if (!stats.isDirectory()) {
				owners.set(name, platformId);
			}
		}
	}
}

/** Attributes that the target's file system or the caller's rights do not allow are left out, as in BuildKit. */
function copyXattrs(source: ByteString, at: string | Buffer): void {
	const from = fsPath(source);
	for (const name of listXattrs(from)) {
		if (name.startsWith("trusted.overlay.") || name.startsWith("user.overlay.")) {
			continue;
		}
		const value = getXattr(from, name);
		try {
			if (value !== undefined) {
				setXattr(at, name, value);
			}
		} catch {}
	}
}

function modeOf(stats: BigIntStats): number {
	return Number(stats.mode) & 0o7777;
}
