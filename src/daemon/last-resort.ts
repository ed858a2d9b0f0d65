import type { Logger } from "./logger.ts";

/**
 * What becomes of an error that nobody waited for. It is a fault of ours in one callback, of one call or connection: what builds share
 * is changed in transactions of the database and by promises whose owners see the error. So it is written down with its stack, and the
 * builds of others go on. Where it happens again and again something that all need is broken: then the daemon stops as it
 * does on SIGTERM, builds may end, and whoever supervises it starts a sound one.
 */
export interface LastResort extends Disposable {
	/** Whether it has stopped the daemon. */
	readonly gaveUp: boolean;
}

/** So many errors within the time are no accident. */
const maxErrors = 20;
const withinMs = 60_000;

export interface LastResortOptions {
	readonly logger: Logger;
	readonly stop: () => void;
	/** Milliseconds of any clock. */
	readonly now?: () => number;
	readonly process?: Pick<NodeJS.Process, "on" | "off">;
}

export function createLastResort({
	logger,
	stop,
	now = () => performance.now(),
	process: observed = process,
}: LastResortOptions): LastResort {
	let gaveUp = false;
	const times: number[] = [];
	const take = (error: unknown): void => {
		const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
		logger.log("error", `unexpected: ${text}`);
		times.push(now());
		if (times.length > maxErrors) {
			times.shift();
		}
		const [first = 0] = times;
		if (!gaveUp && times.length === maxErrors && now() - first < withinMs) {
			gaveUp = true;
			logger.log("error", `stopping after ${maxErrors} unexpected errors within ${withinMs / 1000} seconds`);
			stop();
		}
	};
	observed.on("uncaughtException", take);
	observed.on("unhandledRejection", take);
	return {
		get gaveUp() {
			return gaveUp;
		},
		[Symbol.dispose]() {
			observed.off("uncaughtException", take);
			observed.off("unhandledRejection", take);
		},
	};
}
