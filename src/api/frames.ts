import type { Codec } from "./grpc.ts";

/** Messages in HTTP/2 data: a byte that says whether it is compressed, four of length, the message. */

const prefixBytes = 5;
/** Below this a copy is cheaper than a second chunk. */
const copyBytes = 2048;

export type Frame = readonly [Uint8Array] | readonly [head: Uint8Array, body: Uint8Array];

/** The chunks to send for a message; never an empty one, which would damage its neighbours in node:http2 (Node 20 to 24). */
export function encodeFrame<T>(codec: Codec<T>, message: T): Frame {
	if (codec.parts !== undefined) {
		const { head, body } = codec.parts(message, prefixBytes);
		return join(head, body);
	}
	const body = codec.encode(message).finish();
	return join(new Uint8Array(prefixBytes), body);
}

function join(head: Uint8Array, body: Uint8Array): Frame {
	const length = head.length - prefixBytes + body.length;
	if (body.length !== 0 && body.length < copyBytes) {
		const whole = Buffer.allocUnsafe(head.length + body.length);
		whole.set(head);
		whole.set(body, head.length);
		writePrefix(whole, length);
		return [whole];
	}
	writePrefix(head, length);
	return body.length === 0 ? [head] : [head, body];
}

function writePrefix(target: Uint8Array, length: number): void {
	target[0] = 0;
	target[1] = length >>> 24;
	target[2] = length >>> 16;
	target[3] = length >>> 8;
	target[4] = length;
}
