import { lstatSync, readdirSync, readlinkSync, type Stats } from "node:fs";
import { toError, wrap } from "../errors/errors.ts";
import type { FilterState, PathFilter } from "../patterns/path-filter.ts";
import { type ByteString, bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { joinBytes } from "./byte-paths.ts";
import {
	addRow,
	column,
	createTreeStateBuilder,
	fileType,
	plainMode,
	presentFlag,
	rowLength,
	shownFlag,
	type TreeState,
	type TreeStateBuilder,
	typeMask,
} from "./tree-state.ts";

/** One thing to do to the target, in the order of the walk. `row` is the entry's in `SyncPlan.next`. */
export type SyncStep =
	| { readonly kind: "remove"; readonly path: ByteString; readonly parent: number }
	| {
			/** `meta` is an existing directory whose mode, times or attributes changed. */
			readonly kind: "directory" | "meta" | "file" | "symlink" | "node" | "empty";
			readonly path: ByteString;
			readonly row: number;
			readonly parent: number;
	  }
	| {
			readonly kind: "link";
			readonly path: ByteString;
			readonly row: number;
			readonly parent: number;
			/** The path that it is another name of. */
			readonly to: ByteString;
	  };

export interface SyncPlan {
	readonly next: TreeStateBuilder;
	readonly steps: readonly SyncStep[];
	/** Sizes of the files to copy. */
	readonly bytes: number;
	/** True if `next` says nothing that the previous state did not say. */
	readonly unchanged: boolean;
}

export interface PlanOptions {
	/** Resolved and absolute. */
	readonly source: string;
	readonly target: string;
	readonly filter: PathFilter | undefined;
	readonly filterKey: string;
	readonly previous: TreeState | undefined;
	/** Write everything again. */
	readonly force: boolean;
	/** Give up when there are more entries than this. */
	readonly maxEntries: number;
	readonly throwIfAborted: () => void;
}

/**
 * Changes this close before the walk, in milliseconds, may be followed by others that leave the same time: the kernel's
 * clock for files ticks every 4 to 10 ms. What carries such a time is looked at again by the next walk.
 */
const clockTickMs = 20;

/** Compares the source with what the target is known to hold. Undefined: more than `maxEntries`. Changes nothing. */
export function planSync(options: PlanOptions): SyncPlan | undefined {
	return new Planner(options).run();
}

interface Directory {
	readonly parent: Directory | undefined;
	readonly path: ByteString;
	readonly row: number;
	/** Row of the same directory in the previous state; -1 if there was none. */
	readonly previous: number;
	/** Something else of this name is in the target. */
	readonly replaces: boolean;
	present: boolean;
	filterState: FilterState | undefined;
}

class Planner {
	readonly #options: PlanOptions;
	readonly #next: TreeStateBuilder;
	readonly #steps: SyncStep[] = [];
	readonly #previous: TreeState | undefined;
	readonly #rows: Float64Array;
	readonly #racy: number;
	/** Directories and entries that were seen through the same patterns need not be matched again. */
	readonly #sameFilter: boolean;
	/** Rows of first names of files with several, by device and inode. */
	readonly #links = new Map<
		string,
		{ readonly row: number; readonly path: ByteString; readonly kept: boolean }
	>();
	/** For each row of the previous state that was met, its row now. */
	readonly #moved: Int32Array;
	readonly #prefix: ByteString;
	readonly #ascii: boolean;
	/**
	 * All rows so far are the previous state's. They are in `next` already, but for the names, so that an unchanged file costs
	 * nothing but the look at it.
	 */
	#aligned: boolean;
	#unchanged: boolean;
	#bytes = 0;
	#over = false;

	constructor(options: PlanOptions) {
		this.#options = options;
		this.#previous = options.previous;
		this.#rows = options.previous?.rows ?? new Float64Array();
		this.#next = createTreeStateBuilder(options.previous?.count ?? 0);
		this.#next.rows.set(this.#rows);
		this.#aligned = options.previous !== undefined;
		this.#moved = new Int32Array(options.previous?.count ?? 0).fill(-1);
		this.#racy = Date.now() - clockTickMs;
		this.#sameFilter =
			options.previous?.fromSource === true && options.previous.filterKey === options.filterKey;
		this.#unchanged = this.#sameFilter;
		this.#prefix = `${options.source === "/" ? "" : bytesOf(options.source)}/`;
		this.#ascii = options.previous?.ascii === true && typeof fsPath(this.#prefix) === "string";
	}

	run(): SyncPlan | undefined {
		const stat = lstatSync(this.#options.source);
		const row = this.#record("", 0, stat, -1, presentFlag + shownFlag);
		this.#directory(
			{
				parent: undefined,
				path: "",
				row,
				previous: this.#previous === undefined ? -1 : 0,
				replaces: false,
				present: true,
				filterState: undefined,
			},
			stat,
			true,
		);
		if (this.#over) {
			return undefined;
		}
		this.#diverge();
		return {
			next: this.#next,
			steps: this.#steps,
			bytes: this.#bytes,
			unchanged: this.#unchanged && this.#steps.length === 0 && this.#next.count === this.#previous?.count,
		};
	}

	/** Adds the row of what was seen. */
	#record(name: ByteString, match: number, stat: Stats, link: number, flags: number): number {
		const next = this.#next;
		const row = next.count;
		if (this.#aligned && row === match) {
			next.count += 1;
		} else {
			this.#diverge();
			addRow(next, name);
		}
		const at = row * rowLength;
		const rows = next.rows;
		rows[at + column.mode] = modeOf(stat) + flags;
		rows[at + column.size] = stat.size;
		rows[at + column.modified] = stat.mtimeMs;
		rows[at + column.changed] = stat.ctimeMs >= this.#racy ? Number.NaN : stat.ctimeMs;
		rows[at + column.device] = stat.dev;
		rows[at + column.inode] = stat.ino;
		rows[at + column.link] = link;
		rows[at + column.end] = row + 1;
		return row;
	}

	/** Rows are no longer those of the previous state. */
	#diverge(): void {
		if (this.#aligned) {
			this.#aligned = false;
			this.#next.names = this.#previous?.names.slice(0, this.#next.count) ?? [];
		}
	}

	/** `wanted`: the patterns show the directory itself, not only what is below. */
	#directory(directory: Directory, stat: Stats, wanted: boolean): void {
		if (wanted && directory.parent !== undefined) {
			this.#require(directory);
		}
		const previous = this.#previous;
		let at = directory.previous >= 0 ? directory.previous + 1 : 0;
		const end = directory.previous >= 0 ? this.#number(directory.previous, column.end) : 0;
		if (this.#sameFilter && directory.previous >= 0 && this.#isSame(directory.previous, stat)) {
			// No name came or went since, or the directory's times would differ.
			this.#knownEntries(directory, at, end);
		} else {
			this.#unchanged = false;
			const path = fsPath(this.#prefix + directory.path);
			for (const name of this.#list(path, directory, wanted)) {
				for (; at < end && (previous?.names[at] ?? "") < name; at = this.#number(at, column.end)) {
					this.#gone(directory, at);
				}
				let match = -1;
				if (at < end && previous?.names[at] === name) {
					match = at;
					at = this.#number(at, column.end);
				}
				this.#entry(directory, name, match);
				if (this.#over) {
					return;
				}
			}
			for (; at < end; at = this.#number(at, column.end)) {
				this.#gone(directory, at);
			}
		}
		this.#set(directory.row, column.end, this.#next.count);
		if (!directory.present && directory.previous >= 0 && this.#wasPresent(directory.previous)) {
			this.#remove(directory.parent, directory.path);
		}
	}

	/** The entries that the directory had, which are the ones that it has: the path that nearly all files of nearly all builds take. */
	#knownEntries(directory: Directory, start: number, end: number): void {
		const names = this.#previous?.names ?? [];
		const rows = this.#rows;
		const next = this.#next;
		const prefix = directory.path === "" ? this.#prefix : `${this.#prefix}${directory.path}/`;
		const missing = { throwIfNoEntry: false } as const;
		for (let at = start; at < end && !this.#over; ) {
			const offset = at * rowLength;
			const name = names[at] ?? "";
			const mode = rows[offset + column.mode] ?? 0;
			const after = rows[offset + column.end] ?? end;
			if (this.#aligned && next.count === at && (mode & typeMask) === fileType.file && !this.#options.force) {
				const full = prefix + name;
				let stat: Stats | undefined;
				try {
					stat = lstatSync(this.#ascii ? full : fsPath(full), missing);
				} catch {
					// The careful way below finds out what it is.
				}
				if (
					stat !== undefined &&
					rows[offset + column.changed] === stat.ctimeMs &&
					rows[offset + column.inode] === stat.ino &&
					rows[offset + column.size] === stat.size &&
					rows[offset + column.modified] === stat.mtimeMs &&
					rows[offset + column.device] === stat.dev &&
					(mode & plainMode) === stat.mode &&
					stat.nlink === 1 &&
					(mode & presentFlag) !== 0
				) {
					next.count += 1;
					if (at % 256 === 0) {
						this.#checkpoint();
					}
					this.#require(directory);
					at = after;
					continue;
				}
			}
			this.#entry(directory, name, at);
			at = after;
		}
	}

	#checkpoint(): void {
		this.#options.throwIfAborted();
		if (this.#next.count > this.#options.maxEntries) {
			this.#over = true;
		}
	}

	#list(path: string | Buffer, directory: Directory, wanted: boolean): readonly ByteString[] {
		try {
			return sorted(readdirSync(path, "latin1"));
		} catch (thrown) {
			const error = toError(thrown);
			this.#distrust(directory);
			// It went away, or it is of no interest: BuildKit's walk goes on as well.
			if (error.code === "not-found" || (error.code === "permission-denied" && !wanted)) {
				return [];
			}
			throw wrap(error, `could not read directory ${JSON.stringify(textOf(directory.path) || ".")}`);
		}
	}

	/** An entry of the directory; `match` is its row in the previous state or -1. */
	#entry(directory: Directory, name: ByteString, match: number): void {
		const path = joinBytes(directory.path, name);
		let visible = true;
		let state: FilterState | undefined;
		const filter = this.#options.filter;
		if (match >= 0 && this.#sameFilter) {
			visible = (this.#number(match, column.mode) & shownFlag) !== 0;
		} else if (filter !== undefined) {
			state = filter.visit(textOf(path), true, this.#filterState(directory));
			visible = state.shown;
			if (!state.shown && !state.descend) {
				if (match >= 0) {
					this.#gone(directory, match);
				}
				return;
			}
		}
		if (this.#next.count % 256 === 0) {
			this.#checkpoint();
			if (this.#over) {
				return;
			}
		}
		const stat = this.#stat(path);
		if (stat === undefined) {
			this.#distrust(directory);
			if (match >= 0) {
				this.#gone(directory, match);
			}
			return;
		}
		if (stat.isDirectory()) {
			this.#subdirectory(directory, { path, name, match, stat, visible, state });
			return;
		}
		if (!visible) {
			if (match >= 0) {
				this.#gone(directory, match);
			}
			return;
		}
		this.#file(directory, path, name, match, stat);
	}

	#subdirectory(
		parent: Directory,
		found: {
			readonly path: ByteString;
			readonly name: ByteString;
			readonly match: number;
			readonly stat: Stats;
			readonly visible: boolean;
			readonly state: FilterState | undefined;
		},
	): void {
		const { match, stat, path } = found;
		const wasDirectory = match >= 0 && (this.#number(match, column.mode) & typeMask) === fileType.directory;
		if (match >= 0 && !wasDirectory) {
			this.#unchanged = false;
		}
		const row = this.#record(found.name, match, stat, -1, found.visible ? shownFlag : 0);
		this.#directory(
			{
				parent,
				path,
				row,
				previous: wasDirectory ? match : -1,
				replaces: match >= 0 && !wasDirectory,
				present: false,
				filterState: found.state,
			},
			stat,
			found.visible,
		);
		if (match >= 0 && !wasDirectory && !this.#isPresent(row) && this.#wasPresent(match)) {
			this.#remove(parent, path);
		}
	}

	/** Makes the directory and those around it part of the target. */
	#require(directory: Directory): void {
		if (directory.present) {
			return;
		}
		if (directory.parent !== undefined) {
			this.#require(directory.parent);
		}
		directory.present = true;
		const { path, row, previous } = directory;
		this.#set(row, column.mode, this.#at(row, column.mode) + presentFlag);
		const parent = directory.parent?.row ?? 0;
		if (previous < 0 || !this.#wasPresent(previous)) {
			if (directory.replaces) {
				this.#remove(directory.parent, path);
			}
			this.#steps.push({ kind: "directory", path, row, parent });
		} else if (this.#options.force || !this.#isSameDirectory(previous, row)) {
			this.#steps.push({ kind: "meta", path, row, parent });
		}
	}

	#file(directory: Directory, path: ByteString, name: ByteString, match: number, stat: Stats): void {
		const type = stat.mode & typeMask;
		const key = stat.nlink > 1 && type !== fileType.socket ? this.#linkKey(path, stat) : undefined;
		const first = key === undefined ? undefined : this.#links.get(key);
		const kept = match >= 0 && !this.#options.force && this.#isKept(path, match, stat, first);
		const row = this.#record(name, match, stat, first?.row ?? -1, presentFlag + shownFlag);
		if (key !== undefined && first === undefined) {
			this.#links.set(key, { row, path, kept });
		}
		if (match >= 0) {
			this.#moved[match] = row;
		}
		this.#require(directory);
		if (kept) {
			return;
		}
		const parent = directory.row;
		if (match >= 0 && this.#wasPresent(match)) {
			this.#remove(directory, path);
		}
		if (first !== undefined) {
			this.#steps.push({ kind: "link", path, row, parent, to: first.path });
			// What is linked is the file as it was when its first name was seen.
			for (const each of [column.size, column.modified, column.changed]) {
				if (this.#at(row, each) !== this.#at(first.row, each)) {
					this.#set(row, column.changed, Number.NaN);
				}
			}
			return;
		}
		if (type === fileType.file) {
			this.#bytes += stat.size;
		}
		this.#steps.push({ kind: stepOf(type), path, row, parent });
	}

	#isKept(
		path: ByteString,
		match: number,
		stat: Stats,
		first: { readonly row: number; readonly kept: boolean } | undefined,
	): boolean {
		if (!this.#wasPresent(match)) {
			return false;
		}
		const link = this.#number(match, column.link);
		if (first === undefined ? link >= 0 : !first.kept || link < 0 || this.#moved[link] !== first.row) {
			return false;
		}
		if (this.#previous?.fromSource === true) {
			return this.#isSame(match, stat);
		}
		return (
			(this.#number(match, column.mode) & plainMode) === modeOf(stat) &&
			this.#number(match, column.size) === stat.size &&
			this.#number(match, column.modified) === stat.mtimeMs &&
			this.#isSameInTarget(path, stat)
		);
	}

	/** What the target's row does not say: where a link points to, which device a node is. */
	#isSameInTarget(path: ByteString, stat: Stats): boolean {
		const target = `${bytesOf(this.#options.target)}/${path}`;
		switch (stat.mode & typeMask) {
			case fileType.symlink:
				return readlinkSync(fsPath(target), "latin1") === readlinkSync(fsPath(this.#prefix + path), "latin1");
			case fileType.character:
			case fileType.block:
				return lstatSync(fsPath(target)).rdev === stat.rdev;
			default:
				return true;
		}
	}

	#isSame(match: number, stat: Stats): boolean {
		const rows = this.#rows;
		const at = match * rowLength;
		return (
			rows[at + column.changed] === stat.ctimeMs &&
			rows[at + column.inode] === stat.ino &&
			rows[at + column.size] === stat.size &&
			rows[at + column.modified] === stat.mtimeMs &&
			rows[at + column.device] === stat.dev &&
			((rows[at + column.mode] ?? 0) & plainMode) === modeOf(stat)
		);
	}

	#isSameDirectory(previous: number, row: number): boolean {
		return (
			(this.#number(previous, column.mode) & plainMode) === (this.#at(row, column.mode) & plainMode) &&
			this.#number(previous, column.modified) === this.#at(row, column.modified) &&
			(this.#previous?.fromSource !== true ||
				this.#number(previous, column.changed) === this.#at(row, column.changed))
		);
	}

	/** An entry of the previous state that the source does not have or show any more. */
	#gone(directory: Directory, match: number): void {
		this.#unchanged = false;
		const path = joinBytes(directory.path, this.#previous?.names[match] ?? "");
		if (this.#wasPresent(match)) {
			this.#remove(directory, path);
		}
	}

	#remove(directory: Directory | undefined, path: ByteString): void {
		this.#steps.push({ kind: "remove", path, parent: directory?.row ?? 0 });
	}

	#stat(path: ByteString): Stats | undefined {
		const full = fsPath(this.#prefix + path);
		try {
			return lstatSync(full, { throwIfNoEntry: false });
		} catch (thrown) {
			const error = toError(thrown);
			if (error.code === "not-found") {
				return undefined;
			}
			throw wrap(error, `could not look at ${JSON.stringify(textOf(path))}`);
		}
	}

	/** Inode numbers beyond 2^53 lose digits as numbers; two files would look like one. */
	#linkKey(path: ByteString, stat: Stats): string | undefined {
		if (Number.isSafeInteger(stat.ino)) {
			return `${stat.dev}:${stat.ino}`;
		}
		const exact = lstatSync(fsPath(this.#prefix + path), { bigint: true, throwIfNoEntry: false });
		return exact === undefined ? undefined : `${exact.dev}:${exact.ino}`;
	}

	#filterState(directory: Directory): FilterState | undefined {
		if (directory.parent === undefined) {
			return undefined;
		}
		directory.filterState ??= this.#options.filter?.visit(
			textOf(directory.path),
			true,
			this.#filterState(directory.parent),
		);
		return directory.filterState;
	}

	/** The directory's list of names may be incomplete: it is read again next time. */
	#distrust(directory: Directory): void {
		this.#unchanged = false;
		this.#set(directory.row, column.changed, Number.NaN);
	}

	#number(row: number, at: number): number {
		return this.#rows[row * rowLength + at] ?? Number.NaN;
	}

	#at(row: number, at: number): number {
		return this.#next.rows[row * rowLength + at] ?? Number.NaN;
	}

	#set(row: number, at: number, value: number): void {
		this.#next.rows[row * rowLength + at] = value;
	}

	#wasPresent(match: number): boolean {
		return (this.#number(match, column.mode) & presentFlag) !== 0;
	}

	#isPresent(row: number): boolean {
		return (this.#at(row, column.mode) & presentFlag) !== 0;
	}
}

function modeOf(stat: Stats): number {
	// A socket arrives as an empty file, as BuildKit's clients send it.
	return (stat.mode & typeMask) === fileType.socket ? (stat.mode & ~typeMask) | fileType.file : stat.mode;
}

function stepOf(type: number): "file" | "symlink" | "node" | "empty" {
	switch (type) {
		case fileType.symlink:
			return "symlink";
		case fileType.file:
			return "file";
		case fileType.socket:
			return "empty";
		default:
			return "node";
	}
}

/** The kernel binding sorts already; the merge depends on it. */
function sorted(names: string[]): string[] {
	for (let at = 1; at < names.length; at++) {
		if ((names[at - 1] ?? "") > (names[at] ?? "")) {
			return names.sort((a, b) => (a < b ? -1 : 1));
		}
	}
	return names;
}
