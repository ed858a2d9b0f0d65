import { garbageCollector } from "./garbage.ts";

/** Calls are cheap: it does something once after each time that the daemon was busy. */
export interface YoungCollector extends Disposable {
	busy(): void;
	idle(): void;
}

/** Longer than a client takes to read the rest after its build. */
const defaultDelayMs = 40;

/**
 * Collects the young generation of the heap a moment after each build, so that the next one finds it empty: a cached build then mostly ends
 * before it is full, and does not wait the two milliseconds of a collection.
 */
export function createYoungCollector(
	collect: () => void = collectYoung,
	delayMs: number = defaultDelayMs,
): YoungCollector {
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
					collect();
				}, delayMs).unref();
			}
		},
		[Symbol.dispose]: () => clearTimeout(timer),
	};
}

function collectYoung(): void {
	garbageCollector()({ type: "minor" });
}
