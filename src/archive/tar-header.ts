import type { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import type { Timestamp } from "../sys/sys.ts";
import type { TarHeader } from "./archive.ts";
import { checksums, type Field, fields, gnuMagic, isValidRecord } from "./tar-format.ts";
import { tarHeader } from "./tar-writer.ts";

/** One header block and PAX records as they stand in an archive, parsed as Go's archive/tar does. */
export interface RawHeader {
	/** Without what PAX records and long names will change. */
	readonly header: TarHeader;
	readonly typeFlag: string;
	/** Bits of the formats that the block can be: 1 ustar, 2 PAX, 4 GNU. */
	readonly formats: number;
	readonly isGnu: boolean;
}

/** Makes the error for a text. */
export type Fail = (text: string) => SlipwayError;

export function parseHeader(block: Buffer, fail: Fail): RawHeader {
	const sums = checksums(block);
	const stored = parseOctal(block, fields.checksum, fail);
	if (stored !== sums.unsigned && stored !== sums.signed) {
		throw fail("checksum is wrong");
	}
	const magic = block.toString("latin1", fields.magic[0], fields.magic[0] + fields.magic[1]);
	const isUstar = magic.startsWith("ustar\0");
	const isStar = isUstar && parseText(block, fields.starTrailer) === "tar";
	const isGnu = magic === gnuMagic;
	const header = {
		name: parseText(block, fields.name),
		linkName: parseText(block, fields.linkName),
		size: parseNumber(block, fields.size, fail),
		mode: parseNumber(block, fields.mode, fail),
		uid: parseNumber(block, fields.uid, fail),
		gid: parseNumber(block, fields.gid, fail),
		modified: atSecond(parseNumber(block, fields.modified, fail)),
	};
	if (header.size < 0) {
		throw fail("size is negative");
	}
	const typeFlag = String.fromCharCode(block[fields.typeFlag[0]] ?? 0);
	if (!isUstar && !isGnu) {
		return { header: tarHeader({ kind: "file", ...header }), typeFlag, formats: 0, isGnu };
	}
	let prefix = "";
	let formats = 0;
	let accessed: Timestamp | undefined;
	let changed: Timestamp | undefined;
	if (isStar) {
		prefix = parseText(block, fields.starPrefix);
		accessed = atSecond(parseNumber(block, fields.starAccessed, fail));
		changed = atSecond(parseNumber(block, fields.starChanged, fail));
	} else if (isUstar) {
		prefix = parseText(block, fields.prefix);
		formats = isStrictUstar(block) ? 3 : 0;
	} else {
		formats = 4;
		try {
			accessed =
				block[fields.gnuAccessed[0]] === 0
					? undefined
					: atSecond(parseNumber(block, fields.gnuAccessed, fail));
			changed =
				block[fields.gnuChanged[0]] === 0 ? undefined : atSecond(parseNumber(block, fields.gnuChanged, fail));
		} catch {
			// Go before 1.8 wrote ustar's prefix into GNU headers, over these fields.
			accessed = changed = undefined;
			const text = parseText(block, fields.prefix);
			prefix = /[^\x01-\x7f]/.test(text) ? "" : text;
			formats = 0;
		}
	}
	return {
		header: tarHeader({
			kind: "file",
			...header,
			name: prefix === "" ? header.name : `${prefix}/${header.name}`,
			userName: parseText(block, fields.userName),
			groupName: parseText(block, fields.groupName),
			deviceMajor: parseNumber(block, fields.deviceMajor, fail),
			deviceMinor: parseNumber(block, fields.deviceMinor, fail),
			accessed,
			changed,
		}),
		typeFlag,
		formats,
		isGnu,
	};
}

/** Only a block that a strict writer made counts as ustar or PAX when it is written again. */
function isStrictUstar(block: Buffer): boolean {
	for (let index = 0; index < block.length; index++) {
		if ((block[index] ?? 0) >= 0x80) {
			return false;
		}
	}
	return strictNumbers.every(([offset, length]) => block[offset + length - 1] === 0);
}

const strictNumbers: readonly Field[] = [
	fields.size,
	fields.mode,
	fields.uid,
	fields.gid,
	fields.modified,
	fields.deviceMajor,
	fields.deviceMinor,
];

export function parseText(block: Buffer, [offset, length]: Field): ByteString {
	let end = offset;
	while (end < offset + length && block[end] !== 0) {
		end++;
	}
	return block.toString("latin1", offset, end);
}

/** Octal, or GNU's base 256 if the top bit is set. */
export function parseNumber(block: Buffer, field: Field, fail: Fail): number {
	const [offset, length] = field;
	const first = block[offset] ?? 0;
	if ((first & 0x80) === 0) {
		return parseOctal(block, field, fail);
	}
	const inverted = (first & 0x40) === 0 ? 0 : 0xff;
	let value = 0;
	for (let index = 0; index < length; index++) {
		const byte = (block[offset + index] ?? 0) ^ inverted;
		value = value * 256 + (index === 0 ? byte & 0x7f : byte);
	}
	if (!Number.isSafeInteger(value)) {
		throw fail("number is too large");
	}
	return inverted === 0 ? value : -1 - value;
}

function parseOctal(block: Buffer, [offset, length]: Field, fail: Fail): number {
	let start = offset;
	let end = offset + length;
	while (start < end && isBlank(block[start])) {
		start++;
	}
	while (end > start && isBlank(block[end - 1])) {
		end--;
	}
	let value = 0;
	for (let index = start; index < end; index++) {
		const byte = block[index] ?? 0;
		if (byte === 0) {
			break;
		}
		if (byte < 0x30 || byte > 0x37) {
			throw fail("a number has a character that is no octal digit");
		}
		value = value * 8 + (byte - 0x30);
	}
	return value;
}

function isBlank(byte: number | undefined): boolean {
	return byte === 0 || byte === 0x20;
}

/** PAX records, `length key=value` and a newline each. Offsets and sizes of sparse format 0.0, repeated keys, become one map as in 0.1. */
export function parseRecords(content: Buffer, fail: Fail): ReadonlyMap<ByteString, ByteString> {
	const records = new Map<ByteString, ByteString>();
	const sparse: string[] = [];
	for (let at = 0; at < content.length; ) {
		const space = content.indexOf(0x20, at);
		const digits = space < 0 ? "" : content.toString("latin1", at, space);
		const length = /^\+?\d{1,9}$/.test(digits) ? Number(digits) : 0;
		const end = at + length;
		if (length < 5 || end > content.length || end <= space + 1 || content[end - 1] !== 0x0a) {
			throw fail("PAX record is malformed");
		}
		const record = content.toString("latin1", space + 1, end - 1);
		const equals = record.indexOf("=");
		const key = record.slice(0, Math.max(equals, 0));
		const value = record.slice(equals + 1);
		if (equals < 0 || !isValidRecord(key, value)) {
			throw fail("PAX record is malformed");
		}
		if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
			const expected = sparse.length % 2 === 0 ? "GNU.sparse.offset" : "GNU.sparse.numbytes";
			if (key !== expected || value.includes(",")) {
				throw fail("PAX records of a sparse map are out of order");
			}
			sparse.push(value);
		} else {
			records.set(key, value);
		}
		at = end;
	}
	if (sparse.length > 0) {
		records.set("GNU.sparse.map", sparse.join(","));
	}
	return records;
}

