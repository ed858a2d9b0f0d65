import type { Codec, Method } from "../api/grpc.ts";
import { fileSync } from "../api/services/filesync.ts";
import { type Packet, packet } from "../api/services/packet.ts";

/** As a packet, but content may come in several pieces. */
export type ReceivedPacket =
	| Exclude<Packet, { readonly kind: "data" }>
	| {
			readonly kind: "data";
			readonly id: number;
			readonly data: Uint8Array;
			/** What follows `data`. */
			readonly more?: readonly Uint8Array[];
	  };

const receivedPacket: Codec<ReceivedPacket> = {
	encode: (message) => packet.encode(message as Packet),
	decode: (bytes) => packet.decode(bytes),
	decodePieces: decodeData,
};

/** `FileSync.DiffCopy` as the daemon calls it. */
export const fileSyncDiffCopy: Method<"bidi", Packet, ReceivedPacket> = {
	kind: "bidi",
	path: fileSync.diffCopy.path,
	request: packet,
	response: receivedPacket,
};

const dataType = 2;

/** What BuildKit's clients send for content: type, id, and then the content to the end. Everything else is left to the whole codec. */
function decodeData(pieces: readonly Uint8Array[], size: number): ReceivedPacket | undefined {
	const [first] = pieces;
	if (first === undefined || first[0] !== 0x08 || first[1] !== dataType) {
		return undefined;
	}
	const head = { bytes: first, at: 2 };
	let id: number | undefined = 0;
	if (first[head.at] === 0x18) {
		head.at += 1;
		id = readVarint(head);
	}
	if (id === undefined || first[head.at] !== 0x22) {
		return undefined;
	}
	head.at += 1;
	const length = readVarint(head);
	if (length === undefined || length !== size - head.at) {
		return undefined;
	}
	return { kind: "data", id, data: first.subarray(head.at), more: pieces.slice(1) };
}

/** Of at most 32 bits; undefined if it does not end in these bytes. */
function readVarint(head: { readonly bytes: Uint8Array; at: number }): number | undefined {
	let value = 0;
	for (let shift = 0; shift <= 28; shift += 7) {
		const byte = head.bytes[head.at++];
		if (byte === undefined) {
			return undefined;
		}
		value += (byte & 0x7f) * 2 ** shift;
		if (byte < 0x80) {
			return value < 2 ** 32 ? value : undefined;
		}
	}
	return undefined;
}
