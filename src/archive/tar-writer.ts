import { SlipwayError } from "../errors/errors.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { textOf } from "../sys/byte-names.ts";
import type { Timestamp } from "../sys/sys.ts";
import type { TarFormat, TarHeader } from "./archive.ts";
import { splitPath } from "./names.ts";
import {
	basicRecords,
	blockBytes,
	checksums,
	type Field,
	fields,
	gnuMagic,
	gnuSparsePrefix,
	isValidRecord,
	maxSpecialBytes,
	paddingOf,
	typeFlags,
	ustarMagic,
} from "./tar-format.ts";

/**
 * Tar headers, byte for byte as Go's archive/tar writes them: which of ustar, PAX and GNU a header gets, which records a
 * PAX header has and in what order, how names are shortened. Layers' digests depend on all of it.
 */

/** Two empty blocks end an archive. */
export const endOfArchive: Uint8Array = new Uint8Array(2 * blockBytes);

type RealFormat = Exclude<TarFormat, "unknown">;

interface Plan {
	readonly format: RealFormat;
	readonly records: ReadonlyMap<ByteString, ByteString>;
}

const epoch: Timestamp = { seconds: 0, nanoseconds: 0 };

/** A header with nothing in it; give what differs. */
export function tarHeader(header: Partial<TarHeader> & Pick<TarHeader, "kind" | "name">): TarHeader {
	return {
		linkName: "",
		size: 0,
		mode: 0,
		uid: 0,
		gid: 0,
		userName: "",
		groupName: "",
		modified: epoch,
		accessed: undefined,
		changed: undefined,
		deviceMajor: 0,
		deviceMinor: 0,
		records: noRecords,
		format: "unknown",
		...header,
	};
}

const noRecords: ReadonlyMap<ByteString, ByteString> = new Map();

/** The blocks that come before an entry's content, with those of its PAX records or long names. */
export function encodeHeader(header: TarHeader): Uint8Array {
	const simple = header.format === "unknown" ? withRoundedTimes(header) : header;
	const plan = planHeader(simple);
	switch (plan.format) {
		case "ustar":
			return ustarBlock(simple);
		case "pax":
			return paxBlocks(simple, plan.records);
		case "gnu":
			return gnuBlocks(simple);
	}
}

/** Without a wish for a format, times that need one are given up, or every entry would cost two more blocks. */
function withRoundedTimes(header: TarHeader): TarHeader {
	const { seconds, nanoseconds } = header.modified;
	if (nanoseconds === 0 && header.accessed === undefined && header.changed === undefined) {
		return header;
	}
	return {
		...header,
		modified: { seconds: nanoseconds >= 500_000_000 ? seconds + 1 : seconds, nanoseconds: 0 },
		accessed: undefined,
		changed: undefined,
	};
}

/** Which formats can say all of the header, and the records that PAX needs for it. */
function planHeader(header: TarHeader): Plan {
	const reasons: Record<RealFormat, string | undefined> = {
		ustar: undefined,
		pax: undefined,
		gnu: undefined,
	};
	const records = new Map<ByteString, ByteString>();
	let prefersPax = false;

	const keep = (key: string | undefined, value: string): void => {
		if (key !== undefined && header.records.get(key) === value) {
			records.set(key, value);
		}
	};
	const text = (value: string, length: number, what: string, key: string): void => {
		const tooLong = value.length > length;
		if (value.includes("\0") || (tooLong && key !== "path" && key !== "linkpath")) {
			reasons.gnu = what;
		}
		if (tooLong || !isAscii(value)) {
			if (key !== "path" || splitName(value) === undefined) {
				reasons.ustar = what;
			}
			records.set(key, value);
		}
		keep(key, value);
	};
	const number = (value: number, length: number, what: string, key: string | undefined): void => {
		if (!fitsBinary(length, value)) {
			reasons.gnu = what;
		}
		if (!fitsOctal(length, value)) {
			reasons.ustar = what;
			if (key === undefined) {
				reasons.pax = what;
			} else {
				records.set(key, String(value));
			}
		}
		keep(key, String(value));
	};
	const time = (value: Timestamp | undefined, what: string, key: string): void => {
		if (value === undefined) {
			return;
		}
		const isModified = key === "mtime";
		const fits = fitsOctal(12, value.seconds);
		if (!isModified || !fits) {
			reasons.ustar = what;
		}
		if (!isModified || !fits || value.nanoseconds !== 0) {
			prefersPax = true;
			records.set(key, formatTime(value));
		}
		keep(key, formatTime(value));
	};

	text(header.name, 100, "name", "path");
	text(header.linkName, 100, "link name", "linkpath");
	text(header.userName, 32, "user name", "uname");
	text(header.groupName, 32, "group name", "gname");
	number(header.mode, 8, "mode", undefined);
	number(header.uid, 8, "user id", "uid");
	number(header.gid, 8, "group id", "gid");
	number(header.size, 12, "size", "size");
	number(header.deviceMajor, 8, "major device number", undefined);
	number(header.deviceMinor, 8, "minor device number", undefined);
	time(header.modified, "time of modification", "mtime");
	time(header.accessed, "time of access", "atime");
	time(header.changed, "time of change", "ctime");

	if (header.name.endsWith("/") && slashless.has(header.kind)) {
		throw invalid(header, "name of what is no directory ends in a slash");
	}
	if (header.kind === "global" || header.records.size > 0) {
		reasons.ustar = reasons.gnu = "PAX records";
		for (const [key, value] of header.records) {
			const isOurs = header.kind === "global" || !(basicRecords.has(key) || key.startsWith(gnuSparsePrefix));
			if (isOurs && !records.has(key)) {
				records.set(key, value);
			}
		}
	}
	for (const [key, value] of records) {
		if (!isValidRecord(key, value)) {
			throw invalid(header, `PAX record ${JSON.stringify(textOf(key))} is invalid`);
		}
	}
	// PAX with nothing to say is ustar, which is its subset.
	const wanted: readonly RealFormat[] =
		header.format === "unknown"
			? ["ustar", "pax", "gnu"]
			: header.format === "pax" && !prefersPax
				? ["ustar", "pax"]
				: [header.format];
	const format = wanted.find((each) => reasons[each] === undefined);
	if (format === undefined) {
		const [first = "ustar"] = wanted;
		throw invalid(header, `${reasons[first]} cannot be written in format ${wanted.join(", ")}`);
	}
	return { format, records };
}

