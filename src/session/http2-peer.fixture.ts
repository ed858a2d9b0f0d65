import type { Channel } from "../api/grpc.ts";
import { encodeHeaders } from "./hpack.ts";
import { openInnerChannel } from "./inner-channel.ts";

/** The other end of an inner channel, told by a test what to say. */
export interface Peer {
	readonly channel: Channel;
	/** Bytes from the other side. */
	give(...bytes: readonly Uint8Array[]): void;
	/** What was sent to it. */
	sent(): Buffer;
	/** The same as frames, behind the preface. */
	frames(): readonly SentFrame[];
	/** From now on the tunnel takes one message, and has no room until it is let go on. */
	block(): () => void;
	end(error?: Error): void;
}

export interface SentFrame {
	readonly type: number;
	readonly flags: number;
	readonly id: number;
	readonly payload: Buffer;
}

/** A server that has begun with its settings. */
export function openPeer(begin: Uint8Array = frame(4, 0, 0)): Peer {
	const sent: Uint8Array[] = [];
	const waiting: Uint8Array[] = [begin];
	let wake: () => void = () => {};
	let ended: { readonly error: Error | undefined } | undefined;
	let room: Promise<void> | undefined;
	const channel = openInnerChannel({
		send({ data }) {
			sent.push(data);
			return room;
		},
		async *[Symbol.asyncIterator]() {
			for (;;) {
				const data = waiting.shift();
				if (data !== undefined) {
					yield { data };
				} else if (ended !== undefined) {
					if (ended.error !== undefined) {
						throw ended.error;
					}
					return;
				} else {
					await new Promise<void>((resolve) => {
						wake = resolve;
					});
				}
			}
		},
	});
	return {
		channel,
		give(...bytes) {
			waiting.push(Buffer.concat(bytes));
			wake();
		},
		sent: () => Buffer.concat(sent),
		frames: () => framesOf(Buffer.concat(sent).subarray(24)),
		block() {
			const { promise, resolve } = Promise.withResolvers<void>();
			room = promise;
			return () => {
				room = undefined;
				resolve();
			};
		},
		end(error) {
			ended = { error };
			wake();
		},
	};
}

function framesOf(bytes: Buffer): SentFrame[] {
	const frames: SentFrame[] = [];
	for (let at = 0; at < bytes.length; ) {
		const length = bytes.readUIntBE(at, 3);
		frames.push({
			type: bytes.readUInt8(at + 3),
			flags: bytes.readUInt8(at + 4),
			id: bytes.readUInt32BE(at + 5),
			payload: bytes.subarray(at + 9, at + 9 + length),
		});
		at += 9 + length;
	}
	return frames;
}

export function frame(
	type: number,
	flags: number,
	id: number,
	payload: Uint8Array = new Uint8Array(0),
): Buffer {
	const head = Buffer.alloc(9);
	head.writeUIntBE(payload.length, 0, 3);
	head[3] = type;
	head[4] = flags;
	head.writeUInt32BE(id, 5);
	return Buffer.concat([head, payload]);
}

export function message(payload: Uint8Array): Buffer {
	const head = Buffer.alloc(5);
	head.writeUInt32BE(payload.length, 1);
	return Buffer.concat([head, payload]);
}

export function uint32(value: number): Buffer {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32BE(value);
	return bytes;
}

export const accepted: Uint8Array = encodeHeaders({ ":status": "200", "content-type": "application/grpc" });
export const fine: Uint8Array = encodeHeaders({ "grpc-status": "0" });
export const refused: Uint8Array = encodeHeaders({ "grpc-status": "2", "grpc-message": "not here" });
/** Lets everything happen that can. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
