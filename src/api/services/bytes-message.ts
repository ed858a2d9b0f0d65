import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { Codec, MessageParts } from "../grpc.ts";
import { varintBytes, writeVarint } from "../varint.ts";

/** The message of every byte tunnel: `bytes data = 1`. Read and sent without a copy. */
export interface BytesMessage {
	readonly data: Uint8Array;
}

const tag = 10;
const nothing = new Uint8Array(0);

export const bytesMessage: Codec<BytesMessage> = {
	encode(message) {
		return { finish: () => Buffer.concat([partsOf(message, 0).head, message.data]) };
	},
	parts: partsOf,
	decode(bytes) {
		if (bytes.length === 0) {
			return { data: nothing };
		}
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
	},
};

function partsOf({ data }: BytesMessage, reserved: number): MessageParts {
	if (data.length === 0) {
		return { head: new Uint8Array(reserved), body: nothing };
	}
	const head = new Uint8Array(reserved + 1 + varintBytes(data.length));
	head[reserved] = tag;
	writeVarint(head, reserved + 1, data.length);
	return { head, body: data };
}
