import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../errors/errors.ts";
import type { RetryPolicy } from "./registry.ts";
import { isRetryable, unmarkRetryable } from "./transport.ts";

/** When the server said how long to wait; kept beside the error. */
const waitMs = new WeakMap<object, number>();

export function setRetryAfter(error: object, header: string | undefined, now: number = Date.now()): void {
	if (header === undefined) {
		return;
	}
	const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
	if (Number.isFinite(ms)) {
		waitMs.set(error, Math.max(0, ms));
	}
}

export interface Retrier {
	/** Waits until another attempt makes sense, or throws `thrown` if none does. */
	pause(thrown: unknown): Promise<void>;
	/** Something was achieved: attempts count anew. */
	reset(): void;
}

export function createRetrier(policy: RetryPolicy, signal: AbortSignal): Retrier {
	let failed = 0;
	return {
		pause: async (thrown) => {
			failed++;
			if (signal.aborted) {
				throw toError(signal.reason);
			}
			if (!isRetryable(thrown)) {
				throw thrown;
			}
			if (failed >= policy.attempts) {
				// Whoever called us must not begin again.
				unmarkRetryable(thrown);
				throw thrown;
			}
			const grown = policy.delayMs * 2 ** (failed - 1) * (1 - Math.random() / 2);
			const said = typeof thrown === "object" && thrown !== null ? waitMs.get(thrown) : undefined;
			try {
				await sleep(Math.min(policy.maxDelayMs, Math.max(grown, said ?? 0)), undefined, { signal });
			} catch {
				throw toError(signal.reason);
			}
		},
		reset: () => {
			failed = 0;
		},
	};
}

/** Runs `attempt` until it succeeds, fails for good, or has failed too often. */
export async function withRetries<T>(
	policy: RetryPolicy,
	signal: AbortSignal,
	attempt: () => Promise<T>,
): Promise<T> {
	const retrier = createRetrier(policy, signal);
	for (;;) {
		try {
			return await attempt();
		} catch (thrown) {
			await retrier.pause(thrown);
		}
	}
}
