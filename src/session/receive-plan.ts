import { lstatSync, readlinkSync } from "node:fs";
import type { PacketStat } from "../api/services/packet.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type ByteString, bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { makeDevice, timestampOf } from "../sys/node.ts";
import { joinBytes } from "./byte-paths.ts";
import { fromGoMode } from "./go-mode.ts";
import type { Metadata, WriteOperation } from "./receive.job.ts";
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

/**
 * Rows of a received tree: as those of a copied one, but `inode` has what of the entry has no place of its own (nanoseconds, or a
 * hash of where a link points to), `device` the number of a device, and `changed` is never anything.
 */
export const receivedKey = "\0received";

/** What is to be done about an entry that was announced; structure in `operations`, content by whoever asks for it. */
export interface PlannedFile {
	readonly path: ByteString;
	readonly row: number;
	readonly size: number;
	readonly metadata: Metadata;
}

export interface ReceivePlanOptions {
	readonly target: string;
	readonly previous: TreeState | undefined;
	/** Write everything again. */
	readonly force: boolean;
	/** Called with each operation, in an order in which they can be done. */
	readonly emit: (operation: WriteOperation) => void;
	/** Called with each path whose content, mode, link or attributes become other than before. */
	readonly changed: (path: ByteString) => void;
}

/** Linux's own limits: longer ones cannot be made anyway. */
const maxPathBytes = 4096;
const maxAttributeBytes = 64 << 10;
/** More entries than any tree that was ever built from; each costs memory here for as long as the sender goes on. */
const maxEntries = 4_000_000;

interface Directory {
	readonly path: ByteString;
	readonly row: number;
	readonly metadata: Metadata | undefined;
	readonly isNew: boolean;
	/** Something in it is written: its times must be set again. */
	touched: boolean;
	lastName: ByteString;
	/** Where the previous state goes on, and its end. */
	at: number;
	readonly end: number;
}

/**
 * Compares a stream of entries, in the order of fsutil's walk, with what the target is known to hold. Nothing that the sender says
 * is believed before it was checked: order, names, that directories came before what is in them, that a hard link
 * leads to a file that was announced.
 */
export class ReceivePlan {
	readonly next: TreeStateBuilder;
	readonly #options: ReceivePlanOptions;
	readonly #previous: TreeState | undefined;
	readonly #rows: Float64Array;
	readonly #stack: Directory[];
	/** Rows of files that may be linked to, by path; made when the first link comes, which in most trees is never. */
	#files: Map<ByteString, number> | undefined;
	/** Rows of files that are written. */
	readonly #written = new Set<number>();
	/** For each row of the previous state that was met, its row now. */
	readonly #moved: Int32Array;
	readonly #links: WriteOperation[] = [];
	readonly #finished: WriteOperation[] = [];
	#unchanged = true;