/** Kinds whose name may not end in a slash; a link may point to a directory. */
const slashless: ReadonlySet<TarHeader["kind"]> = new Set([
	"file",
	"character-device",
	"block-device",
	"fifo",
]);

function invalid(header: TarHeader, text: string): SlipwayError {
	return new SlipwayError("invalid-argument", `tar entry ${JSON.stringify(textOf(header.name))}: ${text}`);
}

function ustarBlock(header: TarHeader): Uint8Array {
	const split = splitName(header.name);
	const block = newBlock(header, split?.[1] ?? header.name, putOctal);
	if (split !== undefined) {
		putText(block, fields.prefix, split[0]);
	}
	return finish(block, ustarMagic);
}

function paxBlocks(header: TarHeader, records: ReadonlyMap<ByteString, ByteString>): Uint8Array {
	const parts: Uint8Array[] = [];
	const isGlobal = header.kind === "global";
	if (records.size > 0 || isGlobal) {
		const data = [...records]
			.sort(([one], [other]) => (one < other ? -1 : 1))
			.map(([key, value]) => formatRecord(key, value))
			.join("");
		if (data.length > maxSpecialBytes) {
			throw invalid(header, `PAX records of ${data.length} bytes, limit is ${maxSpecialBytes}`);
		}
		const [folder, name] = splitPath(header.name);
		const recordsName = isGlobal
			? header.name === ""
				? "GlobalHead.0.0"
				: header.name
			: cleanPath(`${folder}PaxHeaders.0/${name}`);
		parts.push(specialFile(recordsName, data, isGlobal ? "g" : "x", ustarMagic));
	}
	if (!isGlobal) {
		const plain = {
			...header,
			name: onlyAscii(header.name),
			linkName: onlyAscii(header.linkName),
			userName: onlyAscii(header.userName),
			groupName: onlyAscii(header.groupName),
		};
		parts.push(finish(newBlock(plain, plain.name, putOctal), ustarMagic));
	}
	return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
}

function gnuBlocks(header: TarHeader): Uint8Array {
	const parts: Uint8Array[] = [];
	for (const [value, flag] of [
		[header.name, "L"],
		[header.linkName, "K"],
	] as const) {
		if (value.length > 100) {
			parts.push(specialFile("././@LongLink", `${value}\0`, flag, gnuMagic));
		}
	}
	const block = newBlock(header, header.name, putNumber);
	if (header.accessed !== undefined) {
		putNumber(block, fields.gnuAccessed, header.accessed.seconds);
	}
	if (header.changed !== undefined) {
		putNumber(block, fields.gnuChanged, header.changed.seconds);
	}
	parts.push(finish(block, gnuMagic));
	return Buffer.concat(parts);
}
type PutNumber = (block: Buffer, field: Field, value: number) => void;

function newBlock(header: TarHeader, name: string, put: PutNumber): Buffer {
	const block = Buffer.alloc(blockBytes);
	block.write(typeFlags[header.kind], fields.typeFlag[0], "latin1");
	putText(block, fields.name, name);
	putText(block, fields.linkName, header.linkName);
	put(block, fields.mode, header.mode);
	put(block, fields.uid, header.uid);
	put(block, fields.gid, header.gid);
	put(block, fields.size, header.size);
	put(block, fields.modified, header.modified.seconds);
	putText(block, fields.userName, header.userName);
	putText(block, fields.groupName, header.groupName);
	put(block, fields.deviceMajor, header.deviceMajor);
	put(block, fields.deviceMinor, header.deviceMinor);
	return block;
}

