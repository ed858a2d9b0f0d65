import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlipwayError, toError } from "../errors/errors.ts";
import { findProgram } from "../sys/find-program.ts";
import { mount, unmount } from "../sys/mount.ts";
import { spawn } from "../sys/spawn.ts";
import type { ChildProcess } from "../sys/sys.ts";
import type { NetworkProvider } from "./network.ts";
import { createNetworkPool, type PooledNetwork } from "./network-pool.ts";

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

/**
 * In the order in which they are tried; early versions of pasta, such as Debian 12's, lose connections. slirp4netns has a name server of
 * its own; pasta's is an address that it passes on.
 */
const carriers: readonly Carrier[] = [
	{
		name: "slirp4netns",
		nameservers: ["10.0.2.3"],
		args: (path) => [
			...["--netns-type=path", "--configure", "--mtu=65520", "--disable-host-loopback"],
			...[path, "eth0"],
		],
	},
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
	let reason = new SlipwayError("failed-precondition", "neither slirp4netns nor pasta is on PATH");
	for (const carrier of carriers) {
		const program = findProgram(carrier.name, options.searchPath);
		if (program !== undefined) {
			try {
				return await connectBy({ ...carrier, program }, options, signal);
			} catch (error) {
				signal.throwIfAborted();
				reason = toError(error);
			}
		}
	}
	throw reason;
}

async function connectBy(
	found: Carrier & { readonly program: string },
	options: UserNetworkOptions,
	signal: AbortSignal,
): Promise<PooledNetwork> {
	await using stack = new AsyncDisposableStack();
	const holder = await holdNamespace();
	stack.defer(() => endProcess(holder));
	const directory = join(options.root, "namespaces");
	mkdirSync(directory, { recursive: true, mode: 0o700 });
	const path = join(directory, `${process.pid}-${counter++}`);
	writeFileSync(path, "");
	stack.defer(() => rmSync(path, { force: true }));
	// pasta shuts itself off from our /proc before it looks for the namespace, so it needs a name elsewhere.
	mount({ type: "bind", source: `/proc/${holder.pid}/ns/net`, options: [] }, path);
	stack.defer(() => {
		unmount(path, { detach: true });
	});
	const carrier = startCarrier([found.program, ...found.args(path)]);
	stack.defer(() => endProcess(carrier));
	await untilConnected(holder, { carrier, name: found.name, signal });
	const kept = stack.move();
	return {
		namespacePath: path,
		nameservers: found.nameservers,
		[Symbol.asyncDispose]: () => kept.disposeAsync(),
	};
}

/**
 * A process whose only purpose is its network namespace: in a user namespace ours could not come back from one. It ends when our
 * end of its input closes, however we end.
 */
async function holdNamespace(): Promise<ChildProcess> {
	const holder = spawn({
		argv: ["unshare", "--net", "/bin/sh", "-c", "echo made; read -r _"],
		env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
		stdin: "pipe",
		stdout: "pipe",
		stderr: "null",
		group: "own",
	});
	const [first] = await Promise.race([
		once(holder.stdout ?? process.stdin, "data"),
		holder.exited.then(() => [undefined]),
	]);
	holder.stdout?.destroy();
	if (first === undefined) {
		throw new SlipwayError("failed-precondition", "unshare could not make a network namespace");
	}
	return holder;
}

async function endProcess(child: ChildProcess): Promise<void> {
	child.stdin?.destroy();
	await child.exited;
}

/** The shell ends the program when our end of its input closes, however we end, and ends with it. */
function startCarrier(argv: readonly string[]): ChildProcess {
	const script =
		'exec 3<&0; "$@" </dev/null 3<&- & c=$!; { read -r _ <&3; kill $c; } & w=$!; exec 3<&-; wait $c; kill $w';
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
	holder: ChildProcess,
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
	while (!isConnected(holder)) {
		signal.throwIfAborted();
		if (ended || performance.now() > deadline) {
			throw new SlipwayError("failed-precondition", `${name} could not connect a network namespace`);
		}
		await new Promise((resolve) => setTimeout(resolve, readyPollMs));
	}
}

/** True when the namespace has a default route, proc(5). */
function isConnected(holder: ChildProcess): boolean {
	const routes = readFileSync(`/proc/${holder.pid}/net/route`, "utf8").split("\n");
	return routes.some((line) => line.split("\t")[1] === "00000000");
}
