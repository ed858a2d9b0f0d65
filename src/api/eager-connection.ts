import { Duplex } from "node:stream";

/**
 * A connection that takes every write at once.
 *
 * Why: while a write of node:http2 is under way it does not read (Node 24). When both ends do so on a connection that is full in both
 * directions, both wait for ever. One end that always reads is enough; here it is the client's. What waits is bounded by the
 * senders, which ask for `backlog`, and by the windows of the other side; a peer that takes nothing while it makes us answer
 * (pings, settings) is cut off at `maxBacklogBytes`.
 */
export class EagerConnection extends Duplex {
	readonly #inner: Duplex;
	readonly #listeners: Set<() => void> = new Set();
	readonly #onWritten = (): void => {
		if (this.#listeners.size > 0 && this.backlog <= lowBytes) {
			const listeners = [...this.#listeners];
			this.#listeners.clear();
			for (const listener of listeners) {
				listener();
			}
		}
	};

	constructor(inner: Duplex) {
		super({ autoDestroy: true });
		this.#inner = inner;
		inner.on("data", (chunk) => {
			if (!this.push(chunk)) {
				inner.pause();
			}
		});
		inner.once("end", () => this.push(null));
		inner.on("error", (error) => this.destroy(error));
		inner.once("close", () => this.destroy());
		if (inner.destroyed) {
			this.destroy();
		}
	}

	/** Bytes that the connection below has not taken. */
	get backlog(): number {
		return this.#inner.writableLength;
	}

	/** Calls the listener once when there is little backlog. */
	whenLow(listener: () => void): void {
		this.#listeners.add(listener);
	}

	override _read(): void {
		this.#inner.resume();
	}

	override _write(chunk: Uint8Array, _encoding: string, done: (error?: Error) => void): void {
		this.#inner.write(chunk, this.#onWritten);
		done(this.#overflow());
	}

	override _writev(chunks: readonly { readonly chunk: Uint8Array }[], done: (error?: Error) => void): void {
		this.#inner.cork();
		for (const { chunk } of chunks) {
			this.#inner.write(chunk, this.#onWritten);
		}
		this.#inner.uncork();
		done(this.#overflow());
	}

	override _final(done: () => void): void {
		this.#inner.end(done);
	}

	override _destroy(error: Error | null, done: (error: Error | null) => void): void {
		this.#inner.destroy();
		this.#listeners.clear();
		done(error);
	}

	#overflow(): Error | undefined {
		return this.backlog > maxBacklogBytes
			? new Error("the other side does not read, and makes us answer")
			: undefined;
	}
}

const lowBytes = 1 << 20;
const maxBacklogBytes = 64 << 20;
