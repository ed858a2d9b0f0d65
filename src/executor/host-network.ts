import type { NetworkProvider } from "./network.ts";

/** The machine's own network. */
export function createHostNetwork(): NetworkProvider {
	return {
		name: "host",
		acquire: async () => ({ namespacePath: undefined, nameservers: [], release: async () => {} }),
		[Symbol.asyncDispose]: async () => {},
	};
}