/** The header with what its PAX records say instead. An empty record keeps the header's value. */
export function withRecords(
	header: TarHeader,
	records: ReadonlyMap<ByteString, ByteString> | undefined,
	fail: Fail,
): TarHeader {
	if (records === undefined) {
		return header;
	}
	const text = (key: string, value: ByteString): ByteString => records.get(key) || value;
	const number = (key: string, value: number): number => {
		const found = records.get(key);
		return found === undefined || found === "" ? value : parseDecimal(found, fail);
	};
	const time = <T extends Timestamp | undefined>(key: string, value: T): T | Timestamp => {
		const found = records.get(key);
		return found === undefined || found === "" ? value : parseTime(found, fail);
	};
	const size = number("size", header.size);
	if (size < 0) {
		throw fail("size is negative");
	}
	return {
		...header,
		name: text("path", header.name),
		linkName: text("linkpath", header.linkName),
		userName: text("uname", header.userName),
		groupName: text("gname", header.groupName),
		uid: number("uid", header.uid),
		gid: number("gid", header.gid),
		size,
		modified: time("mtime", header.modified),
		accessed: time("atime", header.accessed),
		changed: time("ctime", header.changed),
		records,
	};
}

export function parseDecimal(text: string, fail: Fail): number {
	const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
	if (!Number.isSafeInteger(value)) {
		throw fail(`${JSON.stringify(text)} is not a number`);
	}
	return value;
}

/** Seconds with a fraction, of which nine digits count. A negative time's fraction counts down. */
function parseTime(text: string, fail: Fail): Timestamp {
	const match = /^([+-]?\d+)(?:\.(\d*))?$/.exec(text);
	if (match === null) {
		throw fail(`${JSON.stringify(text)} is not a time`);
	}
	const [, whole = "", fraction = ""] = match;
	const seconds = parseDecimal(whole, fail);
	const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, "0"));
	if (!whole.startsWith("-") || nanoseconds === 0) {
		return { seconds: seconds + 0, nanoseconds };
	}
	return { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}

function atSecond(seconds: number): Timestamp {
	return { seconds, nanoseconds: 0 };
}
