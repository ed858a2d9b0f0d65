import { toError } from "../errors/errors.ts";

/** At most so many at a time; the others wait in the order in which they came. */
export interface Limit {
	/** Waits for a slot, which is given back by disposing it; disposing again does nothing. Rejects with the reason of `signal`. */
	acquire(options: { readonly signal: AbortSignal }): Promise<Disposable>;
}

/** A limit of `size` slots; Infinity never makes anybody wait. */
export function createLimit(size: number): Limit {
	const waiting = new Set<() => void>();
	let free = size;

	/** A slot goes from hand to hand, so that who comes meanwhile cannot take it from who waits. */
	function leave(): void {
		const [next] = waiting;
		if (next === undefined) {
			free++;
			return;
		}
		waiting.delete(next);
		next();
	}

	return {
		async acquire({ signal }) {
			if (signal.aborted) {
				throw toError(signal.reason);
			}
			if (free > 0) {
				free--;
			} else {
				await new Promise<void>((resolve, reject) => {
					const enter = (): void => {
						signal.removeEventListener("abort", abort);
						resolve();
					};
					const abort = (): void => {
						waiting.delete(enter);
						reject(toError(signal.reason));
					};
					waiting.add(enter);
					signal.addEventListener("abort", abort, { once: true });
				});
			}
			let held = true;
			return {
				[Symbol.dispose]() {
					if (held) {
						held = false;
						leave();
					}
				},
			};
		},
	};
}
