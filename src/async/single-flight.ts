import { toError } from "../errors/errors.ts";

/** Work by key that runs once for all who ask for it at the same time. Nothing is kept afterwards, neither value nor error. */
export interface SingleFlight<K, T> {
	/**
	 * Joins the work under way for `key`, or starts `work`. Rejects with the work's error, or at once with the reason of `signal`;
	 * when the last caller has left so, the signal given to `work` is aborted and who asks next starts anew.
	 */
	run(
		key: K,
		work: (signal: AbortSignal) => Promise<T>,
		options: { readonly signal: AbortSignal },
	): Promise<T>;
}

interface Flight<T> {
	readonly controller: AbortController;
	readonly promise: Promise<T>;
	callers: number;
}

export function createSingleFlight<K, T>(): SingleFlight<K, T> {
	const flights = new Map<K, Flight<T>>();

	function forget(key: K, flight: Flight<T>): void {
		if (flights.get(key) === flight) {
			flights.delete(key);
		}
	}

	function start(key: K, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
		const controller = new AbortController();
		const promise = Promise.resolve()
			.then(() => work(controller.signal))
			.finally(() => forget(key, flight));
		const flight: Flight<T> = { controller, promise, callers: 0 };
		promise.catch(() => {}); // who left does not hear of it; who waits has the promise itself
		flights.set(key, flight);
		return flight;
	}

	return {
		async run(key, work, { signal }) {
			if (signal.aborted) {
				throw toError(signal.reason);
			}
			const flight = flights.get(key) ?? start(key, work);
			flight.callers++;
			return await new Promise<T>((resolve, reject) => {
				const leave = (): void => {
					flight.callers--;
					if (flight.callers === 0) {
						forget(key, flight);
						flight.controller.abort(signal.reason);
					}
					reject(toError(signal.reason));
				};
				signal.addEventListener("abort", leave, { once: true });
				flight.promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
			});
		},
	};
}
