import type { CallOptions, Channel, ClientStream, MessageStream, Method, MethodKind } from "../api/grpc.ts";
import { addMetadata, formatTimeout } from "../api/metadata.ts";
import type { BytesMessage, TunnelMessage } from "../api/services/bytes-message.ts";
import { canceled, type ErrorCode, SlipwayError, toError } from "../errors/errors.ts";
import { decodeHeaders, encodeHeaders } from "./hpack.ts";
import { type CallHost, type HostedCall, InnerCall } from "./inner-call.ts";

export interface InnerChannelOptions {
	/** Largest message that is taken; default 16 MiB, as BuildKit. */
	readonly maxMessageBytes?: number;
}

/**
 * The client's side of HTTP/2 (RFC 9113) for gRPC, on the messages of a tunnel.
 *
 * Why not node:http2 over a Duplex: a transfer of 20,000 files is 40,000 frames of some 60 bytes, each of which costs node:http2 over a
 * stream of JavaScript some 15 µs and this 1 µs. It does what a gRPC client needs and no more: no priorities, no push, no dynamic
 * table of headers.
 */
export function openInnerChannel(
	stream: MessageStream<TunnelMessage, BytesMessage>,
	options: InnerChannelOptions = {},
): Channel {
	return new InnerChannel(stream, options.maxMessageBytes ?? 16 << 20);
}