	constructor(options: ReceivePlanOptions) {
		this.#options = options;
		const { previous } = options;
		this.#previous = previous;
		this.#rows = previous?.rows ?? new Float64Array();
		this.next = createTreeStateBuilder(previous?.count ?? 0);
		this.#moved = new Int32Array(previous?.count ?? 0).fill(-1);
		const row = this.#record("", fileType.directory | 0o755, -1);
		this.#stack = [
			{
				path: "",
				row,
				metadata: undefined,
				isNew: false,
				touched: false,
				lastName: "",
				at: 1,
				end: previous === undefined ? 0 : this.#number(0, column.end),
			},
		];
	}

	/** An entry. What it gives is a file whose content is needed. */
	add(stat: PacketStat): PlannedFile | undefined {
		if (this.next.count > maxEntries) {
			throw new SlipwayError("resource-exhausted", `sender announces more than ${maxEntries} files`);
		}
		const [directory, name] = this.#place(stat);
		const mode = fromGoMode(stat.mode);
		if (mode === undefined) {
			throw invalid(`unknown file mode ${stat.mode.toString(8)} of ${shown(stat.path)}`);
		}
		const match = this.#matchOf(directory, name);
		if ((mode & typeMask) === fileType.directory) {
			this.#directory(directory, name, mode, stat, match);
			return undefined;
		}
		return this.#leaf(directory, name, mode, stat, match);
	}

	/** The last entry was announced: what the sender does not have goes. */
	end(): void {
		while (this.#stack.length > 0) {
			this.#leave();
		}
	}

	/** What can be done when all contents are there: links to files, then the directories' own metadata. */
	finish(): readonly WriteOperation[] {
		return [...this.#links, ...this.#finished];
	}

	/** The file is not what was announced: the next transfer must ask for it again. */
	distrust(row: number): void {
		this.#unchanged = false;
		this.next.rows[row * rowLength + column.size] = Number.NaN;
	}

	get unchanged(): boolean {
		return this.#unchanged && this.next.count === this.#previous?.count;
	}

	/** Checks the name and the order, and gives the directory that the entry is in. The words are fsutil's. */
	#place({ path, linkname, xattrs }: PacketStat): readonly [Directory, ByteString] {
		if (path.length > maxPathBytes || linkname.length > maxPathBytes) {
			throw invalid(`path is too long: ${shown(path.slice(0, 100))}`);
		}
		if (xattrs.size > 0 && attributeBytes(xattrs) > maxAttributeBytes) {
			throw invalid(`attributes of ${shown(path)} are too large`);
		}
		const slash = path.lastIndexOf("/");
		const parent = slash === -1 ? "" : path.slice(0, slash);
		const name = path.slice(slash + 1);
		if (path.startsWith("/")) {
			throw invalid(`absolute path ${textOf(path)}: invalid argument`);
		}
		if (name === "" || name === "." || name === ".." || path.includes("\0") || slash === 0) {
			throw invalid(
				name === ".."
					? `escape check ${textOf(path)}: invalid argument`
					: `unclean path ${shownRaw(path)}: invalid argument`,
			);
		}
		let depth = this.#stack.length - 1;
		while (depth > 0 && this.#stack[depth]?.path !== parent) {
			depth -= 1;
		}
		const directory = this.#stack[depth];
		if (directory === undefined || directory.path !== parent || directory.lastName >= name) {
			const top = this.#stack[depth] ?? this.#stack.at(-1);
			throw invalid(
				`changes out of order: ${shown(path)} ${shown(joinBytes(top?.path ?? "", top?.lastName ?? ""))}`,
			);
		}
		while (this.#stack.length > depth + 1) {
			this.#leave();
		}
		directory.lastName = name;
		return [directory, name];
	}

	/** Row of the entry in the previous state, or -1; what comes before it there is gone. */
	#matchOf(directory: Directory, name: ByteString): number {
		const names = this.#previous?.names ?? [];
		while (directory.at < directory.end) {
			const at = directory.at;
			const known = names[at] ?? "";
			if (known > name) {
				return -1;
			}
			directory.at = this.#number(at, column.end);
			if (known === name) {
				return at;
			}
			this.#remove(directory, joinBytes(directory.path, known));
		}
		return -1;
	}

	#directory(parent: Directory, name: ByteString, mode: number, stat: PacketStat, match: number): void {
		const row = this.#record(name, mode, match);
		this.#setTime(row, stat);
		const wasDirectory = match >= 0 && this.#typeAt(match) === fileType.directory;
		const isNew = !wasDirectory;
		if (isNew) {
			if (match >= 0) {
				this.#remove(parent, stat.path);
			}
			this.#touch(parent);
			this.#options.emit({ kind: "directory", path: stat.path });
			this.#options.changed(stat.path);
		} else if ((this.#number(match, column.mode) & plainMode) !== mode) {
			this.#options.changed(stat.path);
		}
		const touched = isNew || this.#options.force || !this.#isSame(match, row);
		if (touched) {
			this.#unchanged = false;
		}
		this.#stack.push({
			path: stat.path,
			row,
			metadata: metadataOf(mode, stat),
			isNew,
			touched,
			lastName: "",
			at: wasDirectory ? match + 1 : 0,
			end: wasDirectory ? this.#number(match, column.end) : 0,
		});
	}

	#leaf(
		directory: Directory,
		name: ByteString,
		mode: number,
		stat: PacketStat,
		match: number,
	): PlannedFile | undefined {
		const type = mode & typeMask;
		const isLink = type === fileType.file && stat.linkname !== "";
		const first = isLink ? this.#linkable().get(stat.linkname) : undefined;
		if (isLink && first === undefined) {
			throw invalid(`invalid link ${textOf(stat.path)} to unknown path: ${shown(stat.linkname)}`);
		}
		const row = this.#record(name, mode, match);
		this.#describe(row, type, stat, first ?? -1);
		const kept =
			match >= 0 &&
			!this.#options.force &&
			this.#isSame(match, row) &&
			this.#isLinkKept(match, first, stat, row);
		if (type === fileType.file && !isLink) {
			this.#files?.set(stat.path, row);
			if (!kept) {
				this.#written.add(row);
			}
		}
		if (kept) {
			return undefined;
		}
		if (match >= 0 && this.#typeAt(match) === fileType.directory) {
			this.#remove(directory, stat.path);
		}
		this.#touch(directory);
		this.#options.changed(stat.path);
		return this.#write(stat, mode, row, isLink);
	}

	#write(stat: PacketStat, mode: number, row: number, isLink: boolean): PlannedFile | undefined {
		const { path } = stat;
		const metadata = metadataOf(mode, stat);
		if (isLink) {
			this.#links.push({ kind: "link", path, to: stat.linkname });
			return undefined;
		}
		switch (mode & typeMask) {
			case fileType.file:
				return { path, row, size: stat.size, metadata };
			case fileType.symlink:
				if (stat.linkname === "" || stat.linkname.includes("\0")) {
					throw invalid(`symbolic link ${shown(path)} leads nowhere`);
				}
				this.#options.emit({ kind: "symlink", path, to: stat.linkname, metadata });
				return undefined;
			default:
				this.#options.emit({
					kind: "node",
					path,
					node:
						(mode & typeMask) === fileType.fifo
							? "fifo"
							: (mode & typeMask) === fileType.block
								? "block"
								: "character",
					device: makeDevice(stat.devmajor, stat.devminor),
					metadata,
				});
				return undefined;
		}
	}

	/** The directory is left: what it had besides is gone. */
	#leave(): void {
		const directory = this.#stack.pop();
		if (directory === undefined) {
			return;
		}
		const names = this.#previous?.names ?? [];
		while (directory.at < directory.end) {
			this.#remove(directory, joinBytes(directory.path, names[directory.at] ?? ""));
			directory.at = this.#number(directory.at, column.end);
		}
		this.next.rows[directory.row * rowLength + column.end] = this.next.count;
		if (directory.touched && directory.metadata !== undefined) {
			// Deeper ones are left first, and finished first.
			this.#finished.push({
				kind: "finish",
				path: directory.path,
				metadata: directory.metadata,
				isNew: directory.isNew,
			});
		}
	}

	#remove(directory: Directory, path: ByteString): void {
		this.#touch(directory);
		this.#options.emit({ kind: "remove", path });
		this.#options.changed(path);
	}

	#touch(directory: Directory): void {
		directory.touched = true;
		this.#unchanged = false;
	}

	#record(name: ByteString, mode: number, match: number): number {
		const row = this.next.count;
		const at = addRow(this.next, name);
		const { rows } = this.next;
		rows.fill(0, at, at + rowLength);
		rows[at + column.mode] = mode + presentFlag + shownFlag;
		rows[at + column.changed] = Number.NaN;
		rows[at + column.link] = -1;
		rows[at + column.end] = row + 1;
		if (match >= 0) {
			this.#moved[match] = row;
		}
		return row;
	}

	#describe(row: number, type: number, stat: PacketStat, link: number): void {
		const at = row * rowLength;
		const { rows } = this.next;
		this.#setTime(row, stat);
		rows[at + column.size] = stat.size;
		rows[at + column.link] = link;
		if (type === fileType.symlink) {
			rows[at + column.inode] = hashOf(stat.linkname);
		}
		if (type === fileType.character || type === fileType.block) {
			rows[at + column.device] = makeDevice(stat.devmajor, stat.devminor);
			rows[at + column.size] = 0;
		}
		if (link >= 0) {
			// Senders give no size for a second name.
			rows[at + column.size] = rows[link * rowLength + column.size] ?? 0;
		}
	}

	#setTime(row: number, { modTime }: PacketStat): void {
		const at = row * rowLength;
		const modified = timestampOf(modTime);
		// As `fs.Stats` has it.
		this.next.rows[at + column.modified] = modified.seconds * 1000 + modified.nanoseconds / 1_000_000;
		this.next.rows[at + column.inode] = modified.nanoseconds;
	}

	/** What the two rows say by themselves. A state that was read from the target says less, and the target is asked. */
	#isSame(match: number, row: number): boolean {
		const isDirectory = this.#typeAt(match) === fileType.directory;
		const columns = isDirectory ? sameDirectory : sameFile;
		for (const each of columns) {
			if (this.#number(match, each) !== this.next.rows[row * rowLength + each]) {
				return false;
			}
		}
		if ((this.#number(match, column.mode) & plainMode) !== (this.#at(row, column.mode) & plainMode)) {
			return false;
		}
		if (this.#previous?.fromSource === true) {
			return (
				this.#number(match, column.inode) === this.#at(row, column.inode) &&
				this.#number(match, column.device) === this.#at(row, column.device)
			);
		}
		return true;
	}

	#isLinkKept(match: number, first: number | undefined, stat: PacketStat, row: number): boolean {
		const link = this.#number(match, column.link);
		if (
			first === undefined ? link >= 0 : this.#written.has(first) || link < 0 || this.#moved[link] !== first
		) {
			return false;
		}
		return this.#previous?.fromSource === true || this.#isSameInTarget(stat, row);
	}

	/** The files so far, which are no links themselves. */
	#linkable(): Map<ByteString, number> {
		if (this.#files !== undefined) {
			return this.#files;
		}
		const files = new Map<ByteString, number>();
		const open = new Set(this.#stack.map(({ row }) => row));
		const around: { readonly prefix: ByteString; readonly end: number }[] = [];
		for (let row = 0; row < this.next.count; row++) {
			while ((around.at(-1)?.end ?? Number.POSITIVE_INFINITY) <= row) {
				around.pop();
			}
			const path = (around.at(-1)?.prefix ?? "") + (this.next.names[row] ?? "");
			const type = this.#at(row, column.mode) & typeMask;
			if (type === fileType.directory) {
				around.push({
					prefix: path === "" ? "" : `${path}/`,
					end: open.has(row) ? Number.POSITIVE_INFINITY : this.#at(row, column.end),
				});
			} else if (type === fileType.file && this.#at(row, column.link) < 0) {
				files.set(path, row);
			}
		}
		this.#files = files;
		return files;
	}

	#isSameInTarget({ path, linkname }: PacketStat, row: number): boolean {
		const target = fsPath(`${bytesOf(this.#options.target)}/${path}`);
		switch (this.#at(row, column.mode) & typeMask) {
			case fileType.symlink:
				return readlinkSync(target, "latin1") === linkname;
			case fileType.character:
			case fileType.block:
				return lstatSync(target).rdev === this.#at(row, column.device);
			default:
				return true;
		}
	}

	#typeAt(match: number): number {
		return this.#number(match, column.mode) & typeMask;
	}

	#number(row: number, at: number): number {
		return this.#rows[row * rowLength + at] ?? Number.NaN;
	}

	#at(row: number, at: number): number {
		return this.next.rows[row * rowLength + at] ?? Number.NaN;
	}
}

