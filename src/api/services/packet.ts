import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { Codec, MessageParts } from "../grpc.ts";
import { varintBytes, writeVarint } from "../varint.ts";
import { decodePlainStat } from "./packet-stat.ts";

/**
 * fsutil's packets, which carry directories: `fsutil.types.Packet`, by hand because a transfer has one for each file and each 32 KB.
 * The sender of a tree announces its entries in order (`stat`, the last one without an entry), the receiver asks for the content of
 * some by their index (`request`), and gets it in pieces of which the last is empty (`data`); both end with `finish`.
 */
export type Packet =
	| { readonly kind: "stat"; readonly stat: PacketStat | undefined }
	| { readonly kind: "request"; readonly id: number }
	| { readonly kind: "data"; readonly id: number; readonly data: Uint8Array }
	| { readonly kind: "finish" }
	| { readonly kind: "error"; readonly message: string };

/** Names are the kernel's bytes, one character for each (latin1), so that also those survive that are no text. */
export interface PacketStat {
	/** Relative, with slashes. */
	readonly path: string;
	/** Go's os.FileMode, not the kernel's. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly size: number;
	/** Nanoseconds since the epoch. */
	readonly modTime: bigint;
	/** Of a symbolic link, or the first path of a hard link. */
	readonly linkname: string;
	readonly devmajor: number;
	readonly devminor: number;
	readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

const nothing = new Uint8Array(0);
const noXattrs: ReadonlyMap<string, Uint8Array> = new Map();
const malformed = "cannot parse invalid wire-format data";

const type = { stat: 0, request: 1, data: 2, finish: 3, error: 4 };

export const packet: Codec<Packet> = {
	encode(message) {
		const { head, body } = partsOf(message, 0);
		return { finish: () => (body.length === 0 ? head : Buffer.concat([head, body])) };
	},
	parts: partsOf,
	decode,
};

function partsOf(message: Packet, reserved: number): MessageParts {
	switch (message.kind) {
		case "stat": {
			if (message.stat === undefined) {
				return { head: new Uint8Array(reserved), body: nothing };
			}
			const size = statBytes(message.stat);
			const head = Buffer.allocUnsafe(reserved + 1 + varintBytes(size) + size);
			head[reserved] = 0x12;
			writeStat(head, writeVarint(head, reserved + 1, size), message.stat);
			return { head, body: nothing };
		}
		case "request":
			return { head: smallHead(reserved, type.request, message.id, 0), body: nothing };
		case "data":
			return { head: smallHead(reserved, type.data, message.id, message.data.length), body: message.data };
		case "finish":
			return { head: smallHead(reserved, type.finish, 0, 0), body: nothing };
		case "error": {
			const body = Buffer.from(message.message);
			return { head: smallHead(reserved, type.error, 0, body.length), body };
		}
	}
}

function smallHead(reserved: number, kind: number, id: number, dataBytes: number): Uint8Array {
	const size = 2 + (id === 0 ? 0 : 1 + varintBytes(id)) + (dataBytes === 0 ? 0 : 1 + varintBytes(dataBytes));
	const head = new Uint8Array(reserved + size);
	let at = reserved;
	head[at++] = 0x08;
	head[at++] = kind;
	if (id !== 0) {
		head[at++] = 0x18;
		at = writeVarint(head, at, id);
	}
	if (dataBytes !== 0) {
		head[at++] = 0x22;
		writeVarint(head, at, dataBytes);
	}
	return head;
}

function statBytes(stat: PacketStat): number {
	let size = textBytes(stat.path) + textBytes(stat.linkname);
	for (const value of [stat.mode, stat.uid, stat.gid, stat.size, stat.devmajor, stat.devminor]) {
		size += value === 0 ? 0 : 1 + integerBytes(value);
	}
	size += stat.modTime === 0n ? 0 : 1 + bigintBytes(stat.modTime);
	for (const [name, value] of stat.xattrs) {
		const entry = entryBytes(name, value);
		size += 1 + varintBytes(entry) + entry;
	}
	return size;
}

function writeStat(target: Buffer, at: number, stat: PacketStat): void {
	at = writeText(target, at, 0x0a, stat.path);
	at = writeInteger(target, at, 0x10, stat.mode);
	at = writeInteger(target, at, 0x18, stat.uid);
	at = writeInteger(target, at, 0x20, stat.gid);
	at = writeInteger(target, at, 0x28, stat.size);
	if (stat.modTime !== 0n) {
		target[at++] = 0x30;
		at = writeBigint(target, at, stat.modTime);
	}
	at = writeText(target, at, 0x3a, stat.linkname);
	at = writeInteger(target, at, 0x40, stat.devmajor);
	at = writeInteger(target, at, 0x48, stat.devminor);
	for (const [name, value] of stat.xattrs) {
		target[at++] = 0x52;
		at = writeVarint(target, at, entryBytes(name, value));
		at = writeAlways(target, at, 0x0a, name.length);
		at += target.write(name, at, "latin1");
		at = writeAlways(target, at, 0x12, value.length);
		target.set(value, at);
		at += value.length;
	}
}

function entryBytes(name: string, value: Uint8Array): number {
	return 2 + varintBytes(name.length) + name.length + varintBytes(value.length) + value.length;
}

function textBytes(text: string): number {
	return text === "" ? 0 : 1 + varintBytes(text.length) + text.length;
}

function writeText(target: Buffer, at: number, tag: number, text: string): number {
	if (text === "") {
		return at;
	}
	at = writeAlways(target, at, tag, text.length);
	return at + target.write(text, at, "latin1");
}

function writeAlways(target: Uint8Array, at: number, tag: number, value: number): number {
	target[at] = tag;
	return writeVarint(target, at + 1, value);
}

function writeInteger(target: Uint8Array, at: number, tag: number, value: number): number {
	if (value === 0) {
		return at;
	}
	target[at++] = tag;
	return value > 0 ? writeVarint(target, at, value) : writeBigint(target, at, BigInt(value));
}

function integerBytes(value: number): number {
	return value >= 0 ? varintBytes(value) : 10;
}

function bigintBytes(value: bigint): number {
	return value < 0n ? 10 : value < 0x20_0000_0000_0000n ? varintBytes(Number(value)) : longBytes(value);
}

function longBytes(value: bigint): number {
	let bytes = 1;
	while (value >= 0x80n) {
		value >>= 7n;
		bytes++;
	}
	return bytes;
}

function writeBigint(target: Uint8Array, at: number, value: bigint): number {
	if (value >= 0n && value < 0x20_0000_0000_0000n) {
		return writeVarint(target, at, Number(value));
	}
	// The low 49 bits are seven groups; what is above them fits a number as well.
	const bits = BigInt.asUintN(64, value);
	let low = Number(bits & 0x1_ffff_ffff_ffffn);
	for (let group = 0; group < 7; group++) {
		target[at++] = (low % 0x80) | 0x80;
		low = Math.floor(low / 0x80);
	}
	return writeVarint(target, at, Number(bits >> 49n));
}

function decode(bytes: Uint8Array): Packet {
	const plain = decodePlainStat(bytes);
	return plain === undefined ? decodeAny(bytes) : { kind: "stat", stat: plain };
}

function decodeAny(bytes: Uint8Array): Packet {
	const reader = new BinaryReader(bytes);
	let kind = 0;
	let stat: PacketStat | undefined;
	let id = 0;
	let data: Uint8Array = nothing;
	while (reader.pos < reader.len) {
		const tag = reader.uint32();
		switch (tag) {
			case 0x08:
				kind = reader.int32();
				break;
			case 0x12: {
				const length = reader.uint32();
				stat = decodeStat(reader, length);
				break;
			}
			case 0x18:
				id = reader.uint32();
				break;
			case 0x22:
				data = reader.bytes();
				break;
			default:
				skip(reader, tag);
		}
	}
	switch (kind) {
		case type.stat:
			return { kind: "stat", stat };
		case type.request:
			return { kind: "request", id };
		case type.data:
			return { kind: "data", id, data };
		case type.finish:
			return { kind: "finish" };
		case type.error:
			return { kind: "error", message: Buffer.from(data).toString() };
		default:
			throw new RangeError(`unknown packet type ${kind}`);
	}
}

function decodeStat(reader: BinaryReader, length: number): PacketStat {
	const end = reader.pos + length;
	if (end > reader.len) {
		throw new RangeError(malformed);
	}
	const stat = {
		path: "",
		mode: 0,
		uid: 0,
		gid: 0,
		size: 0,
		modTime: 0n,
		linkname: "",
		devmajor: 0,
		devminor: 0,
		xattrs: noXattrs as Map<string, Uint8Array>,
	};
	while (reader.pos < end) {
		const tag = reader.uint32();
		switch (tag) {
			case 0x0a:
				stat.path = text(reader);
				break;
			case 0x10:
				stat.mode = reader.uint32();
				break;
			case 0x18:
				stat.uid = reader.uint32();
				break;
			case 0x20:
				stat.gid = reader.uint32();
				break;
			case 0x28:
				stat.size = safeInteger(reader);
				break;
			case 0x30:
				stat.modTime = BigInt(reader.int64());
				break;
			case 0x3a:
				stat.linkname = text(reader);
				break;
			case 0x40:
				stat.devmajor = safeInteger(reader);
				break;
			case 0x48:
				stat.devminor = safeInteger(reader);
				break;
			case 0x52:
				if (stat.xattrs === noXattrs) {
					stat.xattrs = new Map();
				}
				decodeEntry(reader, stat.xattrs);
				break;
			default:
				skip(reader, tag);
		}
	}
	if (reader.pos !== end) {
		throw new RangeError(malformed);
	}
	return stat;
}

function decodeEntry(reader: BinaryReader, into: Map<string, Uint8Array>): void {
	const length = reader.uint32();
	const end = reader.pos + length;
	let name = "";
	let value: Uint8Array = nothing;
	while (reader.pos < end) {
		const tag = reader.uint32();
		if (tag === 0x0a) {
			name = text(reader);
		} else if (tag === 0x12) {
			value = reader.bytes();
		} else {
			skip(reader, tag);
		}
	}
	if (reader.pos !== end) {
		throw new RangeError(malformed);
	}
	into.set(name, value);
}

function text(reader: BinaryReader): string {
	const bytes = reader.bytes();
	return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** Sizes and device numbers above 2 ** 53 are no honest peer's. */
function safeInteger(reader: BinaryReader): number {
	const value = Number(reader.int64());
	if (!Number.isSafeInteger(value)) {
		throw new RangeError(`${value} is too large`);
	}
	return value;
}

function skip(reader: BinaryReader, tag: number): void {
	if (tag >>> 3 === 0) {
		throw new RangeError(malformed);
	}
	reader.skip(tag & 7, tag >>> 3);
}
