import { SlipwayError } from "../errors/errors.ts";

/** Frames of HTTP/2 (RFC 9113, sections 4 and 6): what they are called, how they are written. */

export const frameType = {
	data: 0,
	headers: 1,
	reset: 3,
	settings: 4,
	push: 5,
	ping: 6,
	goAway: 7,
	windowUpdate: 8,
	continuation: 9,
} as const;

export const flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export const setting = {
	headerTableSize: 1,
	enablePush: 2,
	maxConcurrent: 3,
	initialWindow: 4,
	maxFrame: 5,
	maxHeaderList: 6,
} as const;

/** Section 7, those that we send. */
export const http2Code = { none: 0, protocol: 1, flowControl: 3, cancel: 8 } as const;

export const preface: Uint8Array = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
export const headBytes = 9;
/** Of every window before anybody says otherwise. */
export const firstWindow = 65_535;
export const maxWindow: number = 2 ** 31 - 1;
export const firstMaxFrame = 16_384;
export const maxStreamId: number = 2 ** 31 - 1;

export function frameHead(length: number, type: number, flags: number, id: number): Uint8Array {
	return Uint8Array.of(length >>> 16, length >>> 8, length, type, flags, id >>> 24, id >>> 16, id >>> 8, id);
}

export function frame(type: number, flags: number, id: number, payload: Uint8Array): Uint8Array {
	return Buffer.concat([frameHead(payload.length, type, flags, id), payload]);
}

export function settingsFrame(values: readonly (readonly [key: number, value: number])[]): Uint8Array {
	const entries = values.map(([key, value]) => Buffer.concat([Uint8Array.of(0, key), uint32(value)]));
	return frame(frameType.settings, 0, 0, Buffer.concat(entries));
}

export function settingsAckFrame(): Uint8Array {
	return frameHead(0, frameType.settings, flag.ack, 0);
}

export function windowUpdateFrame(id: number, increment: number): Uint8Array {
	return frame(frameType.windowUpdate, 0, id, uint32(increment));
}

export function resetFrame(id: number, code: number): Uint8Array {
	return frame(frameType.reset, 0, id, uint32(code));
}

/** Of a client whose server opened no streams. */
export function goAwayFrame(code: number): Uint8Array {
	return frame(frameType.goAway, 0, 0, Buffer.concat([uint32(0), uint32(code)]));
}

/** A block of headers, in as many frames as the other side's limit makes it. The direction stays open. */
export function headersFrames(id: number, block: Uint8Array, maxFrameBytes: number): Uint8Array {
	const frames: Uint8Array[] = [];
	for (let at = 0; at === 0 || at < block.length; at += maxFrameBytes) {
		const part = block.subarray(at, at + maxFrameBytes);
		const isLast = at + part.length >= block.length;
		const type = at === 0 ? frameType.headers : frameType.continuation;
		frames.push(frame(type, isLast ? flag.endHeaders : 0, id, part));
	}
	return Buffer.concat(frames);
}

export function readUint32(bytes: Uint8Array, at: number): number {
	if (at + 4 > bytes.length) {
		throw new SlipwayError("internal", "a frame that is cut off");
	}
	return (
		(bytes[at] as number) * 2 ** 24 +
		(((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number))
	);
}

function uint32(value: number): Uint8Array {
	return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}
