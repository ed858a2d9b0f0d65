import { type ErrorDetail, SlipwayError, toError } from "../errors/errors.ts";

/**
 * A job is a module `src/<room>/<name>.job.ts` that exports `run`. It runs alone on its thread until it ends, so it may
 * block: that is what threads are for. What it takes and gives back is copied by structured clone.
 */
export interface JobModule<I, O> {
	run(input: I, context: JobContext): Promise<O> | O;
}

export interface JobContext {
	/** Fires when the thread next comes to its event loop; for waiting code. */
	readonly signal: AbortSignal;
	/** Throws if the caller has aborted, at once and without the event loop; for loops that never wait. Costs nothing. */
	throwIfAborted(): void;
	/** Sends progress to the caller's `onMessage`. What is in `transfer` is moved, not copied. */
	post(message: unknown, transfer?: readonly MessagePortOrBuffer[]): void;
}

export type MessagePortOrBuffer = import("node:worker_threads").Transferable;

/** What the pool sends to a thread. */
export type ToThread =
	| {
			readonly kind: "run";
			readonly job: string;
			readonly input: unknown;
			/** One 32-bit word, 0 until the caller aborts. */
			readonly aborted: SharedArrayBuffer;
	  }
	| { readonly kind: "abort" };

/** What a thread sends back. */
export type FromThread =
	| { readonly kind: "post"; readonly message: unknown }
	| { readonly kind: "done"; readonly output: unknown }
	| { readonly kind: "failed"; readonly error: PlainError };

/** An error as data: structured clone keeps neither our class nor its fields. */
export interface PlainError {
	readonly code: SlipwayError["code"];
	readonly message: string;
	readonly details: readonly ErrorDetail[];
	readonly stack: string | undefined;
	readonly cause: PlainError | undefined;
}

/** Causes beyond this depth are dropped: a chain may be a loop. */
const maxCauses = 8;

export function toPlainError(thrown: unknown, depth = 0): PlainError {
	const error = toError(thrown);
	return {
		code: error.code,
		message: error.message,
		details: error.details,
		stack: error.stack,
		cause:
			error.cause === undefined || depth === maxCauses ? undefined : toPlainError(error.cause, depth + 1),
	};
}

/** The stack is that of the other thread: it says where the error was made. */
export function fromPlainError(plain: PlainError): SlipwayError {
	const error = new SlipwayError(plain.code, plain.message, {
		details: plain.details,
		...(plain.cause === undefined ? {} : { cause: fromPlainError(plain.cause) }),
	});
	if (plain.stack !== undefined) {
		error.stack = plain.stack;
	}
	return error;
}
