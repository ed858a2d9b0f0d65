import { inUserNamespace } from "../sys/namespace.ts";
import { createNetworkNamespace } from "../sys/network.ts";
import type { NetworkProvider } from "./network.ts";
import { createNetworkPool } from "./network-pool.ts";
import { bringLoopbackUp } from "./routed-network.ts";

/** Namespaces with a loopback interface of their own, and nothing else. */
export function createIsolatedNetwork(options: { readonly maxIdle: number }): NetworkProvider {
	if (inUserNamespace()) {
		// This process could not come back from one: its own belongs to the machine.
		return {
			name: "none",
			acquire: async () => ({ namespacePath: "", nameservers: [], release: async () => {} }),
			[Symbol.asyncDispose]: async () => {},
		};
	}
	const pool = createNetworkPool({
		make: async () => {
			const namespace = createNetworkNamespace(bringLoopbackUp);
			return {
				namespacePath: namespace.path,
				nameservers: [],
				[Symbol.asyncDispose]: async () => namespace[Symbol.dispose](),
			};
		},
		maxIdle: options.maxIdle,
		maxUsed: Number.POSITIVE_INFINITY,
	});
	return { name: "none", acquire: pool.acquire, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}
