import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimMemory } from "../sys/malloc.ts";

type Collector = (options: { readonly type: "minor" } | { readonly flavor: "last-resort" }) => void;

let exposed: Collector | undefined;

/** V8's `gc`. One for all, as the context that it comes from stays with it. */
export function garbageCollector(): Collector {
	if (exposed === undefined) {
		setFlagsFromString("--expose-gc");
		exposed = runInNewContext("gc") as Collector;
		setFlagsFromString("--no-expose-gc");
	}
	return exposed;
}

/**
 * Collects all garbage of the JavaScript heap now, and gives the pages back that this leaves empty: some 50 ms for a builder. What functions
 * were compiled to stays, as the next build would have to compile them again.
 */
export function collectGarbage(): void {
	setFlagsFromString("--no-flush-bytecode");
	try {
		// Any other leaves the young generation at its full size, and pages that are nearly empty as they are.
		garbageCollector()({ flavor: "last-resort" });
	} finally {
		setFlagsFromString("--flush-bytecode");
	}
}

/** Calls are cheap: it does something once after each time that the daemon was busy, its start included. */
export interface MemoryKeeper extends Disposable {
	busy(): void;
	idle(): void;
}

/** Longer than somebody who repeats a build takes, than the cache waits before it syncs what was written, and than idle threads stay. */
const defaultDelayMs = 12_000;

/** What a daemon does not need while it waits is the machine's. Neither V8 nor the C library give it back by themselves. */
export function createMemoryKeeper(
	delayMs: number = defaultDelayMs,
	giveBack: () => void = giveMemoryBack,
): MemoryKeeper {
	let timer: NodeJS.Timeout | undefined;
	// Starting is work.
	let wasBusy = true;
	return {
		busy() {
			wasBusy = true;
			clearTimeout(timer);
			timer = undefined;
		},
		idle() {
			if (wasBusy && timer === undefined) {
				timer = setTimeout(() => {
					timer = undefined;
					wasBusy = false;
					giveBack();
				}, delayMs).unref();
			}
		},
		[Symbol.dispose]: () => clearTimeout(timer),
	};
}

function giveMemoryBack(): void {
	collectGarbage();
	trimMemory();
}
