import type { PacketStat } from "./packet.ts";

const noXattrs: ReadonlyMap<string, Uint8Array> = new Map();

/** Where reading is; a number above 2 ** 53 or a message that is cut off has no place, and moves it behind every end. */
let at = 0;

/**
 * A packet that announces an entry in the way Go's clients write it: nothing but the entry, every field once at most, and no attributes.
 * Undefined for any other, which the whole codec reads and judges. There is one for every file of a context: this makes no
 * objects but the result.
 */
export function decodePlainStat(bytes: Uint8Array): PacketStat | undefined {
	if (bytes[0] !== 0x12) {
		return undefined;
	}
	at = 1;
	const length = number(bytes);
	const end = bytes.length;
	if (at + length !== end) {
		return undefined;
	}
	let [path, linkname] = ["", ""];
	let [mode, uid, gid, size, devmajor, devminor] = [0, 0, 0, 0, 0, 0];
	let modTime = 0n;
	let before = 0;
	while (at < end) {
		const tag = bytes[at++] ?? 0;
		if (tag <= before) {
			return undefined;
		}
		before = tag;
		switch (tag) {
			case 0x0a:
				path = text(bytes);
				break;
			case 0x10:
				mode = number(bytes);
				break;
			case 0x18:
				uid = number(bytes);
				break;
			case 0x20:
				gid = number(bytes);
				break;
			case 0x28:
				size = number(bytes);
				break;
			case 0x30:
				modTime = nanoseconds(bytes);
				break;
			case 0x3a:
				linkname = text(bytes);
				break;
			case 0x40:
				devmajor = number(bytes);
				break;
			case 0x48:
				devminor = number(bytes);
				break;
			default:
				return undefined;
		}
	}
	const fits = at === end && mode < 2 ** 32 && uid < 2 ** 32 && gid < 2 ** 32;
	return fits
		? { path, mode, uid, gid, size, modTime, linkname, devmajor, devminor, xattrs: noXattrs }
		: undefined;
}

function number(bytes: Uint8Array): number {
	let value = 0;
	for (let unit = 1; unit < 2 ** 49; unit *= 0x80) {
		const byte = bytes[at++] ?? 0x80;
		value += (byte & 0x7f) * unit;
		if (byte < 0x80) {
			return value;
		}
	}
	at = Number.POSITIVE_INFINITY;
	return 0;
}

/** Any time after 1970: nine groups of seven bits, of which the lower four and the others are small numbers. */
function nanoseconds(bytes: Uint8Array): bigint {
	let low = 0;
	let high = 0;
	for (let group = 0; group < 9; group++) {
		const byte = bytes[at++] ?? 0x80;
		if (group < 4) {
			low += (byte & 0x7f) * 2 ** (group * 7);
		} else {
			high += (byte & 0x7f) * 2 ** ((group - 4) * 7);
		}
		if (byte < 0x80) {
			return (BigInt(high) << 28n) + BigInt(low);
		}
	}
	at = Number.POSITIVE_INFINITY;
	return 0n;
}

function text(bytes: Uint8Array): string {
	const length = number(bytes);
	const start = at;
	at += length;
	return at > bytes.length
		? ""
		: Buffer.from(bytes.buffer, bytes.byteOffset + start, length).toString("latin1");
}