const frameType = {
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

const flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;
const setting = {
	headerTableSize: 1,
	enablePush: 2,
	maxConcurrent: 3,
	initialWindow: 4,
	maxFrame: 5,
	maxHeaderList: 6,
} as const;

const preface: Uint8Array = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const headBytes = 9;
/** Room for what is under way, of one call and of all. */
const callWindowBytes = 4 << 20;
const connectionWindowBytes = 64 << 20;
const maxFrameBytes = 1 << 20;
const maxHeaderBytes = 1 << 20;
const firstWindow = 65_535;
const maxWindow = 2 ** 31 - 1;
/** A message of the tunnel. */
const tunnelMessageBytes = 1 << 20;
/** What is not sent to a peer that takes nothing while it makes us answer. */
const maxBacklogBytes = 64 << 20;

interface FrameHead {
	readonly type: number;
	readonly flags: number;
	readonly id: number;
	/** Bytes of the payload that have not come. */
	rest: number;
}

class InnerChannel implements Channel, CallHost {
	readonly maxMessageBytes: number;
	readonly #stream: MessageStream<TunnelMessage, BytesMessage>;
	readonly #closed: AbortController = new AbortController();
	readonly #calls = new Map<number, HostedCall>();
	/** Calls that wait until the server takes more at once. */
	readonly #waiting: { readonly call: HostedCall; readonly block: Uint8Array }[] = [];
	#nextId = 1;
	#goingAway = false;

	#sendWindow = firstWindow;
	#peerWindow = firstWindow;
	#peerMaxFrame = 16_384;
	#peerMaxCalls: number = Number.POSITIVE_INFINITY;
	#received = 0;

	#out: Uint8Array[] = [];
	#outBytes = 0;
	#scheduled = false;
	/** The tunnel has no room. */
	#blocked = false;

	/** The frame under way: its payload is passed on as it comes if it is data, and gathered otherwise. */
	#frame: FrameHead | undefined;
	#partial: Uint8Array[] = [];
	#partialBytes = 0;
	/** Headers that go on in the next frame. */
	#headers:
		| { readonly id: number; readonly flags: number; readonly parts: Uint8Array[]; bytes: number }
		| undefined;

	constructor(stream: MessageStream<TunnelMessage, BytesMessage>, maxMessageBytes: number) {
		this.#stream = stream;
		this.maxMessageBytes = maxMessageBytes;
		this.#put(preface);
		this.#put(
			settings([
				[setting.headerTableSize, 0],
				[setting.enablePush, 0],
				[setting.initialWindow, callWindowBytes],
				[setting.maxFrame, maxFrameBytes],
				[setting.maxHeaderList, maxHeaderBytes],
			]),
		);
		this.#put(windowUpdate(0, connectionWindowBytes - firstWindow));
		void this.#read();
	}

	get closed(): AbortSignal {
		return this.#closed.signal;
	}

	async unary<Request, Response>(
		method: Method<"unary", Request, Response>,
		request: Request,
		options: CallOptions,
	): Promise<Response> {
		const call = this.#open<Request, Response>(method, options);
		try {
			call.send(request)?.catch(() => undefined);
			call.closeSend();
		} catch (thrown) {
			call.cancel();
			throw thrown;
		}
		const first = await call.next();
		if (first.done === true) {
			throw new SlipwayError(
				"internal",
				"cardinality violation: received no response message from non-server-streaming RPC",
			);
		}
		const second = await call.next();
		if (second.done !== true) {
			call.cancel();
			throw new SlipwayError(
				"internal",
				"cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message",
			);
		}
		return first.value;
	}

	stream<Request, Response>(
		method: Method<MethodKind, Request, Response>,
		options: CallOptions,
	): ClientStream<Response, Request> {
		return this.#open(method, options);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#close(canceled());
	}

	backlog(): number {
		return this.#outBytes;
	}

	pump(call: HostedCall): void {
		if (call.id === 0 || call.sentEnd || call.ended) {
			return;
		}
		while (call.pending.length > 0) {
			const size = Math.min(call.pendingBytes, call.sendWindow, this.#sendWindow, this.#peerMaxFrame);
			if (size <= 0) {
				return;
			}
			const isLast = call.wantsEnd && size === call.pendingBytes;
			this.#put(frameHead(size, frameType.data, isLast ? flag.endStream : 0, call.id));
			this.#takeInto(call, size);
			call.sendWindow -= size;
			this.#sendWindow -= size;
			call.sentEnd = isLast;
		}
		if (call.wantsEnd && !call.sentEnd) {
			call.sentEnd = true;
			this.#put(frameHead(0, frameType.data, flag.endStream, call.id));
		}
	}

	grant(call: HostedCall, bytes: number): void {
		if (this.#calls.get(call.id) === call) {
			call.receiveWindow += bytes;
			this.#put(windowUpdate(call.id, bytes));
		}
	}

	reset(call: HostedCall): void {
		if (this.#calls.get(call.id) === call) {
			this.#put(frame(frameType.reset, 0, call.id, uint32(8)));
		}
	}

	forget(call: HostedCall): void {
		if (call.id === 0) {
			const at = this.#waiting.findIndex((each) => each.call === call);
			if (at >= 0) {
				this.#waiting.splice(at, 1);
			}
			return;
		}
		this.#calls.delete(call.id);
		while (this.#calls.size < this.#peerMaxCalls) {
			const next = this.#waiting.shift();
			if (next === undefined) {
				return;
			}
			this.#start(next.call, next.block);
		}
	}

	#open<Request, Response>(
		method: Method<MethodKind, Request, Response>,
		options: CallOptions,
	): InnerCall<Response, Request> {
		const { signal, metadata, timeoutMs } = options;
		if (signal.aborted) {
			throw toError(signal.reason);
		}
		if (this.#closed.signal.aborted) {
			throw toError(this.#closed.signal.reason);
		}
		if (this.#goingAway) {
			throw goingAway();
		}
		const headers: Record<string, string | readonly string[]> = {
			":method": "POST",
			":scheme": "http",
			":path": method.path,
			":authority": "localhost",
			te: "trailers",
			"content-type": "application/grpc",
			"user-agent": "slipway",
			...(timeoutMs === undefined ? {} : { "grpc-timeout": formatTimeout(timeoutMs) }),
		};
		addMetadata(headers, metadata);
		const call = new InnerCall(method, options, this, callWindowBytes);
		const block = encodeHeaders(headers);
		if (this.#calls.size >= this.#peerMaxCalls) {
			this.#waiting.push({ call: call, block });
		} else {
			this.#start(call, block);
		}
		return call;
	}

	#start(call: HostedCall, block: Uint8Array): void {
		call.id = this.#nextId;
		this.#nextId += 2;
		call.sendWindow = this.#peerWindow;
		this.#calls.set(call.id, call);
		for (let at = 0; at === 0 || at < block.length; at += this.#peerMaxFrame) {
			const part = block.subarray(at, at + this.#peerMaxFrame);
			const isLast = at + part.length >= block.length;
			this.#put(
				frame(
					at === 0 ? frameType.headers : frameType.continuation,
					isLast ? flag.endHeaders : 0,
					call.id,
					part,
				),
			);
		}
		this.pump(call);
	}

	/** Moves bytes from what the call has to send to what the tunnel has. */
	#takeInto(call: HostedCall, size: number): void {
		call.pendingBytes -= size;
		let rest = size;
		let whole = 0;
		while (rest > 0) {
			const chunk = call.pending[whole] as Uint8Array;
			if (chunk.length <= rest) {
				this.#put(chunk);
				rest -= chunk.length;
				whole += 1;
			} else {
				this.#put(chunk.subarray(0, rest));
				call.pending[whole] = chunk.subarray(rest);
				rest = 0;
			}
		}
		call.pending.splice(0, whole);
	}

	#put(bytes: Uint8Array): void {
		this.#out.push(bytes);
		this.#outBytes += bytes.length;
		if (this.#outBytes > maxBacklogBytes) {
			this.#close(new SlipwayError("unavailable", "the other side does not read, and makes us answer"));
			return;
		}
		if (!this.#scheduled && !this.#blocked) {
			this.#scheduled = true;
			// What is said in one go is sent as one.
			queueMicrotask(() => this.#flush());
		}
	}

	#flush(): void {
		this.#scheduled = false;
		if (this.#closed.signal.aborted) {
			return;
		}
		try {
			while (this.#out.length > 0 && !this.#blocked) {
				const room = this.#stream.send({ data: this.#batch() });
				if (room !== undefined) {
					this.#blocked = true;
					room.then(
						() => {
							this.#blocked = false;
							this.#flush();
						},
						(thrown: unknown) => this.#close(lost(thrown)),
					);
				}
			}
		} catch (thrown) {
			this.#close(lost(thrown));
			return;
		}
		for (const call of [...this.#calls.values()]) {
			call.onSent();
		}
	}

	#batch(): Uint8Array {
		let count = 0;
		let size = 0;
		for (const part of this.#out) {
			if (count > 0 && size + part.length > tunnelMessageBytes) {
				break;
			}
			size += part.length;
			count += 1;
		}
		const parts = this.#out.splice(0, count);
		this.#outBytes -= size;
		return Buffer.concat(parts, size);
	}

	async #read(): Promise<void> {
		try {
			for await (const { data, more = [] } of this.#stream) {
				if (this.#closed.signal.aborted) {
					return;
				}
				this.#onBytes(data);
				for (const piece of more) {
					this.#onBytes(piece);
				}
			}
			this.#close(lost(undefined));
		} catch (thrown) {
			this.#close(lost(thrown));
		}
	}

	#onBytes(bytes: Uint8Array): void {
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
			const { type, flags, rest } = this.#frame;
			if (type === frameType.data && (flags & flag.padded) === 0) {
				const part = bytes.subarray(at, at + rest);
				at += part.length;
				this.#frame.rest -= part.length;
				const isDone = this.#frame.rest === 0;
				const { id } = this.#frame;
				if (isDone) {
					this.#frame = undefined;
				}
				this.#onData(id, part, isDone && (flags & flag.endStream) !== 0);
				continue;
			}
			const payload = this.#gather(bytes, at, rest);
			at = Math.min(bytes.length, at + rest - payload.before);
			if (payload.bytes === undefined) {
				return;
			}
			const { id } = this.#frame;
			this.#frame = undefined;
			this.#onFrame(type, flags, id, payload.bytes);
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
		this.#partial.push(part.slice());
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
		if (rest > maxFrameBytes) {
			throw new SlipwayError("internal", `a frame of ${rest} bytes`);
		}
		if (this.#headers !== undefined && (type !== frameType.continuation || id !== this.#headers.id)) {
			throw new SlipwayError("internal", "headers do not go on");
		}
		return { type, flags: view.getUint8(4), id, rest };
	}

	#onData(id: number, bytes: Uint8Array, isLast: boolean): void {
		this.#received += bytes.length;
		if (this.#received >= connectionWindowBytes / 4) {
			this.#put(windowUpdate(0, this.#received));
			this.#received = 0;
		}
		const call = this.#calls.get(id);
		if (call === undefined) {
			// Of a call that has ended here.
			return;
		}
		call.receiveWindow -= bytes.length;
		if (call.receiveWindow < 0) {
			throw new SlipwayError("resource-exhausted", "the other side sends more than it may");
		}
		call.onData(bytes);
		if (isLast) {
			call.onEnd();
		}
	}

	#onFrame(type: number, flags: number, id: number, payload: Uint8Array): void {
		switch (type) {
			case frameType.data: {
				const padding = 1 + (payload[0] ?? 0);
				this.#onData(id, payload.subarray(1, payload.length - padding + 1), (flags & flag.endStream) !== 0);
				return;
			}
			case frameType.headers:
				this.#onHeaders(id, flags, withoutPadding(flags, payload));
				return;
			case frameType.continuation:
				this.#onContinuation(flags, payload);
				return;
			case frameType.reset:
				this.#calls.get(id)?.finish(resetError(readUint32(payload, 0)));
				return;
			case frameType.settings:
				if ((flags & flag.ack) === 0) {
					this.#onSettings(payload);
				}
				return;
			case frameType.push:
				throw new SlipwayError("internal", "a promise that was forbidden");
			case frameType.ping:
				if ((flags & flag.ack) === 0) {
					this.#put(frame(frameType.ping, flag.ack, 0, payload.slice(0, 8)));
				}
				return;
			case frameType.goAway:
				this.#onGoAway(readUint32(payload, 0) & 0x7fff_ffff);
				return;
			case frameType.windowUpdate:
				this.#onWindowUpdate(id, readUint32(payload, 0) & 0x7fff_ffff);
				return;
			default:
				// Types that we do not know are to be ignored.
				return;
		}
	}

	#onHeaders(id: number, flags: number, block: Uint8Array): void {
		if ((flags & flag.endHeaders) === 0) {
			this.#headers = { id, flags, parts: [block.slice()], bytes: block.length };
			return;
		}
		const fields = decodeHeaders(block);
		this.#calls.get(id)?.onHeaders(fields, (flags & flag.endStream) !== 0);
	}

	#onContinuation(flags: number, payload: Uint8Array): void {
		const headers = this.#headers;
		if (headers === undefined) {
			throw new SlipwayError("internal", "headers go on that did not begin");
		}
		headers.parts.push(payload.slice());
		headers.bytes += payload.length;
		if (headers.bytes > maxHeaderBytes) {
			throw new SlipwayError("resource-exhausted", `headers of more than ${maxHeaderBytes} bytes`);
		}
		if ((flags & flag.endHeaders) !== 0) {
			this.#headers = undefined;
			this.#onHeaders(headers.id, headers.flags | flag.endHeaders, Buffer.concat(headers.parts));
		}
	}

	#onSettings(payload: Uint8Array): void {
		for (let at = 0; at + 6 <= payload.length; at += 6) {
			const key = ((payload[at] ?? 0) << 8) | (payload[at + 1] ?? 0);
			const value = readUint32(payload, at + 2);
			switch (key) {
				case setting.maxConcurrent:
					this.#peerMaxCalls = Math.max(1, value);
					break;
				case setting.initialWindow:
					for (const call of this.#calls.values()) {
						call.sendWindow += value - this.#peerWindow;
					}
					this.#peerWindow = value;
					break;
				case setting.maxFrame:
					this.#peerMaxFrame = Math.min(Math.max(value, 16_384), tunnelMessageBytes);
					break;
				default:
					break;
			}
		}
		this.#put(frame(frameType.settings, flag.ack, 0, new Uint8Array(0)));
		this.#pumpAll();
	}

	#onWindowUpdate(id: number, increment: number): void {
		if (id === 0) {
			this.#sendWindow += increment;
			if (this.#sendWindow > maxWindow) {
				throw new SlipwayError("internal", "a window that is too large");
			}
			this.#pumpAll();
			return;
		}
		const call = this.#calls.get(id);
		if (call !== undefined) {
			call.sendWindow += increment;
			this.pump(call);
			call.onSent();
		}
	}

	#pumpAll(): void {
		for (const call of [...this.#calls.values()]) {
			this.pump(call);
			call.onSent();
		}
	}

	#onGoAway(lastId: number): void {
		this.#goingAway = true;
		for (const call of [...this.#calls.values()]) {
			if (call.id > lastId) {
				call.finish(goingAway());
			}
		}
		for (const { call } of [...this.#waiting]) {
			call.finish(goingAway());
		}
	}

	#close(error: SlipwayError): void {
		if (this.#closed.signal.aborted) {
			return;
		}
		this.#closed.abort(error);
		this.#out = [];
		this.#outBytes = 0;
		for (const call of [...this.#calls.values(), ...this.#waiting.map((each) => each.call)]) {
			call.finish(error);
		}
	}
}