/** An entry whose content is about the next entry. */
function specialFile(name: string, data: ByteString, flag: string, magic: string): Uint8Array {
	const block = Buffer.alloc(blockBytes + data.length + paddingOf(data.length));
	block.write(flag, fields.typeFlag[0], "latin1");
	putText(block, fields.name, onlyAscii(name).slice(0, 100).replace(/\/+$/, ""));
	putOctal(block, fields.mode, 0);
	putOctal(block, fields.uid, 0);
	putOctal(block, fields.gid, 0);
	putOctal(block, fields.size, data.length);
	putOctal(block, fields.modified, 0);
	block.write(data, blockBytes, "latin1");
	return finish(block, magic);
}

function finish(block: Buffer, magic: string): Uint8Array {
	block.write(magic, fields.magic[0], "latin1");
	const sum = checksums(block).unsigned;
	block.write(`${sum.toString(8).padStart(6, "0")}\0 `, fields.checksum[0], "latin1");
	return block;
}

/**
 * The text, with a NUL behind it if there is room. A cut that happens to end in a slash would make old readers see a
 * directory, so the slashes go.
 */
function putText(block: Buffer, [offset, length]: Field, text: string): void {
	block.write(text.slice(0, length), offset, "latin1");
	if (text.length > length && text[length - 1] === "/") {
		const kept = text.slice(0, length - 1).replace(/\/+$/, "").length;
		block[offset + kept] = 0;
	}
}

/** Octal digits with leading zeros and a NUL; a number that does not fit is written as 0, because a record has it. */
function putOctal(block: Buffer, [offset, length]: Field, value: number): void {
	const digits = (fitsOctal(length, value) ? value : 0).toString(8).padStart(length - 1, "0");
	block.write(digits, offset, "latin1");
}

/** Octal, or GNU's base 256: two's complement, big-endian, top bit set. */
function putNumber(block: Buffer, field: Field, value: number): void {
	if (fitsOctal(field[1], value)) {
		putOctal(block, field, value);
		return;
	}
	let rest = BigInt(value);
	for (let index = field[1] - 1; index >= 0; index--) {
		block[field[0] + index] = Number(rest & 0xffn);
		rest >>= 8n;
	}
	block[field[0]] = (block[field[0]] ?? 0) | 0x80;
}

function fitsOctal(length: number, value: number): boolean {
	return value >= 0 && value < 8 ** (length - 1);
}

function fitsBinary(length: number, value: number): boolean {
	const bound = 256 ** (length - 1);
	return length >= 9 || (value >= -bound && value < bound);
}

/** Splits a long name at a slash for ustar's two fields, as late as possible. */
function splitName(name: ByteString): readonly [prefix: ByteString, name: ByteString] | undefined {
	if (name.length <= 100 || !isAscii(name)) {
		return undefined;
	}
	const searched = name.length > 156 ? 156 : name.endsWith("/") ? name.length - 1 : name.length;
	const slash = name.lastIndexOf("/", searched - 1);
	const rest = name.length - slash - 1;
	return slash <= 0 || rest > 100 || rest === 0 || slash > 155
		? undefined
		: [name.slice(0, slash), name.slice(slash + 1)];
}

/** The record's length counts its own digits. */
function formatRecord(key: ByteString, value: ByteString): ByteString {
	const bytes = key.length + value.length + 3;
	let length = bytes + String(bytes).length;
	if (bytes + String(length).length !== length) {
		length = bytes + String(length).length;
	}
	return `${length} ${key}=${value}\n`;
}

/** Decimal seconds; before 1970 the fraction counts away from zero, as the sign stands for both. */
function formatTime({ seconds, nanoseconds }: Timestamp): string {
	if (nanoseconds === 0) {
		return String(seconds);
	}
	const negative = seconds < 0;
	const whole = negative ? -(seconds + 1) : seconds;
	const fraction = negative ? 1_000_000_000 - nanoseconds : nanoseconds;
	return `${negative ? "-" : ""}${whole}.${String(fraction).padStart(9, "0").replace(/0+$/, "")}`;
}

function isAscii(text: ByteString): boolean {
	return !/[^\x01-\x7f]/.test(text);
}

function onlyAscii(text: ByteString): ByteString {
	return text.replace(/[^\x01-\x7f]/g, "");
}

/** One entry of an archive: header, content, padding. A content that is not as long as the header says is an error. */
export async function* tarEntry(
	header: TarHeader,
	content: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = [],
): AsyncGenerator<Uint8Array, void> {
	yield encodeHeader(header);
	let bytes = 0;
	for await (const chunk of content) {
		bytes += chunk.length;
		if (bytes > header.size) {
			break;
		}
		yield chunk;
	}
	if (bytes !== header.size) {
		throw invalid(
			header,
			`content has ${bytes > header.size ? "more than " : ""}${Math.min(bytes, header.size)} bytes, header says ${header.size}`,
		);
	}
	const padding = paddingOf(header.size);
	if (padding > 0) {
		yield new Uint8Array(padding);
	}
}
