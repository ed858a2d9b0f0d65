import type { MessageStream } from "../api/grpc.ts";
import type { BytesMessage, TunnelMessage } from "../api/services/bytes-message.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { decodeHeaders } from "./hpack.ts";
import { goingAway, lost, protocolError, resetError } from "./http2-errors.ts";
import {
	firstWindow,
	flag,
	frame,
	frameType,
	goAwayFrame,
	headersFrames,
	http2Code,
	maxStreamId,
	maxWindow,
	preface,
	readUint32,
	resetFrame,
	setting,
	settingsAckFrame,
	settingsFrame,
	windowUpdateFrame,
} from "./http2-frames.ts";
import { Outbox } from "./http2-outbox.ts";
import { FrameReader, type FrameSink } from "./http2-reader.ts";
import { Sender } from "./http2-sender.ts";
import type { CallHost, HostedCall } from "./inner-call.ts";

/** Room for what is under way, of one call and of all. */
export const callWindowBytes: number = 4 << 20;
const connectionWindowBytes = 64 << 20;
const maxFrameBytes = 1 << 20;
const maxHeaderBytes = 1 << 20;

/**
 * The client's side of HTTP/2 (RFC 9113): streams, their windows and the connection's, settings. It does what a gRPC client needs and no
 * more: no priorities, no push, no dynamic table of headers.
 */
export class Http2Connection implements CallHost, FrameSink {
	readonly maxMessageBytes: number;
	readonly #stream: MessageStream<TunnelMessage, BytesMessage>;
	readonly #outbox: Outbox;
	readonly #sender: Sender;
	readonly #reader: FrameReader = new FrameReader(this, { maxFrameBytes, maxHeaderBytes });
	readonly #closed: AbortController = new AbortController();
	/** Calls whose streams are open. */
	readonly #calls = new Map<number, HostedCall>();
	/** Calls that wait until the server takes more at once. */
	readonly #waiting: { readonly call: HostedCall; readonly block: Uint8Array }[] = [];
	/** What waits for the other side to have read everything, by the number in its ping. */
	readonly #flushed = new Map<number, () => void>();
	#pings = 0;
	#nextId = 1;
	#goingAway = false;

	#greeted = false;
	#peerMaxCalls: number = Number.POSITIVE_INFINITY;
	/** Bytes that came since the connection's window was last opened. */
	#received = 0;

