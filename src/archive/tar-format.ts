import type { TarEntryKind } from "./archive.ts";

/** What reader and writer of tar share. POSIX pax(1), "ustar Interchange Format"; GNU tar manual, "Basic Tar Format". */

export const blockBytes = 512;

/** Largest PAX header, long name or sparse map that is read or written; Go's limit too. */
export const maxSpecialBytes: number = 1 << 20;

export const typeFlags: Readonly<Record<TarEntryKind, string>> = {
	file: "0",
	hardlink: "1",
	symlink: "2",
	"character-device": "3",
	"block-device": "4",
	directory: "5",
	fifo: "6",
	global: "g",
};

/** Where a field of a header block is. */
export type Field = readonly [offset: number, length: number];

type FieldName =
	| "name"
	| "mode"
	| "uid"
	| "gid"
	| "size"
	| "modified"
	| "checksum"
	| "typeFlag"
	| "linkName"
	| "magic"
	| "userName"
	| "groupName"
	| "deviceMajor"
	| "deviceMinor"
	| "prefix"
	| "starPrefix"
	| "starAccessed"
	| "starChanged"
	| "starTrailer"
	| "gnuAccessed"
	| "gnuChanged"
	| "gnuSparse"
	| "gnuRealSize";

export const fields: Readonly<Record<FieldName, Field>> = {
	name: [0, 100],
	mode: [100, 8],
	uid: [108, 8],
	gid: [116, 8],
	size: [124, 12],
	modified: [136, 12],
	checksum: [148, 8],
	typeFlag: [156, 1],
	linkName: [157, 100],
	magic: [257, 8],
	userName: [265, 32],
	groupName: [297, 32],
	deviceMajor: [329, 8],
	deviceMinor: [337, 8],
	prefix: [345, 155],
	starPrefix: [345, 131],
	starAccessed: [476, 12],
	starChanged: [488, 12],
	starTrailer: [508, 4],
	gnuAccessed: [345, 12],
	gnuChanged: [357, 12],
	gnuSparse: [386, 97],
	gnuRealSize: [483, 12],
};

export const ustarMagic = "ustar\x0000";
export const gnuMagic = "ustar  \0";

/** PAX records that say what a header field says. */
export const basicRecords: ReadonlySet<string> = new Set([
	"path",
	"linkpath",
	"size",
	"uid",
	"gid",
	"uname",
	"gname",
	"mtime",
	"atime",
	"ctime",
]);

export const schilyXattr = "SCHILY.xattr.";
export const libarchiveXattr = "LIBARCHIVE.xattr.";
export const gnuSparsePrefix = "GNU.sparse.";

/** Text fields may not hold a NUL; binary values, such as those of attributes, may. */
export function isValidRecord(key: string, value: string): boolean {
	if (key === "" || key.includes("=")) {
		return false;
	}
	const isText = key === "path" || key === "linkpath" || key === "uname" || key === "gname";
	return !(isText ? value : key).includes("\0");
}

/** Zeros from the end of `size` bytes to the next block. */
export function paddingOf(size: number): number {
	return (blockBytes - (size % blockBytes)) % blockBytes;
}

/** Sum of the bytes with the checksum field as spaces. Some old writers added them as signed. */
export function checksums(block: Uint8Array): { readonly unsigned: number; readonly signed: number } {
	let unsigned = 0;
	let negative = 0;
	for (let index = 0; index < blockBytes; index++) {
		const byte = index >= 148 && index < 156 ? 32 : (block[index] ?? 0);
		unsigned += byte;
		negative += byte >> 7;
	}
	return { unsigned, signed: unsigned - 256 * negative };
}
