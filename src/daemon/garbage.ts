import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimMemory } from "../sys/malloc.ts";

type Collect = (options: { readonly flavor: "last-resort" }) => void;

let collect: Collect | undefined;

/**
 * Collects all garbage of the JavaScript heap now, and gives the pages back that this leaves empty: some 50 ms for a builder. What functions
 * were compiled to stays, as the next build would have to compile them again.
 */
export function collectGarbage(): void {
	if (collect === undefined) {
		setFlagsFromString("--expose-gc");
		collect = runInNewContext("gc") as Collect;
		setFlagsFromString("--no-expose-gc");
	}
	setFlagsFromString("--no-flush-bytecode");
	try {
		// Any other leaves the young generation at its full size, and pages that are nearly empty as they are.
		collect({ flavor: "last-resort" });
	} finally {
		setFlagsFromString("--flush-bytecode");
	}
}

/** Calls are cheap: it does something once after each time that the daemon was busy, its start included. */
export interface MemoryKeeper extends Disposable {
	busy(): void;
	idle(): void;
}

export interface MemoryKeeperOptions {
	/** Ends what only work needs; called before memory is given back. */
	readonly rest: () => Promise<void>;
	readonly giveBack?: () => void;
	/** Default: longer than somebody who repeats a build takes, since what was given back is made again for the next one. */
	readonly delayMs?: number;
}

/** What a daemon does not need while it waits is the machine's. Neither V8 nor the C library give it back by themselves. */
export function createMemoryKeeper(options: MemoryKeeperOptions): MemoryKeeper {
	const { rest, giveBack = giveMemoryBack, delayMs = 5000 } = options;
	let timer: NodeJS.Timeout | undefined;
	// Starting is work.
	let wasBusy = true;
	async function onIdle(): Promise<void> {
		timer = undefined;
		wasBusy = false;
		await rest();
		// Work that came in the meantime need not wait for this.
		if (!wasBusy) {
			giveBack();
		}
	}
	return {
		busy() {
			wasBusy = true;
			clearTimeout(timer);
			timer = undefined;
		},
		idle() {
			if (wasBusy && timer === undefined) {
				timer = setTimeout(() => void onIdle(), delayMs).unref();
			}
		},
		[Symbol.dispose]: () => clearTimeout(timer),
	};
}

function giveMemoryBack(): void {
	collectGarbage();
	trimMemory();
}