const sameDirectory = [column.modified] as const;
const sameFile = [column.size, column.modified] as const;

function metadataOf(mode: number, { modTime, xattrs }: PacketStat): Metadata {
	return {
		mode: mode & 0o7777,
		modified: timestampOf(modTime),
		...(xattrs.size === 0
			? {}
			: { xattrs: new Map([...xattrs].map(([name, value]) => [name, value.slice()])) }),
	};
}

function attributeBytes(xattrs: ReadonlyMap<string, Uint8Array>): number {
	let sum = 0;
	for (const [name, value] of xattrs) {
		sum += name.length + value.length;
	}
	return sum;
}

/** 52 bits of the text: enough to see that a client changed a link; it could only deceive itself. */
function hashOf(text: ByteString): number {
	let low = 0x811c_9dc5;
	let high = 0x9747_b28c;
	for (let at = 0; at < text.length; at++) {
		const code = text.charCodeAt(at);
		low = Math.imul(low ^ code, 0x0100_0193);
		high = Math.imul(high ^ code, 0x85eb_ca6b);
	}
	return (low >>> 0) + ((high >>> 12) & 0xf_ffff) * 2 ** 32;
}

function shown(path: ByteString): string {
	return JSON.stringify(textOf(path));
}

function shownRaw(path: ByteString): string {
	return path.includes("\0") ? shown(path) : textOf(path);
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
