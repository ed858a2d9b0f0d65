import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimMemory } from "../sys/malloc.ts";

let collect: (() => void) | undefined;

/** Collects all garbage of the JavaScript heap now: some 30 ms for a builder. */
export function collectGarbage(): void {
	if (collect === undefined) {
		setFlagsFromString("--expose-gc");
		collect = runInNewContext("gc") as () => void;
		setFlagsFromString("--no-expose-gc");
	}
	collect();
}

/** Calls are cheap: it does something once after each time that the daemon was busy. */
export interface MemoryKeeper extends Disposable {
	busy(): void;
	idle(): void;
}

/** What a daemon does not need while it waits is the machine's. Neither V8 nor the C library give it back by themselves. */
export function createMemoryKeeper(delayMs = 2000, giveBack: () => void = giveMemoryBack): MemoryKeeper {
	let timer: NodeJS.Timeout | undefined;
	let wasBusy = false;
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
