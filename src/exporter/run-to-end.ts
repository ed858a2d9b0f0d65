import type { ThreadPool } from "../async/pool.ts";
import { canceled, toError } from "../errors/errors.ts";

/** Input of a job that writes to what its caller cleans up. */
export interface Stoppable {
	/** One 32-bit word; not 0: stop. The job answers only when it no longer writes. */
	readonly stop: SharedArrayBuffer;
}

/**
 * Runs a job and, on abort, waits until the thread has ended it. The pool by itself gives up waiting at once, and then the
 * thread would write to a descriptor that is closed already, or into a directory whose mount is gone.
 */
export async function runToEnd<I, O>(
	pool: ThreadPool,
	job: string,
	input: I,
	options: { readonly signal: AbortSignal; readonly onMessage?: (message: unknown) => void },
): Promise<O> {
	const { signal, onMessage } = options;
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	const stop = new SharedArrayBuffer(4);
	const onAbort = (): void => {
		Atomics.store(new Int32Array(stop), 0, 1);
	};
	signal.addEventListener("abort", onAbort);
	try {
		const output = await pool.run<I & Stoppable, O>(
			job,
			{ ...input, stop },
			{ signal: new AbortController().signal, ...(onMessage === undefined ? {} : { onMessage }) },
		);
		if (signal.aborted) {
			throw toError(signal.reason);
		}
		return output;
	} catch (thrown) {
		throw signal.aborted ? toError(signal.reason) : toError(thrown);
	} finally {
		signal.removeEventListener("abort", onAbort);
	}
}

/** For the job: what to call in loops. */
export function stopCheck({ stop }: Stoppable, throwIfAborted: () => void): () => void {
	const word = new Int32Array(stop);
	return () => {
		throwIfAborted();
		if (Atomics.load(word, 0) !== 0) {
			throw canceled();
		}
	};
}
