import { SlipwayError } from "../errors/errors.ts";
import { flag, frameType, headBytes } from "./http2-frames.ts";

/** What a connection is told of the bytes that come. Throwing is an error of the connection, as is what the reader throws itself. */
export interface FrameSink {
	/** A piece of a stream's data, a view of what was read. `size` is what counts for the windows: padding does too (section 6.9.1). */
	onData(id: number, bytes: Uint8Array, size: number, isLast: boolean): void;
	/** A whole block of headers. */
	onHeaders(id: number, block: Uint8Array, isLast: boolean): void;
	/** Any other frame, of a length that is right for its type. */
	onFrame(type: number, flags: number, id: number, payload: Uint8Array): void;
}

export interface FrameLimits {
	readonly maxFrameBytes: number;
	readonly maxHeaderBytes: number;
}

interface FrameHead {
	readonly type: number;
	readonly flags: number;
	readonly id: number;
	/** Bytes of the payload that have not come. */
	rest: number;
}

/** Headers that go on in the next frame. */
interface OpenHeaders {
	readonly id: number;
	readonly isLast: boolean;
	readonly parts: Uint8Array[];
	bytes: number;
}

const fixedLengths: Readonly<Record<number, number>> = {
	[frameType.reset]: 4,
	[frameType.ping]: 8,
	[frameType.windowUpdate]: 4,
};
/** Types that are of the connection, and those that are of a stream (section 4.1 and each type's own). */
const connectionTypes: ReadonlySet<number> = new Set([frameType.settings, frameType.ping, frameType.goAway]);
const streamTypes: ReadonlySet<number> = new Set([
	frameType.data,
	frameType.headers,
	frameType.reset,
	frameType.continuation,
]);

/** Cuts frames out of bytes that come in any pieces. Data is passed on as it comes, everything else is gathered. */
export class FrameReader {
	readonly #sink: FrameSink;
	readonly #limits: FrameLimits;
	#frame: FrameHead | undefined;
	#partial: Uint8Array[] = [];
	#partialBytes = 0;
	#headers: OpenHeaders | undefined;

	constructor(sink: FrameSink, limits: FrameLimits) {
		this.#sink = sink;
		this.#limits = limits;
	}

	push(bytes: Uint8Array): void {
		let at = 0;
		while (at < bytes.length || (this.#frame !== undefined && this.#frame.rest === 0)) {
			if (this.#frame === undefined) {
				const head = this.#gather(bytes, at, headBytes);
				at = Math.min(bytes.length, at + headBytes - head.before);
				if (head.bytes === undefined) {
					return;
				}
				this.#frame = this.#headOf(head.bytes);
				continue;
			}
			const { type, flags, id, rest } = this.#frame;
			if (type === frameType.data && (flags & flag.padded) === 0) {
				const part = bytes.subarray(at, at + rest);
				at += part.length;
				this.#frame.rest -= part.length;
				const isDone = this.#frame.rest === 0;
				if (isDone) {
					this.#frame = undefined;
				}
				this.#sink.onData(id, part, part.length, isDone && (flags & flag.endStream) !== 0);
				continue;
			}
			const payload = this.#gather(bytes, at, rest);
			at = Math.min(bytes.length, at + rest - payload.before);
			if (payload.bytes === undefined) {
				return;
			}
			this.#frame = undefined;
			this.#onWhole(type, flags, id, payload.bytes);
		}
	}

	/** `wanted` bytes, with what was kept of them; `undefined` if they are not all there, and then they are kept. */
	#gather(
		bytes: Uint8Array,
		at: number,
		wanted: number,
	): { readonly bytes: Uint8Array | undefined; readonly before: number } {
		const before = this.#partialBytes;
		const part = bytes.subarray(at, at + wanted - before);
		if (before === 0 && part.length === wanted) {
			return { bytes: part, before };
		}
		// The message that it is a view of may be large.
		this.#partial.push(Uint8Array.from(part));
		this.#partialBytes += part.length;
		if (this.#partialBytes < wanted) {
			return { bytes: undefined, before };
		}
		const whole = Buffer.concat(this.#partial, wanted);
		this.#partial = [];
		this.#partialBytes = 0;
		return { bytes: whole, before };
	}

	#headOf(head: Uint8Array): FrameHead {
		const view = new DataView(head.buffer, head.byteOffset, headBytes);
		const rest = view.getUint16(0) * 256 + view.getUint8(2);
		const type = view.getUint8(3);
		const id = view.getUint32(5) & 0x7fff_ffff;
		if (rest > this.#limits.maxFrameBytes || (fixedLengths[type] ?? rest) !== rest) {
			throw new SlipwayError("internal", `a frame of type ${type} of ${rest} bytes`);
		}
		if (id === 0 ? streamTypes.has(type) : connectionTypes.has(type)) {
			throw new SlipwayError("internal", `a frame of type ${type} on stream ${id}`);
		}
		const open = this.#headers;
		if (
			open === undefined ? type === frameType.continuation : type !== frameType.continuation || id !== open.id
		) {
			throw new SlipwayError(
				"internal",
				open === undefined ? "headers go on that did not begin" : "headers do not go on",
			);
		}
		return { type, flags: view.getUint8(4), id, rest };
	}

	#onWhole(type: number, flags: number, id: number, payload: Uint8Array): void {
		switch (type) {
			case frameType.data: {
				const data = withoutPadding(flags, payload, 0);
				this.#sink.onData(id, data, payload.length, (flags & flag.endStream) !== 0);
				return;
			}
			case frameType.headers: {
				// A priority is of no interest.
				const part = withoutPadding(flags, payload, (flags & flag.priority) === 0 ? 0 : 5);
				this.#headers = { id, isLast: (flags & flag.endStream) !== 0, parts: [], bytes: 0 };
				this.#goOn(this.#headers, part, flags);
				return;
			}
			case frameType.continuation:
				// `#headOf` lets it come only when headers are open.
				this.#goOn(this.#headers as OpenHeaders, payload, flags);
				return;
			default:
				this.#sink.onFrame(type, flags, id, payload);
		}
	}

	#goOn(headers: OpenHeaders, part: Uint8Array, flags: number): void {
		headers.bytes += part.length;
		if (headers.bytes > this.#limits.maxHeaderBytes) {
			throw new SlipwayError(
				"resource-exhausted",
				`headers of more than ${this.#limits.maxHeaderBytes} bytes`,
			);
		}
		if ((flags & flag.endHeaders) !== 0) {
			this.#headers = undefined;
			const block = headers.parts.length === 0 ? part : Buffer.concat([...headers.parts, part]);
			this.#sink.onHeaders(headers.id, block, headers.isLast);
		} else if (part.length > 0) {
			// Empty ones without end must not fill memory.
			headers.parts.push(Uint8Array.from(part));
		}
	}
}

/** The byte in front tells the length of what is behind; `skipped` bytes follow it. */
function withoutPadding(flags: number, payload: Uint8Array, skipped: number): Uint8Array {
	const isPadded = (flags & flag.padded) !== 0;
	const start = (isPadded ? 1 : 0) + skipped;
	const end = payload.length - (isPadded ? (payload[0] ?? 0) : 0);
	if (start > end) {
		throw new SlipwayError("internal", "a frame that is all padding, and more");
	}
	return payload.subarray(start, end);
}
