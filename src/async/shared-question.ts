import { canceled } from "../errors/errors.ts";
import { Scope } from "./scope.ts";

interface Waiter<T> {
	resolve(value: T): void;
	reject(error: unknown): void;
	/** Takes the listener on the waiter's own scope back. */
	leave(): void;
}

interface Attempt {
	readonly scope: Scope;
	readonly settled: Promise<void>;
}

type Outcome<T> =
	| { readonly kind: "none" }
	| { readonly kind: "value"; readonly value: T }
	| { readonly kind: "error"; readonly error: unknown }
	| { readonly kind: "closed" };

export interface SharedQuestionOptions<T> {
	/** Gets a value that nobody will be given: its attempt was aborted, or the question is closed. */
	readonly discard?: (value: T) => Promise<void>;
}

/**
 * A question that is worked on once, for all who ask.
 *
 * The first to ask starts an attempt; who asks meanwhile waits for the same one. A value is kept, and so is an error
 * until `forgetError`. Who is aborted stops waiting; when the last one has gone the attempt is aborted and leaves
 * nothing behind. That happens one turn of the event loop later, so that work goes on where one waiter hands over to
 * another. At most one attempt runs at a time: who asks while an aborted one is ending waits for its end and a new one.
 *
 * An attempt starts in a microtask of its own: asking through a chain of thousands of questions needs no stack.
 */
export class SharedQuestion<T> implements AsyncDisposable {
	readonly #work: (scope: Scope) => Promise<T>;
	readonly #discard: ((value: T) => Promise<void>) | undefined;
	readonly #waiters = new Set<Waiter<T>>();
	#outcome: Outcome<T> = { kind: "none" };
	#attempt: Attempt | undefined;

	constructor(work: (scope: Scope) => Promise<T>, options: SharedQuestionOptions<T> = {}) {
		this.#work = work;
		this.#discard = options.discard;
	}

	/** Rejects with the attempt's error, or with `canceled` when `scope` is aborted or the question is closed. */
	ask(scope: Scope): Promise<T> {
		if (scope.aborted) {
			return Promise.reject(scope.error());
		}
		switch (this.#outcome.kind) {
			case "value":
				return Promise.resolve(this.#outcome.value);
			case "error":
				return Promise.reject(this.#outcome.error);
			case "closed":
				return Promise.reject(canceled());
			case "none":
				return new Promise((resolve, reject) => this.#wait(scope, resolve, reject));
		}
	}

	/** The value if it is there. */
	get value(): T | undefined {
		return this.#outcome.kind === "value" ? this.#outcome.value : undefined;
	}

	get failed(): boolean {
		return this.#outcome.kind === "error";
	}

	forgetError(): void {
		if (this.#outcome.kind === "error") {
			this.#outcome = { kind: "none" };
		}
	}

	/** Ask anew next time. What runs goes on. */
	forget(): void {
		if (this.#outcome.kind === "value") {
			this.#give(this.#outcome.value);
		}
		if (this.#outcome.kind !== "closed") {
			this.#outcome = { kind: "none" };
		}
	}

	/** Aborts what runs, lets go of the value, and waits until the attempt has ended. Nothing can be asked any more. */
	async [Symbol.asyncDispose](): Promise<void> {
		this.forget();
		this.#outcome = { kind: "closed" };
		this.#settleAll((waiter) => waiter.reject(canceled()));
		this.#attempt?.scope.abort(canceled());
		await this.#attempt?.settled;
	}

	#wait(scope: Scope, resolve: (value: T) => void, reject: (error: unknown) => void): void {
		const waiter: Waiter<T> = { resolve, reject, leave: () => {} };
		this.#waiters.add(waiter);
		waiter.leave = scope.onAbort(() => {
			this.#waiters.delete(waiter);
			reject(scope.error());
			this.#abortIfAlone();
		});
		if (this.#attempt === undefined) {
			this.#start();
		}
	}

	#start(): void {
		const scope = new Scope();
		const attempt: Attempt = {
			scope,
			settled: Promise.resolve()
				.then(() => this.#work(scope))
				.then(
					(value) => this.#end(attempt, { kind: "value", value }),
					(error: unknown) => this.#end(attempt, { kind: "error", error }),
				),
		};
		this.#attempt = attempt;
	}

	#abortIfAlone(): void {
		const attempt = this.#attempt;
		if (attempt === undefined || this.#waiters.size > 0 || attempt.scope.aborted) {
			return;
		}
		setImmediate(() => {
			if (this.#waiters.size === 0 && this.#attempt === attempt) {
				attempt.scope.abort(canceled());
			}
		});
	}

	#end(attempt: Attempt, outcome: Extract<Outcome<T>, { kind: "value" | "error" }>): void {
		this.#attempt = undefined;
		if (attempt.scope.aborted || this.#outcome.kind === "closed") {
			if (outcome.kind === "value") {
				this.#give(outcome.value);
			}
			if (this.#waiters.size > 0) {
				this.#start();
			}
			return;
		}
		this.#outcome = outcome;
		this.#settleAll(
			outcome.kind === "value"
				? (waiter) => waiter.resolve(outcome.value)
				: (waiter) => waiter.reject(outcome.error),
		);
	}

	#settleAll(settle: (waiter: Waiter<T>) => void): void {
		const waiters = [...this.#waiters];
		this.#waiters.clear();
		for (const waiter of waiters) {
			waiter.leave();
			settle(waiter);
		}
	}

	#give(value: T): void {
		// A value that cannot be let go of is the business of its own room, which warns; here nobody waits for it.
		this.#discard?.(value).catch(() => {});
	}
}
