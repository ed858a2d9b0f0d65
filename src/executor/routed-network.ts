import { spawnSync } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { SlipwayError, toError } from "../errors/errors.ts";
import { NetlinkSocket, netlinkNetfilter, netlinkRoute } from "../sys/netlink.ts";
import {
	addVeth,
	createNetworkNamespace,
	inNetworkNamespace,
	type Link,
	listLinks,
	listRoutes,
	type NetworkNamespace,
	type Route,
	removeLink,
	setUpLink,
} from "../sys/network.ts";
import { addMasquerading, type ForwardChain, listForwardChains, removeTable } from "../sys/nftables.ts";
import type { NetworkProvider } from "./network.ts";
import { createNetworkPool, type NetworkPool, type PooledNetwork } from "./network-pool.ts";
import { type NetworkSlot, type SlotChanges, takeNetworkSlot } from "./network-slot.ts";

export interface RoutedNetworkOptions {
	readonly subnet: string;
	readonly maxIdle: number;
	/** Where builders of this machine agree on addresses. Default below `/run/slipway/network`. */
	readonly directory?: string;
	/** Where iptables is looked for. */
	readonly searchPath: string;
	readonly debug: (message: string) => void;
}

/**
 * Namespaces with a way out that the kernel makes: each is connected by a pair of interfaces of its own, without a bridge, so that
 * steps do not reach one another, and nothing from outside reaches a step. The interfaces end with the namespace, and that with the
 * last descriptor; the rules end with the socket that made them. So a builder that is killed leaves nothing of either.
 */
export function createRoutedNetwork(options: RoutedNetworkOptions): NetworkProvider {
	let open: Promise<RoutedNetwork> | undefined;
	return {
		name: "bridge",
		async acquire({ signal }) {
			open ??= RoutedNetwork.open(options);
			return await (await open).pool.acquire({ signal });
		},
		async [Symbol.asyncDispose]() {
			const network = await open?.catch(() => undefined);
			await network?.[Symbol.asyncDispose]();
		},
	};
}

/** One for each network that a builder may be in: a container that sees our /run shares neither addresses nor settings with us. */
function sharedDirectory(): string {
	return `/run/slipway/network/${statSync("/proc/thread-self/ns/net").ino}`;
}

/** The addresses .1 (ours) and .255 are no step's. */
const maxNamespaces = 253;

class RoutedNetwork implements AsyncDisposable {
	readonly pool: NetworkPool;
	readonly #slot: NetworkSlot;
	readonly #route: NetlinkSocket;
	readonly #mtu: number;
	readonly #forwards: boolean;
	readonly #closing: AsyncDisposableStack;
	readonly #free: number[] = Array.from({ length: maxNamespaces }, (_, at) => maxNamespaces + 1 - at);

	static async open(options: RoutedNetworkOptions): Promise<RoutedNetwork> {
		await using stack = new AsyncDisposableStack();
		const route = stack.use(new NetlinkSocket(netlinkRoute));
		const filter = stack.use(new NetlinkSocket(netlinkNetfilter));
		const routes = listRoutes(route);
		const links = listLinks(route);
		const way = routes.find((each) => each.prefix === 0)?.interfaceIndex;
		if (way === undefined) {
			throw new SlipwayError("failed-precondition", "this machine has no default route");
		}
		const forwards = readSetting("ip_forward") === "1";
		const slot = stack.use(
			takeNetworkSlot(
				{
					directory: options.directory ?? sharedDirectory(),
					subnet: options.subnet,
					routes,
					undo: (changes, { others }) => undoChanges(changes, { others, options }),
				},
				(taken) => {
					const changes = plannedChanges(taken, { filter, routes, links, forwards, options });
					taken.note(changes);
					masquerade(taken, filter, stack);
					for (const name of changes.forwarding) {
						writeSetting(`conf/${name}/forwarding`, "1");
					}
					for (const undo of changes.undo) {
						runCommand(undo.map((word) => (word === "-D" ? "-I" : word)));
					}
				},
			),
		);
		const mtu = links.find((link) => link.index === way)?.mtu ?? 1500;
		const closing = stack.move();
		return new RoutedNetwork({ slot, route, mtu, forwards, closing, maxIdle: options.maxIdle });
	}

