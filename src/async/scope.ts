import { canceled, type SlipwayError } from "../errors/errors.ts";

/**
 * What a piece of shared work lives in: it is aborted once, and whoever waits inside it is told.
 *
 * The same idea as an `AbortSignal`, for graphs of thousands of waits: entering and leaving are constant in time however
 * many others wait, and the `AbortSignal` for foreign code is made only when somebody asks for it.
 */
export class Scope {
	readonly #leave: (() => void) | undefined;
	#listeners: Set<() => void> | undefined;
	#controller: AbortController | undefined;
	#aborted = false;
	#reason: unknown;

	constructor(parent?: Scope) {
		if (parent === undefined) {
			return;
		}
		this.#leave = parent.onAbort(() => this.abort(parent.reason));
	}

	/** A scope that ends with the signal. Whoever made it disposes it, so that the signal forgets it. */
	static of(signal: AbortSignal): Scope & Disposable {
		const scope = new Scope();
		const abort = (): void => scope.abort(signal.reason);
		if (signal.aborted) {
			abort();
		} else {
			signal.addEventListener("abort", abort, { once: true });
		}
		return Object.assign(scope, { [Symbol.dispose]: () => signal.removeEventListener("abort", abort) });
	}

	get aborted(): boolean {
		return this.#aborted;
	}

	get reason(): unknown {
		return this.#reason;
	}

	get signal(): AbortSignal {
		if (this.#controller === undefined) {
			this.#controller = new AbortController();
			if (this.#aborted) {
				this.#controller.abort(this.#reason);
			}
		}
		return this.#controller.signal;
	}

	/** Calls `listener` on abort: at once if that has been. Gives the function that takes it back. */
	onAbort(listener: () => void): () => void {
		if (this.#aborted) {
			listener();
			return () => {};
		}
		this.#listeners ??= new Set();
		const listeners = this.#listeners.add(listener);
		return () => listeners.delete(listener);
	}

	abort(reason: unknown): void {
		if (this.#aborted) {
			return;
		}
		this.#aborted = true;
		this.#reason = reason;
		this.#leave?.();
		const listeners = this.#listeners;
		this.#listeners = undefined;
		this.#controller?.abort(reason);
		for (const listener of listeners ?? []) {
			listener();
		}
	}

	error(): SlipwayError {
		return canceled(this.#reason);
	}

	throwIfAborted(): void {
		if (this.#aborted) {
			throw this.error();
		}
	}
}

/**
 * Runs works side by side in a scope of their own. The first that fails, or that answers true ("this is enough"), ends
 * the waiting, and what the others still wait for is let go. True if it was enough.
 */
export async function parallel(
	scope: Scope,
	works: readonly ((scope: Scope) => Promise<unknown>)[],
): Promise<boolean> {
	if (works.length === 0) {
		return false;
	}
	const inner = new Scope(scope);
	try {
		return await new Promise<boolean>((resolve, reject) => {
			let left = works.length;
			for (const work of works) {
				work(inner).then((enough) => {
					left--;
					if (enough === true || left === 0) {
						resolve(enough === true);
					}
				}, reject);
			}
		});
	} finally {
		inner.abort(ended);
	}
}

const ended: SlipwayError = canceled("no longer needed");
