import { SlipwayError } from "../errors/errors.ts";
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

export interface FrameReaderOptions {
	readonly maxMessageBytes: number;
	/** Takes each message. It may be a view into what was read. */
	readonly onMessage: (bytes: Uint8Array) => void;
}

/** Cuts a stream of bytes into messages. Memory for a message is taken as it comes, not as it is announced. */
export class FrameReader {
	readonly #options: FrameReaderOptions;
	/** What came of a frame that is not whole. */
	#pending: Uint8Array[] = [];
	#pendingBytes = 0;
	/** Bytes of the frame that is not whole, prefix included; only the prefix's until its length is known. */
	#wanted = prefixBytes;

	constructor(options: FrameReaderOptions) {
		this.#options = options;
	}

	/** Throws the error that the call ends with when this is no stream of messages. */
	push(chunk: Uint8Array): void {
		let at = 0;
		while (at < chunk.length) {
			if (this.#pendingBytes === 0) {
				const rest = chunk.length - at;
				if (rest >= prefixBytes) {
					const size = prefixBytes + this.#lengthAt(chunk, at);
					if (rest >= size) {
						this.#options.onMessage(chunk.subarray(at + prefixBytes, at + size));
						at += size;
						continue;
					}
					this.#wanted = size;
				}
			}
			at = this.#gather(chunk, at);
		}
	}

	/** To be called at the end of the stream; throws if it is in the middle of a message. */
	end(): void {
		if (this.#pendingBytes !== 0) {
			throw new SlipwayError("internal", "unexpected EOF");
		}
	}

	#gather(chunk: Uint8Array, at: number): number {
		const end = Math.min(chunk.length, at + this.#wanted - this.#pendingBytes);
		this.#pending.push(chunk.subarray(at, end));
		this.#pendingBytes += end - at;
		if (this.#pendingBytes < this.#wanted) {
			return end;
		}
		const whole = joinChunks(this.#pending, this.#pendingBytes);
		if (this.#wanted === prefixBytes) {
			this.#wanted += this.#lengthAt(whole, 0);
			if (this.#wanted !== prefixBytes) {
				this.#pending = [whole];
				return end;
			}
		}
		this.#pending = [];
		this.#pendingBytes = 0;
		this.#wanted = prefixBytes;
		this.#options.onMessage(whole.subarray(prefixBytes));
		return end;
	}

	#lengthAt(bytes: Uint8Array, at: number): number {
		const flag = bytes[at] as number;
		if (flag === 1) {
			throw new SlipwayError("internal", "grpc: compressed flag set with identity or empty encoding");
		}
		if (flag !== 0) {
			throw new SlipwayError("internal", `grpc: received unexpected payload format ${flag}`);
		}
		const length =
			(bytes[at + 1] as number) * 0x1000000 +
			(((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number));
		const max = this.#options.maxMessageBytes;
		if (length > max) {
			throw new SlipwayError(
				"resource-exhausted",
				`grpc: received message larger than max (${length} vs. ${max})`,
			);
		}
		return length;
	}
}

const slabBytes = 512 << 10;
/** Sizes that are cut from a slab: smaller ones have Node's own, larger ones are rare. */
const slabMinBytes = 4 << 10;
const slabMaxBytes = 128 << 10;
let slab: Buffer | undefined;
let slabUsed = 0;

/**
 * As `Buffer.concat`. A transfer of files is messages of 32 KB, and a buffer of its own for each costs the collector of garbage a third
 * of the whole transfer.
 */
function joinChunks(chunks: readonly Uint8Array[], size: number): Buffer {
	if (size < slabMinBytes || size > slabMaxBytes) {
		return Buffer.concat(chunks, size);
	}
	if (slab === undefined || slabUsed + size > slab.length) {
		slab = Buffer.allocUnsafeSlow(slabBytes);
		slabUsed = 0;
	}
	const whole = slab.subarray(slabUsed, slabUsed + size);
	slabUsed += size;
	let at = 0;
	for (const chunk of chunks) {
		whole.set(chunk, at);
		at += chunk.length;
	}
	return whole;
}