	constructor(parts: {
		readonly slot: NetworkSlot;
		readonly route: NetlinkSocket;
		readonly mtu: number;
		readonly forwards: boolean;
		readonly closing: AsyncDisposableStack;
		readonly maxIdle: number;
	}) {
		this.#slot = parts.slot;
		this.#route = parts.route;
		this.#mtu = parts.mtu;
		this.#forwards = parts.forwards;
		this.#closing = parts.closing;
		this.pool = createNetworkPool({
			make: async () => this.#make(),
			maxIdle: parts.maxIdle,
			maxUsed: maxNamespaces,
		});
	}

	#make(): PooledNetwork {
		const host = this.#free.pop();
		if (host === undefined) {
			throw new SlipwayError("internal", "more networks than addresses");
		}
		const [ours, theirs] = [this.#address(1), this.#address(host)];
		const name = `sw${partName(this.#slot)}n${host}`;
		const namespace = createNetworkNamespace(bringLoopbackUp);
		const close = (): void => {
			removeLink(this.#route, name);
			namespace[Symbol.dispose]();
		};
		try {
			addVeth(this.#route, { name, peer: "eth0", peerNamespace: namespace, mtu: this.#mtu });
			setUpLink(this.#route, { name, address: ours, neighbours: [theirs] });
			if (!this.#forwards) {
				writeSetting(`conf/${name}/forwarding`, "1");
			}
			connectInside(namespace, { address: theirs, gateway: ours });
		} catch (error) {
			close();
			this.#free.push(host);
			throw error;
		}
		return {
			namespacePath: namespace.path,
			nameservers: [],
			[Symbol.asyncDispose]: async () => {
				close();
				this.#free.push(host);
			},
		};
	}

	#address(host: number): string {
		return [...this.#slot.network, host].join(".");
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.pool[Symbol.asyncDispose]();
		await this.#closing.disposeAsync();
	}
}

/** Unique on the machine, and short: names of interfaces have at most 15 letters. */
function partName({ network }: NetworkSlot): string {
	return Buffer.from(network).toString("hex");
}

export function bringLoopbackUp(): void {
	using socket = new NetlinkSocket(netlinkRoute);
	setUpLink(socket, { name: "lo" });
}

function connectInside(
	namespace: NetworkNamespace,
	{ address, gateway }: { readonly address: string; readonly gateway: string },
): void {
	inNetworkNamespace(namespace, () => {
		using socket = new NetlinkSocket(netlinkRoute);
		setUpLink(socket, { name: "eth0", address, neighbours: [gateway], gateway });
	});
}

/** The table goes with its socket; an older kernel's (before 5.12) is removed by us, or by the next owner of the slot. */
function masquerade(slot: NetworkSlot, filter: NetlinkSocket, stack: AsyncDisposableStack): void {
	const table = `slipway-${partName(slot)}`;
	const add = (ownedBySocket: boolean): void =>
		addMasquerading(filter, { table, network: slot.network, ownedBySocket });
	try {
		try {
			add(true);
		} catch (error) {
			if (toError(error).code !== "already-exists") {
				throw error;
			}
			removeTable(filter, table);
			add(true);
		}
	} catch (error) {
		if (!/EOPNOTSUPP|EINVAL/.test(toError(error).message)) {
			throw error;
		}
		add(false);
		stack.defer(() => removeTable(filter, table));
	}
}

/**
 * Answers have to be forwarded where they come in. That is turned on for each interface that is in use and not for the machine as
 * a whole, so that at the end it can be told whether somebody else has turned it on meanwhile.
 */
function plannedChanges(
	slot: NetworkSlot,
	{
		filter,
		routes,
		links,
		forwards,
		options,
	}: {
		readonly filter: NetlinkSocket;
		readonly routes: readonly Route[];
		readonly links: readonly Link[];
		readonly forwards: boolean;
		readonly options: RoutedNetworkOptions;
	},
): SlotChanges {
	const used = links.filter((link) => routes.some((route) => route.interfaceIndex === link.index));
	const forwarding = forwards
		? []
		: used.map((link) => link.name).filter((name) => readSetting(`conf/${name}/forwarding`) === "0");
	const undo = iptablesThatDrop(listForwardChains(filter), options).flatMap((program) =>
		acceptedForwarding(program, slot, options),
	);
	return { forwarding, undo };
}

/**
 * Where what no rule accepts is dropped, ours must be among the rules of that very table: those of iptables take them, Docker's for one.
 * Other owners of tables are not touched, so that there is no way through them.
 */
function iptablesThatDrop(
	chains: readonly ForwardChain[],
	{ searchPath }: RoutedNetworkOptions,
): readonly string[] {
	const programs: string[] = [];
	for (const { isIpv4, table, name, drops } of chains) {
		// It accepts by policy, and has a rule at the end that does not.
		if (table === "firewalld" || (drops && !(isIpv4 && table === "filter" && name === "FORWARD"))) {
			throw new SlipwayError(
				"failed-precondition",
				`the chain ${name} of the nftables table ${table} drops what is forwarded`,
			);
		}
		if (drops) {
			programs.push("iptables-nft");
		}
	}
	return legacyDrops(searchPath) ? [...programs, "iptables-legacy"] : programs;
}

/** The older tables are not seen by netlink. */
function legacyDrops(searchPath: string): boolean {
	let names: string;
	try {
		names = readFileSync("/proc/net/ip_tables_names", "utf8");
	} catch {
		return false;
	}
	if (!names.split("\n").includes("filter")) {
		return false;
	}
	const { stdout } = spawnSync("env", [`PATH=${searchPath}`, "iptables-legacy", "-S", "FORWARD"], {
		encoding: "utf8",
	});
	return stdout?.startsWith("-P FORWARD DROP") === true;
}

function acceptedForwarding(
	program: string,
	slot: NetworkSlot,
	{ searchPath }: RoutedNetworkOptions,
): SlotChanges["undo"] {
	const network = `${slot.network.join(".")}.0/24`;
	const command = ["env", `PATH=${searchPath}:/usr/sbin:/sbin`, program, "-w", "-D", "FORWARD"];
	return [
		[...command, "-s", network, "-j", "ACCEPT"],
		[...command, "-d", network, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"],
	];
}

function undoChanges(
	{ forwarding, undo }: SlotChanges,
	{ others, options }: { readonly others: boolean; readonly options: RoutedNetworkOptions },
): void {
	for (const command of undo) {
		try {
			runCommand(command);
		} catch (error) {
			options.debug(toError(error).message);
		}
	}
	if (others || readSetting("ip_forward") === "1") {
		return;
	}
	for (const name of forwarding) {
		try {
			writeSetting(`conf/${name}/forwarding`, "0");
		} catch {
			// The interface is gone.
		}
	}
}

/** Rare, and short. */
function runCommand([program = "", ...args]: readonly string[]): void {
	const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
	if (error !== undefined || status !== 0) {
		throw new SlipwayError(
			"failed-precondition",
			`${[program, ...args].join(" ")} failed: ${error?.message ?? stderr.trim()}`,
		);
	}
}

const settings = "/proc/sys/net/ipv4";

function readSetting(name: string): string | undefined {
	try {
		return readFileSync(`${settings}/${name}`, "utf8").trim();
	} catch {
		return undefined;
	}
}

function writeSetting(name: string, value: string): void {
	writeFileSync(`${settings}/${name}`, value);
}
