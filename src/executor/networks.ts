import { existsSync } from "node:fs";
import { SlipwayError, toError } from "../errors/errors.ts";
import { createCniNetwork } from "./cni-network.ts";
import type { NetworkMode as StepNetworkMode } from "./executor.ts";
import { createHostNetwork } from "./host-network.ts";
import { createIsolatedNetwork } from "./isolated-network.ts";
import { type NetworkOptions, type NetworkProvider, networkModes, type StepNetwork } from "./network.ts";
import { createRoutedNetwork } from "./routed-network.ts";
import { createUserNetwork } from "./user-network.ts";

/** The networks that steps ask for: the sandbox's, the machine's, none. */
export interface Networks extends AsyncDisposable {
	acquire(mode: StepNetworkMode, options: { readonly signal: AbortSignal }): Promise<StepNetwork>;
}

export interface NetworksServices {
	/** Where pasta, slirp4netns and iptables are looked for. */
	readonly searchPath: string;
	/** Of ours, for what CNI plugins remember. */
	readonly root: string;
	/** Told which network steps get, and why not another. */
	readonly debug: (message: string) => void;
}

export const defaultCniConfigPath = "/etc/buildkit/cni.json";
export const defaultCniBinaryDir = "/opt/cni/bin";
const defaultSubnet = "10.213.0.0/16";
const defaultPoolSize = 8;

export function createNetworks(options: NetworkOptions, services: NetworksServices): Networks {
	if (!networkModes.includes(options.mode)) {
		throw new SlipwayError("invalid-argument", `invalid network mode: ${JSON.stringify(options.mode)}`);
	}
	const maxIdle = options.poolSize ?? defaultPoolSize;
	const cniConfigPath = options.cniConfigPath ?? defaultCniConfigPath;
	const make: Readonly<Record<Exclude<NetworkOptions["mode"], "auto">, () => NetworkProvider>> = {
		cni: () =>
			createCniNetwork({
				configPath: cniConfigPath,
				binaryDir: options.cniBinaryDir ?? defaultCniBinaryDir,
				maxIdle,
				...services,
			}),
		bridge: () => createRoutedNetwork({ subnet: options.subnet ?? defaultSubnet, maxIdle, ...services }),
		user: () => createUserNetwork({ maxIdle, ...services }),
		host: createHostNetwork,
	};
	const sandbox =
		options.mode === "auto"
			? createFirstOf(
					[...(existsSync(cniConfigPath) ? [make.cni] : []), make.bridge, make.user, make.host],
					services.debug,
				)
			: make[options.mode]();
	const providers = { sandbox, host: createHostNetwork(), none: createIsolatedNetwork({ maxIdle }) };
	return {
		acquire: (mode, { signal }) => providers[mode].acquire({ signal }),
		async [Symbol.asyncDispose]() {
			await Promise.all(Object.values(providers).map((each) => each[Symbol.asyncDispose]()));
		},
	};
}

/** The first that works when the first step wants a network is everybody's from then on. */
function createFirstOf(
	candidates: readonly (() => NetworkProvider)[],
	debug: (message: string) => void,
): NetworkProvider {
	let chosen: Promise<NetworkProvider> | undefined;
	let first: StepNetwork | undefined;

	async function choose(signal: AbortSignal): Promise<NetworkProvider> {
		for (const make of candidates) {
			const provider = make();
			try {
				first = await provider.acquire({ signal });
				debug(`network of steps: ${provider.name}`);
				return provider;
			} catch (error) {
				await provider[Symbol.asyncDispose]();
				signal.throwIfAborted();
				debug(`network of steps: ${provider.name} does not work here: ${toError(error).message}`);
			}
		}
		throw new SlipwayError("internal", "no network for steps");
	}

	return {
		name: "auto",
		async acquire({ signal }) {
			if (chosen === undefined) {
				chosen = choose(signal);
				// A build that was canceled meanwhile decides nothing for the next.
				chosen.catch(() => {
					chosen = undefined;
				});
			}
			const provider = await chosen;
			const taken = first;
			first = undefined;
			return taken ?? (await provider.acquire({ signal }));
		},
		async [Symbol.asyncDispose]() {
			const provider = await chosen?.catch(() => undefined);
			await first?.release({ reusable: true });
			await provider?.[Symbol.asyncDispose]();
		},
	};
}