/** Padding in front tells the length of that behind; a priority is of no interest. */
function withoutPadding(flags: number, payload: Uint8Array): Uint8Array {
	const isPadded = (flags & flag.padded) !== 0;
	const start = (isPadded ? 1 : 0) + ((flags & flag.priority) === 0 ? 0 : 5);
	return payload.subarray(start, payload.length - (isPadded ? (payload[0] ?? 0) : 0));
}

function frameHead(length: number, type: number, flags: number, id: number): Uint8Array {
	return Uint8Array.of(length >>> 16, length >>> 8, length, type, flags, id >>> 24, id >>> 16, id >>> 8, id);
}

function frame(type: number, flags: number, id: number, payload: Uint8Array): Uint8Array {
	return Buffer.concat([frameHead(payload.length, type, flags, id), payload]);
}

function settings(values: readonly (readonly [number, number])[]): Uint8Array {
	return frame(
		frameType.settings,
		0,
		0,
		Buffer.concat(values.map(([key, value]) => Buffer.concat([Uint8Array.of(0, key), uint32(value)]))),
	);
}

function windowUpdate(id: number, increment: number): Uint8Array {
	return frame(frameType.windowUpdate, 0, id, uint32(increment));
}

function uint32(value: number): Uint8Array {
	return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

function readUint32(bytes: Uint8Array, at: number): number {
	if (at + 4 > bytes.length) {
		throw new SlipwayError("internal", "a frame that is cut off");
	}
	return (
		(bytes[at] as number) * 2 ** 24 +
		(((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number))
	);
}

function lost(cause: unknown): SlipwayError {
	return new SlipwayError(
		"unavailable",
		cause === undefined ? "connection closed" : `connection closed: ${toError(cause).message}`,
		{ cause },
	);
}

function goingAway(): SlipwayError {
	return new SlipwayError("unavailable", "the client takes no more calls on this connection");
}

function resetError(code: number): SlipwayError {
	const [name, errorCode] = resetCodes[code] ?? [`${code}`, "unknown"];
	return new SlipwayError(errorCode, `stream terminated by RST_STREAM with error code: ${name}`);
}

/** RFC 9113, section 7, and what gRPC makes of them. */
const resetCodes: Readonly<Record<number, readonly [string, ErrorCode]>> = {
	0: ["NO_ERROR", "internal"],
	1: ["PROTOCOL_ERROR", "internal"],
	2: ["INTERNAL_ERROR", "internal"],
	3: ["FLOW_CONTROL_ERROR", "resource-exhausted"],
	5: ["STREAM_CLOSED", "internal"],
	6: ["FRAME_SIZE_ERROR", "internal"],
	7: ["REFUSED_STREAM", "unavailable"],
	8: ["CANCEL", "canceled"],
	9: ["COMPRESSION_ERROR", "internal"],
	11: ["ENHANCE_YOUR_CALM", "resource-exhausted"],
};
