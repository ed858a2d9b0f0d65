import { isAscii } from "node:buffer";
import type { ByteString } from "../sys/byte-names.ts";

/**
 * What a synced directory holds and which files of the source it was made from: entries in the order of the walk
 * (directories before their contents, names of one directory in byte order), the root as entry 0 with an empty name.
 * One flat array of numbers, because there is one row per file, and building or reading 50,000 objects would cost more than
 * looking at the files.
 */
export interface TreeState {
	readonly count: number;
	readonly names: readonly ByteString[];
	/** No name has a byte above 127. */
	readonly ascii: boolean;
	/** `rowLength` numbers per entry, at the offsets in `column`. */
	readonly rows: Float64Array;
	/** Patterns that the tree was seen through; entries that they hide have no row. */
	readonly filterKey: string;
	/**
	 * False: the rows were read from the target, not from the source, so that device, inode and change time mean nothing
	 * and equal metadata is all that can be asked for.
	 */
	readonly fromSource: boolean;
}

/** Numbers of one row. Times are milliseconds with fractions, as `fs.Stats` has them. */
export const column = {
	/** Type and permissions, and the flags. */
	mode: 0,
	size: 1,
	modified: 2,
	/** NaN, which equals nothing, if the entry may have changed after it was looked at. */
	changed: 3,
	device: 4,
	inode: 5,
	/** Row of the file that this one is another name of, or -1. */
	link: 6,
	/** Row behind the last entry below this one. */
	end: 7,
} as const;

export const rowLength = 8;

/** In the mode of entries that the target has. Without it: a directory that was only searched. */
export const presentFlag = 0x10000;
/** In the mode of entries that the patterns show by themselves. Without it: a directory around such entries. */
export const shownFlag = 0x20000;
/** The mode without flags. */
export const plainMode = 0xffff;

export const permissionMask = 0o7777;
export const typeMask = 0o170000;
export const fileType = {
	file: 0o100000,
	directory: 0o040000,
	symlink: 0o120000,
	character: 0o020000,
	block: 0o060000,
	fifo: 0o010000,
	socket: 0o140000,
} as const;

/** Rows that grow. */
export interface TreeStateBuilder {
	count: number;
	names: ByteString[];
	rows: Float64Array;
}

export function createTreeStateBuilder(expected: number): TreeStateBuilder {
	return { count: 0, names: [], rows: new Float64Array(Math.max(64, expected + 16) * rowLength) };
}

/** Adds a row of zeros and gives the offset of its numbers. */
export function addRow(builder: TreeStateBuilder, name: ByteString): number {
	const at = builder.count * rowLength;
	if (at === builder.rows.length) {
		const grown = new Float64Array(builder.rows.length * 2);
		grown.set(builder.rows);
		builder.rows = grown;
	}
	builder.count += 1;
	builder.names.push(name);
	return at;
}

/** Changes with the layout; a state of another version is no state. */
const magic = 0x51_1b_00_01;
const headerLength = 4;

/** Header (magic, rows, bytes of key, bytes of names), rows, key, names; in this machine's byte order, for nobody else. */
export function encodeTreeState(builder: TreeStateBuilder, filterKey: string): Uint8Array {
	const key = Buffer.from(filterKey, "utf8");
	const names = Buffer.from(builder.names.join("/"), "latin1");
	const numbers = builder.count * rowLength;
	const bytes = new Uint8Array((headerLength + numbers) * 8 + key.length + names.length);
	const view = new Float64Array(bytes.buffer, 0, headerLength + numbers);
	view.set([magic, builder.count, key.length, names.length]);
	view.set(builder.rows.subarray(0, numbers), headerLength);
	bytes.set(key, view.byteLength);
	bytes.set(names, view.byteLength + key.length);
	return bytes;
}

/** Undefined for anything that `encodeTreeState` of this version did not write. */
export function decodeTreeState(bytes: Uint8Array): TreeState | undefined {
	const aligned = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
	if (aligned.length < headerLength * 8) {
		return undefined;
	}
	const [found, count, keyLength, namesLength] = new Float64Array(
		aligned.buffer,
		aligned.byteOffset,
		headerLength,
	);
	if (found !== magic || count === undefined || keyLength === undefined || namesLength === undefined) {
		return undefined;
	}
	const rowsStart = headerLength * 8;
	const keyStart = rowsStart + count * rowLength * 8;
	const namesStart = keyStart + keyLength;
	if (!(count >= 1) || aligned.length !== namesStart + namesLength) {
		return undefined;
	}
	const text = Buffer.from(aligned.buffer, aligned.byteOffset, aligned.length);
	const names = text.toString("latin1", namesStart).split("/");
	if (names.length !== count) {
		return undefined;
	}
	return {
		count,
		names,
		ascii: isAscii(aligned.subarray(namesStart)),
		rows: new Float64Array(aligned.buffer, aligned.byteOffset + rowsStart, count * rowLength),
		filterKey: text.toString("utf8", keyStart, namesStart),
		fromSource: true,
	};
}
