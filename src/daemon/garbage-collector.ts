import type { CacheManager } from "../cache/cache.ts";
import type { GcRule } from "../control/service.ts";
import { applyRule } from "../control/service-usage.ts";
import { canceled, toError } from "../errors/errors.ts";

export interface GarbageCollectorOptions {
	readonly cache: CacheManager;
	readonly policy: readonly GcRule[];
	readonly disk: () => { readonly totalBytes: number; readonly freeBytes: number };
	readonly onEnd: (outcome: { readonly bytes: number; readonly error: string | undefined }) => void;
	readonly delayMs?: number;
	readonly everyMs?: number;
}

/** Deletes what the policy says, soon after it was asked to and not more often than every minute. */
export interface GarbageCollector extends AsyncDisposable {
	request(): void;
	/** Now. */
	collect(): Promise<void>;
}

export function createGarbageCollector(options: GarbageCollectorOptions): GarbageCollector {
	const { delayMs = 1000, everyMs = 60_000 } = options;
	const stop = new AbortController();
	let timer: NodeJS.Timeout | undefined;
	let lastMs = Number.NEGATIVE_INFINITY;
	let running: Promise<void> | undefined;

	async function run(): Promise<void> {
		let bytes = 0;
		let error: string | undefined;
		try {
			for (const rule of options.policy) {
				for await (const record of applyRule(options, rule, stop.signal)) {
					bytes += record.bytes;
				}
			}
		} catch (thrown) {
			error = stop.signal.aborted ? undefined : toError(thrown).message;
		}
		options.onEnd({ bytes, error });
	}

	async function collect(): Promise<void> {
		lastMs = performance.now();
		running ??= run().finally(() => {
			running = undefined;
		});
		await running;
	}

	return {
		collect,
		request() {
			if (timer === undefined && !stop.signal.aborted && options.policy.length > 0) {
				timer = setTimeout(
					() => {
						timer = undefined;
						void collect();
					},
					Math.max(delayMs, lastMs + everyMs - performance.now()),
				).unref();
			}
		},
		async [Symbol.asyncDispose]() {
			stop.abort(canceled());
			clearTimeout(timer);
			await running;
		},
	};
}