	constructor(stream: MessageStream<TunnelMessage, BytesMessage>, maxMessageBytes: number) {
		this.#stream = stream;
		this.maxMessageBytes = maxMessageBytes;
		this.#outbox = new Outbox(stream, {
			refill: () => this.#sender.refill(),
			onSent: () => {
				for (const call of [...this.#calls.values()]) {
					call.onSent();
				}
			},
			onFailure: (thrown) => this.close(thrown instanceof SlipwayError ? thrown : lost(thrown)),
		});
		this.#sender = new Sender(this.#outbox, this.#calls);
		this.#outbox.put(preface);
		this.#outbox.put(
			settingsFrame([
				[setting.headerTableSize, 0],
				[setting.enablePush, 0],
				[setting.initialWindow, callWindowBytes],
				[setting.maxFrame, maxFrameBytes],
				[setting.maxHeaderList, maxHeaderBytes],
			]),
		);
		this.#outbox.put(windowUpdateFrame(0, connectionWindowBytes - firstWindow));
		void this.#read();
	}

	get closed(): AbortSignal {
		return this.#closed.signal;
	}

	backlog(): number {
		return this.#outbox.bytes;
	}

	pump(call: HostedCall): void {
		this.#sender.pump(call);
	}

	grant(call: HostedCall, bytes: number): void {
		if (this.#calls.get(call.id) === call) {
			call.receiveWindow += bytes;
			this.#outbox.put(windowUpdateFrame(call.id, bytes));
		}
	}

	reset(call: HostedCall, code: number): void {
		if (this.#calls.get(call.id) === call) {
			this.#outbox.put(resetFrame(call.id, code));
			this.forget(call);
		}
	}

	forget(call: HostedCall): void {
		if (this.#calls.get(call.id) === call) {
			this.#calls.delete(call.id);
			this.#startWaiting();
			return;
		}
		const at = this.#waiting.findIndex((each) => each.call === call);
		if (at >= 0) {
			this.#waiting.splice(at, 1);
		}
	}

	whenRead(listener: () => void): void {
		if (this.#closed.signal.aborted) {
			listener();
			return;
		}
		this.#pings += 1;
		this.#flushed.set(this.#pings, listener);
		const payload = Buffer.alloc(8);
		payload.writeUInt32BE(this.#pings, 4);
		this.#outbox.put(frame(frameType.ping, 0, 0, payload));
	}

	/** Throws when there can be no more calls. */
	checkOpen(): void {
		if (this.#closed.signal.aborted) {
			throw toError(this.#closed.signal.reason);
		}
		if (this.#goingAway || this.#nextId > maxStreamId) {
			throw goingAway();
		}
	}

	/** Begins a call with its headers, at once or when the server takes one more. */
	begin(call: HostedCall, block: Uint8Array): void {
		if (this.#calls.size >= this.#peerMaxCalls) {
			this.#waiting.push({ call, block });
		} else {
			this.#start(call, block);
		}
	}

	/** Ends everything on it. */
	close(error: SlipwayError, lastWord?: Uint8Array): void {
		if (this.#closed.signal.aborted) {
			return;
		}
		this.#outbox.close(lastWord);
		this.#closed.abort(error);
		for (const call of [...this.#calls.values(), ...this.#waiting.map((each) => each.call)]) {
			call.finish(error);
		}
		for (const listener of this.#flushed.values()) {
			listener();
		}
		this.#flushed.clear();
	}

	/** The number is taken when the headers are sent: they must rise in that order (section 5.1.1). */
	#start(call: HostedCall, block: Uint8Array): void {
		call.id = this.#nextId;
		this.#nextId += 2;
		call.sendWindow = this.#sender.callWindow;
		this.#calls.set(call.id, call);
		this.#outbox.put(headersFrames(call.id, block, this.#sender.maxFrameBytes));
		this.#sender.pump(call);
	}

	#startWaiting(): void {
		while (!this.#goingAway && !this.#closed.signal.aborted && this.#calls.size < this.#peerMaxCalls) {
			const next = this.#waiting.shift();
			if (next === undefined) {
				return;
			}
			this.#start(next.call, next.block);
		}
	}

	async #read(): Promise<void> {
		try {
			for await (const { data, more = [] } of this.#stream) {
				for (const piece of [data, ...more]) {
					if (!this.#closed.signal.aborted) {
						this.#onBytes(piece);
					}
				}
				if (this.#closed.signal.aborted) {
					return;
				}
			}
			this.close(lost(undefined));
		} catch (thrown) {
			this.close(lost(thrown));
		}
	}

	/** What is wrong in what comes is an error of the connection (section 5.4.1): the other side is told, and that is the end. */
	#onBytes(bytes: Uint8Array): void {
		try {
			this.#reader.push(bytes);
		} catch (thrown) {
			const isTooMuch = thrown instanceof SlipwayError && thrown.code === "resource-exhausted";
			this.close(lost(thrown), goAwayFrame(isTooMuch ? http2Code.flowControl : http2Code.protocol));
		}
	}

	onData(id: number, bytes: Uint8Array, size: number, isLast: boolean): void {
		this.#checkStarted(id, "data");
		this.#received += size;
		if (this.#received >= connectionWindowBytes / 4) {
			this.#outbox.put(windowUpdateFrame(0, this.#received));
			this.#received = 0;
		}
		const call = this.#calls.get(id);
		if (call === undefined) {
			// Of a stream that is closed: it has counted for the connection, and that is all (section 5.1).
			return;
		}
		call.receiveWindow -= size;
		if (call.receiveWindow < 0) {
			throw new SlipwayError("resource-exhausted", "the other side sends more than it may");
		}
		if (size > bytes.length && !isLast) {
			this.grant(call, size - bytes.length);
		}
		call.onData(bytes);
		if (isLast) {
			call.onEnd();
		}
	}

	onHeaders(id: number, block: Uint8Array, isLast: boolean): void {
		this.#checkStarted(id, "headers");
		const fields = decodeHeaders(block);
		this.#calls.get(id)?.onHeaders(fields, isLast);
	}

	onFrame(type: number, flags: number, id: number, payload: Uint8Array): void {
		const isAck = (flags & flag.ack) !== 0;
		if (!this.#greeted && (type !== frameType.settings || isAck)) {
			throw protocolError("the server does not begin with its settings");
		}
		switch (type) {
			case frameType.reset:
				this.#checkStarted(id, "a reset");
				this.#onReset(id, readUint32(payload, 0));
				return;
			case frameType.settings:
				if (!isAck) {
					this.#onSettings(payload);
				} else if (payload.length > 0) {
					throw protocolError("settings that are acknowledged with more");
				}
				return;
			case frameType.push:
				throw protocolError("a promise that was forbidden");
			case frameType.ping:
				if (isAck) {
					this.#onFlushed(readUint32(payload, 0) * 2 ** 32 + readUint32(payload, 4));
				} else {
					this.#outbox.put(frame(frameType.ping, flag.ack, 0, payload));
				}
				return;
			case frameType.goAway:
				this.#onGoAway(readUint32(payload, 0) & 0x7fff_ffff, readUint32(payload, 4));
				return;
			case frameType.windowUpdate:
				this.#onWindowUpdate(id, readUint32(payload, 0) & 0x7fff_ffff);
				return;
			default:
				// Types that we do not know are to be ignored.
				return;
		}
	}

	/** Nothing may come on a stream that nobody has opened; the server opens none, as pushing is off (section 5.1). */
	#checkStarted(id: number, what: string): void {
		if (!this.#greeted) {
			throw protocolError("the server does not begin with its settings");
		}
		if (id % 2 === 0 || id >= this.#nextId) {
			throw protocolError(`${what} on stream ${id}, which is not open`);
		}
	}

	/** The stream is closed with that: no reset is answered with another. */
	#onReset(id: number, code: number): void {
		const call = this.#calls.get(id);
		if (call !== undefined) {
			this.forget(call);
			call.finish(resetError(code));
		}
	}

	#onSettings(payload: Uint8Array): void {
		if (payload.length % 6 !== 0) {
			throw protocolError(`settings of ${payload.length} bytes`);
		}
		this.#greeted = true;
		for (let at = 0; at < payload.length; at += 6) {
			const key = ((payload[at] ?? 0) << 8) | (payload[at + 1] ?? 0);
			this.#onSetting(key, readUint32(payload, at + 2));
		}
		this.#outbox.put(settingsAckFrame());
		this.#startWaiting();
		this.#sender.pumpAll();
	}

	#onSetting(key: number, value: number): void {
		switch (key) {
			case setting.enablePush:
				if (value !== 0) {
					throw protocolError("a server that wants to be pushed to");
				}
				return;
			case setting.maxConcurrent:
				this.#peerMaxCalls = value;
				return;
			case setting.initialWindow:
				this.#sender.setCallWindow(value);
				return;
			case setting.maxFrame:
				this.#sender.setMaxFrame(value);
				return;
			default:
				// We refer to no table, and ask for nothing else that it could grant.
				return;
		}
	}

	#onWindowUpdate(id: number, increment: number): void {
		if (id === 0) {
			if (increment === 0) {
				throw protocolError("a window that is opened by nothing");
			}
			this.#sender.openWindow(increment);
			return;
		}
		this.#checkStarted(id, "a window");
		const call = this.#calls.get(id);
		if (call === undefined) {
			return;
		}
		call.sendWindow += increment;
		if (increment === 0 || call.sendWindow > maxWindow) {
			// An error of the stream alone (sections 6.9, 6.9.1).
			this.reset(call, increment === 0 ? http2Code.protocol : http2Code.flowControl);
			call.finish(protocolError(`a window of the call was opened by ${increment}`));
			return;
		}
		this.#sender.pump(call);
		call.onSent();
	}

	#onFlushed(ping: number): void {
		const listener = this.#flushed.get(ping);
		this.#flushed.delete(ping);
		listener?.();
	}

	/** What the server has not looked at may be tried again elsewhere; what it has goes on (section 6.8). */
	#onGoAway(lastId: number, code: number): void {
		this.#goingAway = true;
		for (const { call } of this.#waiting.splice(0)) {
			call.finish(goingAway());
		}
		for (const call of [...this.#calls.values()]) {
			if (call.id > lastId) {
				this.forget(call);
				call.finish(goingAway(code));
			}
		}
	}
}
