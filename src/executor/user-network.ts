import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlipwayError } from "../errors/errors.ts";
import { mount, unmount } from "../sys/mount.ts";
import { NetlinkSocket, netlinkRoute } from "../sys/netlink.ts";
import {
	createNetworkNamespace,
	inNetworkNamespace,
	listRoutes,
	type NetworkNamespace,
} from "../sys/network.ts";
import { spawn } from "../sys/spawn.ts";
import type { ChildProcess } from "../sys/sys.ts";
import { findProgram } from "./find-program.ts";
import type { NetworkProvider } from "./network.ts";
import { createNetworkPool, type PooledNetwork } from "./network-pool.ts";
import { bringLoopbackUp } from "./routed-network.ts";

export interface UserNetworkOptions {
	/** Of ours: names of namespaces while they are used. */
	readonly root: string;
	readonly searchPath: string;
	readonly maxIdle: number;
}

/** How a program carries the packets of the namespace at `path`, as interface eth0. */
interface Carrier {
	readonly name: string;
	readonly nameservers: readonly string[];
	readonly args: (path: string) => readonly string[];
}

/** slirp4netns has a name server of its own; of pasta's, it is an address that it passes on. */
const carriers: readonly Carrier[] = [
	{
		name: "pasta",
		nameservers: ["169.254.1.1"],
		args: (path) => [
			...["--config-net", "--foreground", "--quiet", "--no-map-gw", "--dns-forward", "169.254.1.1"],
			// No port of the machine is a port of the step, nor the other way round.
			...["-t", "none", "-u", "none", "-T", "none", "-U", "none"],
			...["--runas", "0", "--ns-ifname", "eth0", "--netns-only", "--netns", path],
		],
	},
	{
		name: "slirp4netns",
		nameservers: ["10.0.2.3"],
		args: (path) => [
			...["--netns-type=path", "--configure", "--mtu=65520", "--disable-host-loopback"],
			...[path, "eth0"],
		],
	},
];

const readyTimeoutMs = 5000;
const readyPollMs = 5;

/**
 * Namespaces whose packets a program of the user's carries: nothing is changed on the machine, and no right on its network is
 * needed. Slower than the kernel's own ways.
 */
export function createUserNetwork(options: UserNetworkOptions): NetworkProvider {
	const pool = createNetworkPool({
		make: (signal) => connect(options, signal),
		maxIdle: options.maxIdle,
		maxUsed: 64,
	});
	return { name: "user", acquire: pool.acquire, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}

let counter = 0;

async function connect(options: UserNetworkOptions, signal: AbortSignal): Promise<PooledNetwork> {
	const found = carriers.flatMap((carrier) => {
		const program = findProgram(carrier.name, options.searchPath);
		return program === undefined ? [] : [{ ...carrier, program }];
	})[0];
	if (found === undefined) {
		throw new SlipwayError("failed-precondition", "neither pasta nor slirp4netns is on PATH");
	}
	const directory = join(options.root, "namespaces");
	mkdirSync(directory, { recursive: true, mode: 0o700 });
	const path = join(directory, `${process.pid}-${counter++}`);
	const namespace = createNetworkNamespace(bringLoopbackUp);
	writeFileSync(path, "");
	// pasta shuts itself off from our /proc before it looks for the namespace, so it needs a name elsewhere.
	mount({ type: "bind", source: namespace.path, options: [] }, path);
	const carrier = startCarrier([found.program, ...found.args(path)]);
	const close = async (): Promise<void> => {
		carrier.stdin?.destroy();
		await carrier.exited;
		unmount(path, { detach: true });
		rmSync(path, { force: true });
		namespace[Symbol.dispose]();
	};
	try {
		await untilConnected(namespace, { carrier, name: found.name, signal });
	} catch (error) {
		await close();
		throw error;
	}
	return { namespacePath: path, nameservers: found.nameservers, [Symbol.asyncDispose]: close };
}

/** The shell ends the program when our end of its input closes, however we end. */
function startCarrier(argv: readonly string[]): ChildProcess {
	const script = '"$@" </dev/null & read -r _; kill $! 2>/dev/null; wait';
	return spawn({
		argv: ["/bin/sh", "-c", script, "sh", ...argv],
		env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
		stdin: "pipe",
		stdout: "null",
		stderr: "null",
		group: "own",
	});
}

async function untilConnected(
	namespace: NetworkNamespace,
	{
		carrier,
		name,
		signal,
	}: { readonly carrier: ChildProcess; readonly name: string; readonly signal: AbortSignal },
): Promise<void> {
	let ended = false;
	void carrier.exited.then(() => {
		ended = true;
	});
	const deadline = performance.now() + readyTimeoutMs;
	while (!isConnected(namespace)) {
		signal.throwIfAborted();
		if (ended || performance.now() > deadline) {
			throw new SlipwayError("failed-precondition", `${name} could not connect a network namespace`);
		}
		await new Promise((resolve) => setTimeout(resolve, readyPollMs));
	}
}

function isConnected(namespace: NetworkNamespace): boolean {
	return inNetworkNamespace(namespace, () => {
		using socket = new NetlinkSocket(netlinkRoute);
		return listRoutes(socket).some((route) => route.prefix === 0);
	});
}
