import { createLimit } from "../async/limit.ts";
import type { StepNetwork } from "./network.ts";

/** A network that is made, and may wait in a pool. */
export interface PooledNetwork extends AsyncDisposable {
	readonly namespacePath: string;
	readonly nameservers: readonly string[];
}

export interface NetworkPoolOptions {
	readonly make: (signal: AbortSignal) => Promise<PooledNetwork>;
	/** At most so many wait unused. */
	readonly maxIdle: number;
	/** At most so many are in use at once; others wait. */
	readonly maxUsed: number;
}

export interface NetworkPool extends AsyncDisposable {
	acquire(options: { readonly signal: AbortSignal }): Promise<StepNetwork>;
}

/** Networks that are used by one step after the other. The one that was left last is taken first. */
export function createNetworkPool({ make, maxIdle, maxUsed }: NetworkPoolOptions): NetworkPool {
	const idle: PooledNetwork[] = [];
	const used = createLimit(maxUsed);
	let closed = false;
	return {
		async acquire({ signal }) {
			const slot = await used.acquire({ signal });
			let network: PooledNetwork;
			try {
				network = idle.pop() ?? (await make(signal));
			} catch (error) {
				slot[Symbol.dispose]();
				throw error;
			}
			let held = true;
			return {
				namespacePath: network.namespacePath,
				nameservers: network.nameservers,
				async release({ reusable }) {
					if (!held) {
						return;
					}
					held = false;
					if (reusable && !closed && idle.length < maxIdle) {
						idle.push(network);
					} else {
						await network[Symbol.asyncDispose]();
					}
					slot[Symbol.dispose]();
				},
			};
		},
		async [Symbol.asyncDispose]() {
			closed = true;
			await Promise.all(idle.splice(0).map((network) => network[Symbol.asyncDispose]()));
		},
	};
}
