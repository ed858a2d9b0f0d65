import { createLimit, type Limit } from "../async/limit.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Op, StepContext } from "../solver/solver.ts";
import { clientsOf, type Output } from "./worker.ts";

/** What a build sets for its own steps, besides what is in its graph. */
export interface StepLimits {
	/** For the process of a step, from its start. */
	readonly timeoutMs: number | undefined;
	/** How many run at once. */
	readonly slots: Limit | undefined;
}

/** From the options `step-timeout` (`1500ms`) and `max-parallelism` of a build; undefined if there is none. */
export function stepLimitsOf(options: Readonly<Record<string, string>>): StepLimits | undefined {
	const { "step-timeout": timeout = "", "max-parallelism": parallelism = "" } = options;
	if (timeout === "" && parallelism === "") {
		return undefined;
	}
	return {
		timeoutMs: timeout === "" ? undefined : positive("step-timeout", timeout, /^(\d+)ms$/),
		slots: parallelism === "" ? undefined : createLimit(positive("max-parallelism", parallelism, /^(\d+)$/)),
	};
}

/** Of the build that wanted the step first. */
export function limitsOf(context: StepContext): StepLimits | undefined {
	return clientsOf(context)[0]?.limits;
}

/** The op, whose execution waits until it is among those that may run at once. */
export function withSlot(op: Op<Output>): Op<Output> {
	return {
		...op,
		async execute(inputs, context) {
			using _slot = await limitsOf(context)?.slots?.acquire({ signal: context.signal });
			return await op.execute(inputs, context);
		},
	};
}

function positive(name: string, text: string, pattern: RegExp): number {
	const value = Number(pattern.exec(text)?.[1] ?? 0);
	if (value < 1) {
		throw new SlipwayError("invalid-argument", `invalid ${name} value: ${text}`);
	}
	return value;
}

export interface TimeLimit extends Disposable {
	/** Aborted when the time is over, or when the given signal is. */
	readonly signal: AbortSignal;
	readonly isOver: () => boolean;
	/** Time runs from now on. */
	start(): void;
}

export function createTimeLimit(timeoutMs: number | undefined, signal: AbortSignal): TimeLimit {
	if (timeoutMs === undefined) {
		return { signal, isOver: () => false, start() {}, [Symbol.dispose]() {} };
	}
	const over = new AbortController();
	let timer: NodeJS.Timeout | undefined;
	return {
		signal: AbortSignal.any([signal, over.signal]),
		isOver: () => over.signal.aborted && !signal.aborted,
		start() {
			timer ??= setTimeout(
				() => over.abort(new SlipwayError("deadline-exceeded", "time is over")),
				timeoutMs,
			);
		},
		[Symbol.dispose]: () => clearTimeout(timer),
	};
}

/** `1.5s`, `10m`. */
export function formatTimeout(timeoutMs: number): string {
	for (const [unit, ms] of [
		["h", 3_600_000],
		["m", 60_000],
		["s", 1000],
	] as const) {
		if (timeoutMs >= ms && (timeoutMs % ms === 0 || unit === "s")) {
			return `${timeoutMs / ms}${unit}`;
		}
	}
	return `${timeoutMs}ms`;
}
