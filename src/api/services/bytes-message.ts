import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { Codec, MessageParts } from "../grpc.ts";
import { varintBytes, writeVarint } from "../varint.ts";

/** The message of every byte tunnel: `bytes data = 1`. Read and sent without a copy. */
export interface BytesMessage {
	readonly data: Uint8Array;
}

/** The same for a reader that takes bytes as they come. */
export interface TunnelMessage extends BytesMessage {
	/** What follows `data`. */
	readonly more?: readonly Uint8Array[];
}

const tag = 10;
const nothing = new Uint8Array(0);

export const bytesMessage: Codec<BytesMessage> = {
	encode(message) {
		return { finish: () => Buffer.concat([partsOf(message, 0).head, message.data]) };
	},
	parts: partsOf,
	decode(bytes) {
		const start = dataStart(bytes, bytes.length);
		return start === -1 ? decodeAny(bytes) : { data: bytes.subarray(start) };
	},
};

export const tunnelMessage: Codec<TunnelMessage> = {
	...bytesMessage,
	decodePieces(pieces, size) {
		const [first = nothing] = pieces;
		const start = dataStart(first, size);
		return start === -1 ? undefined : { data: first.subarray(start), more: pieces.slice(1) };
	},
};

/** Where the data begins in a message of the size that is nothing else, as all senders write it; -1 in any other. */
function dataStart(first: Uint8Array, size: number): number {
	if (first[0] !== tag) {
		return -1;
	}
	let length = 0;
	for (let at = 1, unit = 1; at <= 5; at++, unit *= 0x80) {
		const byte = first[at] ?? 0x80;
		length += (byte & 0x7f) * unit;
		if (byte < 0x80) {
			return length === size - at - 1 ? at + 1 : -1;
		}
	}
	return -1;
}

function decodeAny(bytes: Uint8Array): BytesMessage {
	const reader = new BinaryReader(bytes);
	let data: Uint8Array = nothing;
	while (reader.pos < reader.len) {
		const found = reader.uint32();
		if (found === tag) {
			data = reader.bytes();
		} else if (found >>> 3 === 0) {
			throw new RangeError("cannot parse invalid wire-format data");
		} else {
			reader.skip(found & 7, found >>> 3);
		}
	}
	return { data };
}

function partsOf({ data }: BytesMessage, reserved: number): MessageParts {
	if (data.length === 0) {
		return { head: new Uint8Array(reserved), body: nothing };
	}
	const head = new Uint8Array(reserved + 1 + varintBytes(data.length));
	head[reserved] = tag;
	writeVarint(head, reserved + 1, data.length);
	return { head, body: data };
}
