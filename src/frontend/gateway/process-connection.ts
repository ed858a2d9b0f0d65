import { Duplex } from "node:stream";
import { InputQueue } from "./input-queue.ts";

/** The standard streams of a process as one connection: what is written goes to its input, what it prints is read. */
export class ProcessConnection extends Duplex {
	readonly stdin: InputQueue = new InputQueue();
	#wanted: (() => void) | undefined;

	constructor() {
		// The other side's end is told by the end of the process.
		super({ allowHalfOpen: false });
	}

	/** Takes output; the process waits until somebody has read it. */
	onStdout(chunk: Uint8Array): Promise<void> | undefined {
		if (this.destroyed || this.push(Buffer.from(chunk))) {
			return undefined;
		}
		return new Promise((resolve) => {
			this.#wanted = resolve;
		});
	}

	override _read(): void {
		const wanted = this.#wanted;
		this.#wanted = undefined;
		wanted?.();
	}

	override _write(chunk: Buffer, _: BufferEncoding, done: () => void): void {
		this.stdin.push(chunk).then(done, done);
	}

	override _final(done: () => void): void {
		this.stdin.end();
		done();
	}

	override _destroy(error: Error | null, done: (error: Error | null) => void): void {
		this.stdin.stop();
		this._read();
		done(error);
	}
}
