/**
 * Networks of steps. A provider gives each step a network namespace that nobody else uses meanwhile; namespaces that a step has left
 * as they were are used again, since making one takes as long as a small step. What a provider changes on the machine is undone
 * when it is disposed; after a kill, by the kernel, or else by the next provider.
 *
 * - `routed-network.ts` a pair of interfaces, routed and masqueraded by the kernel: mode `bridge`
 * - `cni-network.ts`    a CNI configuration's plugins: mode `cni`
 * - `user-network.ts`   pasta or slirp4netns, programs that need no rights on the machine's network: mode `user`
 * - `isolated-network.ts` a loopback interface only
 * - `host-network.ts`   the machine's own network
 * - `networks.ts`       which of them a step gets
 */
export interface NetworkProvider extends AsyncDisposable {
	readonly name: string;
	/** Throws `failed-precondition` or what the kernel says if this machine does not allow it; then it can be disposed only. */
	acquire(options: { readonly signal: AbortSignal }): Promise<StepNetwork>;
}

export interface StepNetwork {
	/**
	 * For the runtime's configuration; undefined is the machine's own network, empty a new namespace that the runtime makes, with
	 * a loopback interface.
	 */
	readonly namespacePath: string | undefined;
	/** Name servers that are there in any case, for a machine whose own can only be reached from itself. */
	readonly nameservers: readonly string[];
	/** To be called once, when the step's last process is gone. `reusable`: the step could not change the network's configuration. */
	release(options: { readonly reusable: boolean }): Promise<void>;
}

/** How steps get the network that they get unless they ask for another. */
export interface NetworkOptions {
	/**
	 * `auto`: CNI if it is configured, else bridge, else user, else, saying so, the machine's own. The others fail where
	 * they do not work.
	 */
	readonly mode: NetworkMode;
	/** Default `/etc/buildkit/cni.json`; a name that ends in `.conflist` is a list of plugins. */
	readonly cniConfigPath?: string;
	/** Default `/opt/cni/bin`. */
	readonly cniBinaryDir?: string;
	/** How many unused namespaces are kept; default 8. */
	readonly poolSize?: number;
	/** What `bridge` takes its addresses from, at least 256 of them: each builder takes a part that no route knows. Default `10.213.0.0/16`. */
	readonly subnet?: string;
}

export type NetworkMode = "auto" | "bridge" | "cni" | "user" | "host";

export const networkModes: readonly NetworkMode[] = ["auto", "bridge", "cni", "user", "host"];
