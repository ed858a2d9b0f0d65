import { checkWindow, protocolError } from "./http2-errors.ts";
import { firstMaxFrame, firstWindow, flag, frameHead, frameType } from "./http2-frames.ts";
import { type Outbox, tunnelMessageBytes } from "./http2-outbox.ts";
import type { HostedCall } from "./inner-call.ts";

/** The data that goes out, within the windows that the other side has opened (RFC 9113, sections 5.2 and 6.9) and the room of the outbox. */
export class Sender {
	readonly #outbox: Outbox;
	readonly #calls: ReadonlyMap<number, HostedCall>;
	#window = firstWindow;
	#callWindow = firstWindow;
	#maxFrameBytes = firstMaxFrame;
	/** A call has data that found no room in the outbox. */
	#held = false;
	/** The call that has sent last. */
	#lastId = 0;

	/** `calls` are those whose streams are open, by their numbers. */
	constructor(outbox: Outbox, calls: ReadonlyMap<number, HostedCall>) {
		this.#outbox = outbox;
		this.#calls = calls;
	}

	/** Of a stream that begins. */
	get callWindow(): number {
		return this.#callWindow;
	}

	get maxFrameBytes(): number {
		return this.#maxFrameBytes;
	}

	pump(call: HostedCall): void {
		if (call.sentEnd || this.#calls.get(call.id) !== call) {
			return;
		}
		while (call.pending.length > 0) {
			const size = Math.min(call.pendingBytes, call.sendWindow, this.#window, this.#maxFrameBytes);
			// A window may be below nothing, after the settings have made it smaller (section 6.9.2).
			if (size <= 0) {
				return;
			}
			if (!this.#outbox.hasRoom) {
				this.#held = true;
				return;
			}
			const isLast = call.wantsEnd && size === call.pendingBytes;
			this.#outbox.put(frameHead(size, frameType.data, isLast ? flag.endStream : 0, call.id));
			this.#takeInto(call, size);
			call.sendWindow -= size;
			this.#window -= size;
			call.sentEnd = isLast;
		}
		if (call.wantsEnd && !call.sentEnd) {
			call.sentEnd = true;
			this.#outbox.put(frameHead(0, frameType.data, flag.endStream, call.id));
		}
	}

	pumpAll(): void {
		for (const call of [...this.#calls.values()]) {
			this.pump(call);
			call.onSent();
		}
	}

	/** Those that have waited come first. */
	refill(): void {
		if (!this.#held) {
			return;
		}
		this.#held = false;
		const calls = [...this.#calls.values()];
		const next = Math.max(
			0,
			calls.findIndex((call) => call.id > this.#lastId),
		);
		for (const call of [...calls.slice(next), ...calls.slice(0, next)]) {
			if (!this.#outbox.hasRoom) {
				this.#held = true;
				return;
			}
			this.pump(call);
			this.#lastId = call.id;
		}
	}

	/** The connection's window is opened. */
	openWindow(increment: number): void {
		this.#window += increment;
		checkWindow(this.#window);
		this.pumpAll();
	}

	/** The other side's setting; windows that are open change with it. */
	setCallWindow(bytes: number): void {
		checkWindow(bytes);
		for (const call of this.#calls.values()) {
			call.sendWindow += bytes - this.#callWindow;
			checkWindow(call.sendWindow);
		}
		this.#callWindow = bytes;
	}

	setMaxFrame(bytes: number): void {
		if (bytes < firstMaxFrame || bytes >= 2 ** 24) {
			throw protocolError(`frames of at most ${bytes} bytes`);
		}
		this.#maxFrameBytes = Math.min(bytes, tunnelMessageBytes);
	}

	/** Moves bytes from what the call has to send to what the tunnel has. */
	#takeInto(call: HostedCall, size: number): void {
		call.pendingBytes -= size;
		let rest = size;
		let whole = 0;
		while (rest > 0) {
			const chunk = call.pending[whole] as Uint8Array;
			if (chunk.length <= rest) {
				this.#outbox.put(chunk);
				rest -= chunk.length;
				whole += 1;
			} else {
				this.#outbox.put(chunk.subarray(0, rest));
				call.pending[whole] = chunk.subarray(rest);
				rest = 0;
			}
		}
		call.pending.splice(0, whole);
	}
}
