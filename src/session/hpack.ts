import { SlipwayError } from "../errors/errors.ts";

/**
 * Headers of HTTP/2 (RFC 7541) without a dynamic table: we announce a table of size 0, so that the other side cannot refer to one, and
 * send every field in full.
 */

/** Name and value in turn, as `metadataOf` (api/metadata.ts) takes them. */
export function decodeHeaders(block: Uint8Array): string[] {
	const fields: string[] = [];
	const reader = { block, at: 0 };
	while (reader.at < block.length) {
		const first = block[reader.at] ?? 0;
		if (first >= 0x80) {
			const [name, value] = staticField(readInteger(reader, 7));
			fields.push(name, value);
		} else if (first >= 0x40 || first < 0x20) {
			const index = readInteger(reader, first >= 0x40 ? 6 : 4);
			const name = index === 0 ? readText(reader) : staticField(index)[0];
			fields.push(name, readText(reader));
		} else if (readInteger(reader, 5) !== 0) {
			throw malformed("a table larger than was allowed");
		}
	}
	return fields;
}

/** Fields in their order, each as a literal that is in no table. */
export function encodeHeaders(fields: Readonly<Record<string, string | readonly string[]>>): Uint8Array {
	const parts: Uint8Array[] = [];
	for (const [name, values] of Object.entries(fields)) {
		for (const value of typeof values === "string" ? [values] : values) {
			parts.push(Uint8Array.of(0), ...textParts(name), ...textParts(value));
		}
	}
	return Buffer.concat(parts);
}

interface Reader {
	readonly block: Uint8Array;
	at: number;
}

/** Section 5.1. */
function readInteger(reader: Reader, prefixBits: number): number {
	const mask = (1 << prefixBits) - 1;
	const first = reader.block[reader.at++];
	if (first === undefined) {
		throw malformed("it is cut off");
	}
	let value = first & mask;
	if (value < mask) {
		return value;
	}
	for (let shift = 0; shift <= 21; shift += 7) {
		const byte = reader.block[reader.at++];
		if (byte === undefined) {
			throw malformed("it is cut off");
		}
		value += (byte & 0x7f) * 2 ** shift;
		if (byte < 0x80) {
			return value;
		}
	}
	throw malformed("a number is too large");
}

/** Section 5.2. */
function readText(reader: Reader): string {
	const isCoded = ((reader.block[reader.at] ?? 0) & 0x80) !== 0;
	const length = readInteger(reader, 7);
	const bytes = reader.block.subarray(reader.at, reader.at + length);
	if (bytes.length !== length) {
		throw malformed("it is cut off");
	}
	reader.at += length;
	return isCoded ? decodeHuffman(bytes) : Buffer.from(bytes).toString("latin1");
}

function textParts(text: string): readonly [Uint8Array, Uint8Array] {
	const bytes = Buffer.from(text, "latin1");
	return [integer(bytes.length, 7), bytes];
}

function integer(value: number, prefixBits: number): Uint8Array {
	const mask = (1 << prefixBits) - 1;
	if (value < mask) {
		return Uint8Array.of(value);
	}
	const bytes = [mask];
	let rest = value - mask;
	for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) {
		bytes.push((rest % 0x80) | 0x80);
	}
	bytes.push(rest);
	return Uint8Array.from(bytes);
}

/**
 * Appendix B: the code is canonical, so that the lengths of its codes say all. One letter for each byte, `A` for 5 bits, `B` for 6, ….
 */
const codeLengths: string =
	"ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHF" +
	"IBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIX" +
	"PRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRS" +
	"VVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWV";

/** By length, the first code and the bytes in the order of their codes. */
interface CodeGroup {
	readonly first: number;
	readonly bytes: readonly number[];
}

let groups: ReadonlyMap<number, CodeGroup> | undefined;

function codeGroups(): ReadonlyMap<number, CodeGroup> {
	const made = new Map<number, CodeGroup>();
	let code = 0;
	for (let length = 5; length <= 30; length++) {
		const bytes = [...codeLengths].flatMap((letter, byte) =>
			letter.charCodeAt(0) - 60 === length ? [byte] : [],
		);
		code *= 2;
		made.set(length, { first: code, bytes });
		code += bytes.length;
	}
	return made;
}

function decodeHuffman(bytes: Uint8Array): string {
	groups ??= codeGroups();
	const text: number[] = [];
	let code = 0;
	let length = 0;
	for (const byte of bytes) {
		for (let bit = 7; bit >= 0; bit--) {
			code = code * 2 + ((byte >> bit) & 1);
			length += 1;
			const group = groups.get(length);
			const found = group?.bytes[code - group.first];
			if (found !== undefined) {
				text.push(found);
				code = 0;
				length = 0;
			} else if (length > 30) {
				throw malformed("a code that is none");
			}
		}
	}
	// What is left are the first bits of a code of ones.
	if (length > 7 || code !== 2 ** length - 1) {
		throw malformed("its padding is wrong");
	}
	return Buffer.from(text).toString("latin1");
}

function staticField(index: number): readonly [string, string] {
	const field = staticTable[index - 1];
	if (field === undefined) {
		throw malformed(`it refers to field ${index}`);
	}
	return typeof field === "string" ? [field, ""] : field;
}

/** Appendix A. */
const staticTable: readonly (string | readonly [string, string])[] = [
	":authority",
	[":method", "GET"],
	[":method", "POST"],
	[":path", "/"],
	[":path", "/index.html"],
	[":scheme", "http"],
	[":scheme", "https"],
	...["200", "204", "206", "304", "400", "404", "500"].map((code) => [":status", code] as const),
	"accept-charset",
	["accept-encoding", "gzip, deflate"],
	..."accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control".split(
		" ",
	),
	..."content-disposition content-encoding content-language content-length content-location content-range".split(
		" ",
	),
	..."content-type cookie date etag expect expires from host if-match if-modified-since if-none-match".split(
		" ",
	),
	..."if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate".split(" "),
	..."proxy-authorization range referer refresh retry-after server set-cookie strict-transport-security".split(
		" ",
	),
	..."transfer-encoding user-agent vary via www-authenticate".split(" "),
];

function malformed(why: string): SlipwayError {
	return new SlipwayError("internal", `malformed headers: ${why}`);
}
