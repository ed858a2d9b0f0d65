import { progressTime } from "../progress/progress.ts";
import type { StepContext } from "../solver/solver.ts";
import type { LogLimits } from "./worker.ts";

/** The last bytes that are kept of a clipped stream, to be shown if the step fails. */
const tailBytes = 256 * 1024;

/**
 * Hands a step's output on to progress, within limits: a step that prints without end is cut, and says so, and goes on. What
 * was cut is not lost if the step fails: `flush` then shows the last of it.
 */
export interface StepLog {
	write(stream: 1 | 2, chunk: Uint8Array): void;
	flush(): void;
}

export function createStepLog(
	context: StepContext,
	limits: LogLimits,
	now: () => number = progressTime,
): StepLog {
	const show = (stream: 1 | 2, data: Uint8Array): void => {
		if (data.length > 0) {
			context.progress.write({
				kind: "log",
				log: { vertex: context.vertex, stream, data, timestamp: now() },
			});
		}
	};
	const streams = { 1: new LimitedStream(limits, now), 2: new LimitedStream(limits, now) };
	return {
		write: (stream, chunk) => show(stream, streams[stream].take(chunk)),
		flush: () => {
			show(1, streams[1].tail());
			show(2, streams[2].tail());
		},
	};
}

class LimitedStream {
	readonly #limits: LogLimits;
	readonly #now: () => number;
	readonly #started: number;
	#size = 0;
	#clipping = false;
	/** Set from the first cut on. */
	#tail: Uint8Array[] | undefined;
	#tailSize = 0;

	constructor(limits: LogLimits, now: () => number) {
		this.#limits = limits;
		this.#now = now;
		this.#started = now();
	}

	/** What of the chunk may be shown, with a note where showing stops. */
	take(chunk: Uint8Array): Uint8Array {
		const { limit, reason } = this.#limit();
		const allowed = limit === -1 ? chunk.length : Math.max(0, Math.min(chunk.length, limit - this.#size));
		this.#size += chunk.length;
		if (allowed < chunk.length) {
			this.#tail ??= [];
		}
		this.#remember(chunk);
		if (allowed === chunk.length) {
			this.#clipping = false;
			return chunk;
		}
		const shown = chunk.subarray(0, allowed);
		if (this.#clipping) {
			return shown;
		}
		this.#clipping = true;
		return Buffer.concat([shown, Buffer.from(`\n[output clipped, log limit ${reason} reached]\n`)]);
	}

	tail(): Uint8Array {
		const data = Buffer.concat(this.#tail ?? []);
		this.#tail = undefined;
		return data.subarray(Math.max(0, data.length - tailBytes));
	}

	#limit(): { readonly limit: number; readonly reason: string } {
		const { maxBytes, maxBytesPerSecond } = this.#limits;
		const seconds = Math.max(1, Math.ceil((this.#now() - this.#started) / 1000));
		const bySpeed = seconds * maxBytesPerSecond;
		// As with BuildKit, no limit of size is no limit of speed either.
		return maxBytesPerSecond !== -1 && bySpeed <= maxBytes
			? { limit: bySpeed, reason: `${binarySize(maxBytesPerSecond)}/s` }
			: { limit: maxBytes, reason: binarySize(maxBytes) };
	}

	#remember(chunk: Uint8Array): void {
		if (this.#tail === undefined) {
			return;
		}
		this.#tail.push(chunk);
		this.#tailSize += chunk.length;
		while (this.#tailSize - (this.#tail[0]?.length ?? 0) >= tailBytes) {
			this.#tailSize -= this.#tail.shift()?.length ?? 0;
		}
	}
}

const binaryUnits = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** As Go's `%#g` of a size: `2MiB`, `1.46484375KiB`. */
function binarySize(bytes: number): string {
	const exponent = bytes < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(bytes) / 10));
	return `${bytes / 1024 ** exponent}${binaryUnits[exponent]}`;
}
