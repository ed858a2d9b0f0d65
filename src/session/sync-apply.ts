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
	readlinkSync,
	type Stats,
	symlinkSync,
} from "node:fs";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { type ByteString, bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { copyContent } from "../sys/copy.ts";
import { makeDevice, makeNode, setTimes, splitDevice, timestampOf } from "../sys/node.ts";
import { getXattr, listXattrs, removeXattr, setXattr } from "../sys/xattr.ts";
import { isImageAttribute } from "./image-attributes.ts";
import type { SyncPlan, SyncStep } from "./sync-plan.ts";
import { openTargetTree, type TargetTree } from "./target-tree.ts";
import {
	column,
	fileType,
	permissionMask,
	plainMode,
	presentFlag,
	rowLength,
	type TreeStateBuilder,
	typeMask,
} from "./tree-state.ts";

export interface ApplyOptions {
	/** Resolved and absolute. */
	readonly source: string;
	readonly target: string;
	readonly throwIfAborted: () => void;
	readonly onBytes: (total: number) => void;
}

export interface Applied {
	readonly bytes: number;
	/** Entries whose content, mode, link or attributes are other than before; those below a removed one are not named. */
	readonly changed: readonly string[];
}

/**
 * Does the steps of a plan. Rows of `plan.next` are corrected to what was copied in the end: the state must describe the bytes
 * in the target, not what the source has become since.
 */
export function applySync(plan: SyncPlan, options: ApplyOptions): Applied {
	if (plan.steps.length === 0) {
		return { bytes: 0, changed: [] };
	}
	using target = openTargetTree(options.target);
	return new Writer(plan.next, target, options).run(plan.steps);
}

/** How often a file that changes while it is read is read again before its latest copy is taken as it is. */
const maxAttempts = 3;

const sourceFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const targetFlags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

class Writer {
	readonly #next: TreeStateBuilder;
	readonly #target: TargetTree;
	readonly #options: ApplyOptions;
	readonly #prefix: ByteString;
	readonly #changed: string[] = [];
	/** Directories to finish, by row: their modes may forbid, and their contents change, what comes before. */
	readonly #directories = new Map<number, { readonly path: ByteString; isNew: boolean }>();
	#bytes = 0;

	constructor(next: TreeStateBuilder, target: TargetTree, options: ApplyOptions) {
		this.#next = next;
		this.#target = target;
		this.#options = options;
		this.#prefix = `${options.source === "/" ? "" : bytesOf(options.source)}/`;
	}

	run(steps: readonly SyncStep[]): Applied {
		for (const step of steps) {
			this.#options.throwIfAborted();
			try {
				this.#step(step);
			} catch (thrown) {
				throw describe(thrown, step.path);
			}
		}
		for (const [row, directory] of [...this.#directories].reverse()) {
			try {
				this.#finishDirectory(row, directory.path, directory.isNew);
			} catch (thrown) {
				throw describe(thrown, directory.path);
			}
		}
		return { bytes: this.#bytes, changed: [...new Set(this.#changed)] };
	}

	#step(step: SyncStep): void {
		const { path } = step;
		this.#touch(step.parent, path.slice(0, Math.max(0, path.lastIndexOf("/"))), false);
		switch (step.kind) {
			case "remove":
				this.#target.remove(path);
				break;
			case "directory":
				this.#create(path, (at) => mkdirSync(at, 0o700));
				this.#touch(step.row, path, true);
				break;
			case "meta":
				this.#touch(step.row, path, false);
				return;
			case "file":
				this.#file(path, step.row);
				break;
			case "empty":
				this.#create(path, (at) => closeSync(openSync(at, targetFlags, 0o600)));
				this.#copyMetadata(path, step.row);
				break;
			case "symlink":
				this.#symlink(path, step.row);
				break;
			case "node":
				this.#node(path, step.row);
				break;
			case "link":
				this.#link(path, step.row, step.to);
				break;
		}
		this.#changed.push(textOf(path));
	}

	#touch(row: number, path: ByteString, isNew: boolean): void {
		if (path !== "" && (isNew || !this.#directories.has(row))) {
			this.#directories.set(row, { path, isNew });
		}
	}

	/** What is in the way was put there by nobody that the plan knows of; it goes. */
	#create(path: ByteString, make: (at: string | Buffer) => void): void {
		try {
			make(this.#target.at(path));
		} catch (thrown) {
			if (!hasCode(toError(thrown), "already-exists")) {
				throw thrown;
			}
			this.#target.remove(path);
			make(this.#target.at(path));
		}
	}

	#file(path: ByteString, row: number): void {
		const from = fsPath(this.#prefix + path);
		for (let attempt = 1; ; attempt++) {
			const stat = this.#lookAgain(path, attempt === 1 ? row : undefined);
			if (stat === undefined) {
				this.#vanished(path, row);
				return;
			}
			if ((stat.mode & typeMask) !== fileType.file) {
				throw new SlipwayError("aborted", "it was replaced by something else while it was read");
			}
			const copied = this.#copyFile(from, path, stat, attempt);
			if (copied === undefined) {
				continue;
			}
			if (copied === "same" || attempt === maxAttempts) {
				this.#remember(row, stat, copied === "same");
				this.#bytes += stat.size;
				this.#options.onBytes(this.#bytes);
				return;
			}
			this.#target.remove(path);
		}
	}

	/** Metadata of the source's file; from the row where it is fresh enough (what differs is found after the copy). */
	#lookAgain(path: ByteString, row: number | undefined): RowStat | undefined {
		if (row !== undefined && !Number.isNaN(this.#row(row, column.changed))) {
			return this.#rowStat(row);
		}
		return lstatSync(fsPath(this.#prefix + path), { throwIfNoEntry: false });
	}

	/** Undefined: it shrank or went while it was read, and nothing was left in the target. */
	#copyFile(
		from: string | Buffer,
		path: ByteString,
		stat: RowStat,
		attempt: number,
	): "same" | "changed" | undefined {
		let source = -1;
		let target = -1;
		try {
			source = openSync(from, sourceFlags);
			const exact = fstatSync(source, { bigint: true });
			this.#create(path, (at) => {
				target = openSync(at, targetFlags, 0o600);
			});
			copyContent(source, target);
			fchmodSync(target, stat.mode & permissionMask);
			const after = fstatSync(source);
			copyAttributes(from, this.#target.at(path), false);
			this.#setTimes(path, exact);
			return isSame(stat, after) ? "same" : "changed";
		} catch (thrown) {
			const error = toError(thrown);
			if (target >= 0) {
				this.#target.remove(path);
			}
			if ((source < 0 && error.code === "not-found") || (error.code === "aborted" && attempt < maxAttempts)) {
				return undefined;
			}
			throw error;
		} finally {
			if (source >= 0) {
				closeSync(source);
			}
			if (target >= 0) {
				closeSync(target);
			}
		}
	}

	#symlink(path: ByteString, row: number): void {
		const from = fsPath(this.#prefix + path);
		let to: Buffer;
		try {
			to = readlinkSync(from, "buffer");
		} catch (thrown) {
			const error = toError(thrown);
			if (error.code === "not-found") {
				this.#vanished(path, row);
				return;
			}
			throw error;
		}
		this.#create(path, (at) => symlinkSync(to, at));
		this.#copyMetadata(path, row);
	}

	#node(path: ByteString, row: number): void {
		const stat = lstatSync(fsPath(this.#prefix + path), { throwIfNoEntry: false });
		if (stat === undefined) {
			this.#vanished(path, row);
			return;
		}
		const { major, minor } = splitDevice(stat.rdev);
		const kind = stat.isFIFO() ? "fifo" : stat.isBlockDevice() ? "block" : "character";
		this.#create(path, (at) => makeNode(at, kind, 0o600, kind === "fifo" ? 0 : makeDevice(major, minor)));
		this.#copyMetadata(path, row);
	}

	#link(path: ByteString, row: number, to: ByteString): void {
		// The name of the target goes through one open directory, that of the first file through another: both must be open.
		using first = openTargetTree(this.#options.target);
		try {
			const from = first.at(to);
			this.#create(path, (at) => linkSync(from, at));
		} catch (thrown) {
			const error = toError(thrown);
			const errno = error.details.find((detail) => detail.kind === "errno")?.errno;
			if (error.code !== "not-found" && errno !== "EMLINK") {
				throw error;
			}
			// The first file vanished meanwhile, or has as many names as it may: a copy of its own is as good.
			this.#set(row, column.link, -1);
			this.#set(row, column.changed, Number.NaN);
			this.#file(path, row);
		}
	}

	/** Mode and times of what is no file and no directory; links have no mode. */
	#copyMetadata(path: ByteString, row: number): void {
		const from = fsPath(this.#prefix + path);
		const exact = lstatSync(from, { bigint: true, throwIfNoEntry: false });
		if (exact === undefined) {
			this.#target.remove(path);
			this.#vanished(path, row);
			return;
		}
		if ((Number(exact.mode) & typeMask) !== fileType.symlink) {
			// `chmod` follows links, but this name was just made here, in a directory that is held open.
			chmodSync(this.#target.at(path), Number(exact.mode) & permissionMask);
		}
		this.#setTimes(path, exact);
		const after = lstatSync(from, { throwIfNoEntry: false });
		if (after === undefined || !isSame(this.#rowStat(row), after)) {
			this.#set(row, column.changed, Number.NaN);
		}
	}

	#finishDirectory(row: number, path: ByteString, isNew: boolean): void {
		const mode = this.#row(row, column.mode);
		if ((mode & presentFlag) === 0) {
			return;
		}
		const from = fsPath(this.#prefix + path);
		const exact = lstatSync(from, { bigint: true, throwIfNoEntry: false });
		const fd = this.#target.directory(path);
		if (exact === undefined || !exact.isDirectory()) {
			this.#set(row, column.changed, Number.NaN);
			fchmodSync(fd, mode & permissionMask);
			return;
		}
		const before = fstatSync(fd).mode & permissionMask;
		const wanted = Number(exact.mode) & permissionMask;
		fchmodSync(fd, wanted);
		const attributes = copyAttributes(from, this.#target.at(path), !isNew);
		if (!isNew && (attributes || before !== wanted)) {
			this.#changed.push(textOf(path));
		}
		this.#setTimes(path, exact);
	}

	#setTimes(path: ByteString, exact: BigIntStats): void {
		const modified = timestampOf(exact.mtimeNs);
		setTimes(this.#target.at(path), modified, modified);
	}

	/** The source lost it after the walk had seen it: as if it had never been there. */
	#vanished(path: ByteString, row: number): void {
		this.#target.remove(path);
		this.#set(row, column.mode, this.#row(row, column.mode) & ~presentFlag);
		this.#set(row, column.changed, Number.NaN);
		for (let at = row - 1; at >= 0; at--) {
			if (this.#row(at, column.end) > row) {
				this.#set(at, column.changed, Number.NaN);
				break;
			}
		}
	}

	#remember(row: number, stat: RowStat, trusted: boolean): void {
		this.#set(row, column.size, stat.size);
		this.#set(row, column.modified, stat.mtimeMs);
		this.#set(row, column.device, stat.dev);
		this.#set(row, column.inode, stat.ino);
		if (!trusted) {
			this.#set(row, column.changed, Number.NaN);
		} else if (!Number.isNaN(this.#row(row, column.changed))) {
			this.#set(row, column.changed, stat.ctimeMs);
		}
		const flags = this.#row(row, column.mode) & ~plainMode;
		this.#set(row, column.mode, stat.mode + flags);
	}

	#rowStat(row: number): RowStat {
		return {
			mode: this.#row(row, column.mode) & plainMode,
			size: this.#row(row, column.size),
			mtimeMs: this.#row(row, column.modified),
			ctimeMs: this.#row(row, column.changed),
			dev: this.#row(row, column.device),
			ino: this.#row(row, column.inode),
		};
	}

	#row(row: number, at: number): number {
		return this.#next.rows[row * rowLength + at] ?? Number.NaN;
	}

	#set(row: number, at: number, value: number): void {
		this.#next.rows[row * rowLength + at] = value;
	}
}

type RowStat = Pick<Stats, "mode" | "size" | "mtimeMs" | "ctimeMs" | "dev" | "ino">;

function isSame(a: RowStat, b: RowStat): boolean {
	return (
		a.ino === b.ino &&
		a.dev === b.dev &&
		a.size === b.size &&
		a.mtimeMs === b.mtimeMs &&
		a.ctimeMs === b.ctimeMs
	);
}

/** True if the target's attributes are other than before. `compare`: the target may have some already. */
function copyAttributes(from: string | Buffer, to: string | Buffer, compare: boolean): boolean {
	const names = listXattrs(from).filter(isImageAttribute);
	let differs = false;
	if (compare) {
		for (const name of listXattrs(to).filter(isImageAttribute)) {
			if (!names.includes(name)) {
				removeXattr(to, name);
				differs = true;
			}
		}
	}
	for (const name of names) {
		const value = getXattr(from, name);
		if (value === undefined) {
			continue;
		}
		const old = compare ? getXattr(to, name) : undefined;
		if (old === undefined || Buffer.compare(old, value) !== 0) {
			differs = true;
			setAttribute(to, name, value);
		}
	}
	return differs;
}

/** Where the file system of the copies has no attributes, or this user may not set one, files arrive without; BuildKit does the same. */
function setAttribute(path: string | Buffer, name: string, value: Uint8Array): void {
	try {
		setXattr(path, name, value);
	} catch (thrown) {
		const error = toError(thrown);
		const errno = error.details.find((detail) => detail.kind === "errno")?.errno;
		if (errno !== "ENOTSUP" && errno !== "EOPNOTSUPP" && errno !== "EPERM") {
			throw error;
		}
	}
}

function describe(thrown: unknown, path: ByteString): SlipwayError {
	return wrap(thrown, `could not copy ${JSON.stringify(textOf(path))}`);
}
