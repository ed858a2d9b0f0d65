import type { TarHeader } from "./archive.ts";
import { blockBytes, maxSpecialBytes } from "./tar-format.ts";
import { type Fail, parseDecimal, parseNumber } from "./tar-header.ts";

/**
 * Sparse files: only pieces with data are stored, and a map says where they belong. GNU tar manual, "Storing Sparse
 * Files": the old format with the map in header blocks, and PAX formats 0.0, 0.1 (in records) and 1.0 (in the content).
 */
export type SparseMap = { readonly offset: number; readonly length: number }[];

const entryBytes = 24;

/**
 * Adds the entries of a block of the old format to the map: four in the header itself, 21 in each block after it. True if
 * another block follows.
 */
export function sparseExtension(block: Buffer, map: SparseMap, fail: Fail, start = 0, entries = 21): boolean {
	for (let index = 0; index < entries; index++) {
		const at = start + index * entryBytes;
		if (block[at] === 0) {
			break;
		}
		map.push({ offset: parseNumber(block, [at, 12], fail), length: parseNumber(block, [at + 12, 12], fail) });
	}
	if (map.length * entryBytes > maxSpecialBytes) {
		throw fail("sparse map is too long");
	}
	return block[start + entries * entryBytes] !== 0;
}

/** The map of a file with records of sparse files; without a map if that stands in the content, `undefined` if it is no sparse file. */
export function readSparseRecords(
	header: TarHeader,
	fail: Fail,
): { readonly header: TarHeader; readonly map: SparseMap | undefined } | undefined {
	const { records } = header;
	const major = records.get("GNU.sparse.major") ?? "";
	const minor = records.get("GNU.sparse.minor") ?? "";
	const inContent = major === "1" && minor === "0";
	const inRecords =
		(major === "0" && (minor === "0" || minor === "1")) ||
		(major === "" && minor === "" && (records.get("GNU.sparse.map") ?? "") !== "");
	if (!inContent && !inRecords) {
		return undefined;
	}
	const size = records.get("GNU.sparse.size") || records.get("GNU.sparse.realsize") || "";
	const named = {
		...header,
		name: records.get("GNU.sparse.name") || header.name,
		size: size === "" ? header.size : parseDecimal(size, fail),
	};
	if (inContent) {
		return { header: named, map: undefined };
	}
	const numbers = (records.get("GNU.sparse.map") ?? "").split(",").filter((text) => text !== "");
	if (numbers.length !== 2 * parseDecimal(records.get("GNU.sparse.numblocks") ?? "", fail)) {
		throw fail("sparse map has not as many pieces as it says");
	}
	return { header: named, map: toMap(numbers, fail) };
}

/** The map at the start of the content: lines of decimal numbers, the number of pieces first, padded to a block. */
export class SparseText {
	#text = "";

	/** The map, once it is whole. */
	add(block: Buffer, fail: Fail): SparseMap | undefined {
		this.#text += block.toString("latin1", 0, blockBytes);
		if (this.#text.length > maxSpecialBytes) {
			throw fail("sparse map is too long");
		}
		const lines = this.#text.split("\n");
		const [first = ""] = lines;
		if (lines.length < 2) {
			return undefined;
		}
		const pieces = parseDecimal(first, fail);
		if (pieces < 0 || pieces > maxSpecialBytes) {
			throw fail("sparse map has an impossible number of pieces");
		}
		return lines.length < 2 * pieces + 2 ? undefined : toMap(lines.slice(1, 2 * pieces + 1), fail);
	}
}

function toMap(numbers: readonly string[], fail: Fail): SparseMap {
	const map: SparseMap = [];
	for (let index = 0; index + 1 < numbers.length; index += 2) {
		map.push({
			offset: parseDecimal(numbers[index] ?? "", fail),
			length: parseDecimal(numbers[index + 1] ?? "", fail),
		});
	}
	return map;
}

/** Pieces are in order, do not overlap, end within the file, and the archive stores as many bytes as they need. */
export function validateSparse(map: SparseMap, size: number, stored: number, fail: Fail): void {
	let end = 0;
	let data = 0;
	for (const { offset, length } of map) {
		if (offset < end || length < 0 || offset + length > size) {
			throw fail("sparse map is out of order or exceeds its file");
		}
		end = offset + length;
		data += length;
	}
	if (size < 0 || data > stored) {
		throw fail("sparse map wants more bytes than are stored");
	}
}
