import { toError } from "../errors/errors.ts";

/** One at a time per key, in order of arrival; keys do not wait for each other. */
export interface KeyedLock {
	/** Runs `work` when nobody else holds the key. Rejects with the signal's reason while it still waits; never in the middle of `work`. */
	run<T>(key: string, options: { readonly signal: AbortSignal }, work: () => Promise<T>): Promise<T>;
}

export function createKeyedLock(): KeyedLock {
	/** Ends when the last one in line has ended; never rejects. */
	const tails = new Map<string, Promise<void>>();
	return {
		async run(key, { signal }, work) {
			const before = tails.get(key);
			const { promise: ended, resolve: end } = Promise.withResolvers<void>();
			const tail = before === undefined ? ended : before.then(() => ended);
			tails.set(key, tail);
			try {
				if (before !== undefined) {
					await settledOrAborted(before, signal);
				}
				if (signal.aborted) {
					throw toError(signal.reason);
				}
				return await work();
			} finally {
				end();
				if (tails.get(key) === tail) {
					tails.delete(key);
				}
			}
		},
	};
}

function settledOrAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
	return new Promise((resolve, reject) => {
		const stop = (): void => reject(toError(signal.reason));
		if (signal.aborted) {
			stop();
			return;
		}
		signal.addEventListener("abort", stop, { once: true });
		void promise.then(() => {
			signal.removeEventListener("abort", stop);
			resolve();
		});
	});
}
