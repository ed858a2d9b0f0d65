import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	writeFileSync,
} from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { listMounts, setPropagation } from "../sys/mount.ts";
import { unshare } from "../sys/namespace.ts";
import { NetlinkSocket, netlinkNetfilter } from "../sys/netlink.ts";
import { createNetworkNamespace, inNetworkNamespace } from "../sys/network.ts";
import { addMasquerading, listForwardChains } from "../sys/nftables.ts";
import { createCniNetwork } from "./cni-network.ts";
import { createIsolatedNetwork } from "./isolated-network.ts";
import type { NetworkProvider, StepNetwork } from "./network.ts";
import { createNetworkPool } from "./network-pool.ts";
import { takeNetworkSlot } from "./network-slot.ts";
import { createNetworks } from "./networks.ts";
import { createRoutedNetwork } from "./routed-network.ts";
import { createUserNetwork } from "./user-network.ts";

const signal = new AbortController().signal;
const searchPath = process.env["PATH"] ?? "";
const subnet = "10.214.0.0/22";
let dir = "";

/** A machine of its own for all tests: builders that run meanwhile share nothing with it, least of all what is turned on and off. */
before(() => {
	unshare(["mount", "net"]);
	setPropagation("/", "rslave");
	const setUp = `ip link set lo up && ip link add out type veth peer name far && ip addr add 192.0.2.9/24 dev out &&
		ip link set far up && ip link set out up && ip route add default via 192.0.2.1`;
	const made = spawnSync("sh", ["-c", setUp], { encoding: "utf8" });
	assert.equal(made.status, 0, made.stderr);
	dir = mkdtempSync(join(tmpdir(), "slipway-network-"));
});

after(() => rmSync(dir, { recursive: true, force: true }));

function inside(network: StepNetwork, command: string): string {
	assert.ok(network.namespacePath !== undefined);
	const run = spawnSync("nsenter", [`--net=${network.namespacePath}`, "sh", "-c", command], {
		encoding: "utf8",
	});
	return `${run.stdout}${run.stderr}`;
}

/** This machine's address that others see. */
function ownAddress(): string {
	const found = Object.entries(networkInterfaces())
		.filter(([name]) => !name.startsWith("sw0"))
		.flatMap(([, addresses]) => addresses ?? [])
		.find(({ family, internal }) => family === "IPv4" && !internal);
	assert.ok(found !== undefined, "needs a network interface");
	return found.address;
}

/** Something that answers on the machine itself; the way to it is the way out. */
async function withServer(work: (address: string, port: number) => void): Promise<void> {
	const script = `require("node:http").createServer((_, r) => r.end("hello")).listen(0, "0.0.0.0", function () { console.log(this.address().port) })`;
	const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
	try {
		const [chunk] = (await once(child.stdout, "data")) as [Buffer];
		work(ownAddress(), Number(chunk.toString()));
	} finally {
		child.kill("SIGKILL");
	}
}

const fetchText = (address: string, port: number): string =>
	`timeout 5 bash -c 'exec 3<>/dev/tcp/${address}/${port}; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'`;

async function reachesOut(provider: NetworkProvider): Promise<void> {
	const network = await provider.acquire({ signal });
	try {
		await withServer((address, port) => {
			assert.match(inside(network, fetchText(address, port)), /hello/);
			assert.doesNotMatch(inside(network, fetchText("127.0.0.1", port)), /hello/, "the machine's loopback");
		});
	} finally {
		await network.release({ reusable: true });
	}
}

/** Other builders of the machine come and go meanwhile; these are the names of our subnet's interfaces. */
const ours = /^sw0ad6/;

function forwarding(): readonly string[] {
	const settings = "/proc/sys/net/ipv4/conf";
	return readdirSync(settings)
		.filter((name) => !/^sw[0-9a-f]{6}n/.test(name) || ours.test(name))
		.filter((name) => readFileSync(join(settings, name, "forwarding"), "utf8").trim() === "1")
		.sort();
}

function interfaces(): readonly string[] {
	const all = readFileSync("/proc/net/dev", "utf8").match(/sw[0-9a-f]{6}n\S+(?=:)/g) ?? [];
	return all.filter((name) => ours.test(name));
}

test("bridge: out, not to the machine's loopback, not in, not to each other; nothing is left", async () => {
	const before = forwarding();
	{
		await using provider = createRoutedNetwork({
			subnet,
			maxIdle: 2,
			directory: join(dir, "slots"),
			searchPath,
			debug: () => {},
		});
		await reachesOut(provider);
		const [one, two] = [await provider.acquire({ signal }), await provider.acquire({ signal })];
		assert.notEqual(one.namespacePath, two.namespacePath);
		assert.match(inside(one, "ip -4 -o addr show eth0"), /10\.214\.\d+\.2\/32/);
		assert.match(inside(two, "ip -4 -o addr show eth0"), /10\.214\.\d+\.3\/32/);
		const address = /10\.214\.\d+\.2/.exec(inside(one, "ip -4 -o addr show eth0"))?.[0];
		assert.match(inside(two, `ping -c 1 -W 1 ${address}`), /100% packet loss|not found/);
		await one.release({ reusable: false });
		await two.release({ reusable: true });
	}
	assert.deepEqual(
		interfaces().filter((name) => name.startsWith("sw0ad6")),
		[],
	);
	assert.deepEqual(forwarding(), before);
	assert.deepEqual(
		readdirSync(join(dir, "slots")).filter((name) => name.endsWith(".json")),
		[],
	);
});

test("bridge: two builders take different addresses, and the last one turns forwarding off", async () => {
	const before = forwarding();
	const make = (): NetworkProvider =>
		createRoutedNetwork({
			subnet,
			maxIdle: 2,
			directory: join(dir, "slots"),
			searchPath,
			debug: () => {},
		});
	const [one, two] = [make(), make()];
	const first = await one.acquire({ signal });
	const second = await two.acquire({ signal });
	const addresses = [first, second].map((each) => inside(each, "ip -4 -o addr show eth0"));
	assert.notEqual(
		/10\.214\.(\d+)/.exec(addresses[0] ?? "")?.[1],
		/10\.214\.(\d+)/.exec(addresses[1] ?? "")?.[1],
	);
	await first.release({ reusable: true });
	await one[Symbol.asyncDispose]();
	await withServer((address, port) => assert.match(inside(second, fetchText(address, port)), /hello/));
	await second.release({ reusable: true });
	await two[Symbol.asyncDispose]();
	assert.deepEqual(forwarding(), before);
});

test("bridge: what a killed builder left is undone by the next", async () => {
	const before = forwarding();
	const slots = join(dir, "killed");
	const script = `
		import { createRoutedNetwork } from ${JSON.stringify(join(import.meta.dirname, "routed-network.ts"))};
		const provider = createRoutedNetwork({ subnet: ${JSON.stringify(subnet)}, maxIdle: 2, directory: ${JSON.stringify(slots)}, searchPath: "", debug: () => {} });
		await provider.acquire({ signal: new AbortController().signal });
		console.log("ready");
		setInterval(() => {}, 1000);`;
	const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
		stdio: ["ignore", "pipe", "inherit"],
	});
	await once(child.stdout, "data");
	child.kill("SIGKILL");
	await once(child, "exit");
	await using provider = createRoutedNetwork({
		subnet,
		maxIdle: 2,
		directory: slots,
		searchPath,
		debug: () => {},
	});
	await reachesOut(provider);
	await provider[Symbol.asyncDispose]();
	assert.deepEqual(forwarding(), before);
});

test("chains that drop what is forwarded are seen, whoever made them", () => {
	using machine = createNetworkNamespace(() => {});
	const chains = inNetworkNamespace(machine, () => {
		assert.equal(spawnSync("iptables-nft", ["-P", "FORWARD", "DROP"]).status, 0);
		using socket = new NetlinkSocket(netlinkNetfilter);
		addMasquerading(socket, { table: "ours", network: new Uint8Array([10, 1, 2]), ownedBySocket: true });
		return listForwardChains(socket);
	});
	assert.deepEqual(
		chains.toSorted((a, b) => (a.table < b.table ? -1 : 1)),
		[
			{ isIpv4: true, table: "filter", name: "FORWARD", drops: true },
			{ isIpv4: true, table: "ours", name: "forward", drops: false },
		],
	);
});

test("bridge: a machine that drops what is forwarded gets rules of ours, and loses them again", () => {
	const script = `
		import { spawnSync } from "node:child_process";
		import { createRoutedNetwork } from ${JSON.stringify(join(import.meta.dirname, "routed-network.ts"))};
		const rules = () => console.log(spawnSync("iptables-nft", ["-S", "FORWARD"], { encoding: "utf8" }).stdout.trim() + "\\n--");
		const provider = createRoutedNetwork({ subnet: ${JSON.stringify(subnet)}, maxIdle: 2, directory: ${JSON.stringify(join(dir, "dropping"))}, searchPath: process.env.PATH, debug: console.log });
		await provider.acquire({ signal: new AbortController().signal });
		rules();
		await provider[Symbol.asyncDispose]();
		rules();
		process.exit();`;
	// A machine of its own, with one interface and a default route.
	const machine = `ip link add out type veth peer name far && ip addr add 192.0.2.9/24 dev out && ip link set far up && ip link set out up &&
		ip route add default via 192.0.2.1 && iptables-nft -P FORWARD DROP && exec "$0" --input-type=module -e "$1"`;
	const run = spawnSync("unshare", ["--net", "sh", "-c", machine, process.execPath, script], {
		encoding: "utf8",
		timeout: 30_000,
	});
	const [during = "", later = ""] = run.stdout.split("\n--\n");
	assert.match(during, /-A FORWARD -s 10\.214\.\d+\.0\/24 -j ACCEPT/, run.stderr);
	assert.match(
		during,
		/-A FORWARD -d 10\.214\.\d+\.0\/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT/,
	);
	assert.equal(later, "-P FORWARD DROP");
});

test("takeNetworkSlot: a part that a route leads to is left alone", () => {
	const routes = [{ address: "10.214.0.0", prefix: 23, interfaceIndex: 2 }];
	const undone: unknown[] = [];
	const options = {
		directory: join(dir, "routes"),
		subnet,
		routes,
		undo: (changes: unknown) => undone.push(changes),
	};
	{
		using slot = takeNetworkSlot(options, (taken) => taken.note({ undo: [["true"]], forwarding: ["eth0"] }));
		assert.deepEqual([...slot.network], [10, 214, 2]);
		const refuse = (): never => {
			throw new Error("the kernel says no");
		};
		assert.throws(() => takeNetworkSlot(options, refuse), /the kernel says no/);
		using other = takeNetworkSlot(options, () => {});
		assert.deepEqual([...other.network], [10, 214, 3]);
		assert.throws(() => takeNetworkSlot(options, () => {}), /no free addresses/);
	}
	assert.deepEqual(undone, [{ undo: [["true"]], forwarding: ["eth0"] }]);
	assert.throws(
		() => takeNetworkSlot({ ...options, subnet: "10.0.0.0/25" }, () => {}),
		/at least 256 addresses/,
	);
});

test("none: a loopback interface of its own", async () => {
	await using provider = createIsolatedNetwork({ maxIdle: 1 });
	const network = await provider.acquire({ signal });
	assert.match(
		inside(network, "ip -o addr; ip route"),
		/^1: lo\s+inet 127\.0\.0\.1\/8[^\n]*\n1: lo\s+inet6 ::1\S*[^\n]*\n$/,
	);
	await network.release({ reusable: true });
});

for (const name of ["pasta", "slirp4netns"]) {
	test(`user: ${name} carries packets, and ends with the builder`, async () => {
		const bin = join(dir, name);
		mkdirSync(bin);
		const program = spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim();
		assert.notEqual(program, "", `needs ${name}: make packages`);
		writeFileSync(join(bin, name), `#!/bin/sh\nexec ${program} "$@"\n`, { mode: 0o755 });
		await using provider = createUserNetwork({ root: join(dir, "user"), searchPath: bin, maxIdle: 1 });
		if (name === "slirp4netns") {
			await reachesOut(provider);
		} else {
			// The machine's address is pasta's own, so that the machine itself is not outside.
			const network = await provider.acquire({ signal });
			assert.match(inside(network, "ip -4 -o addr show eth0; ip route"), new RegExp(ownAddress()));
			await withServer((_, port) =>
				assert.doesNotMatch(inside(network, fetchText("127.0.0.1", port)), /hello/),
			);
			await network.release({ reusable: true });
		}
		await provider[Symbol.asyncDispose]();
		assert.deepEqual(readdirSync(join(dir, "user/namespaces")), []);
		assert.deepEqual(listMounts(join(dir, "user")), []);
	});
}

test("cni: plugins are called in order with the result before, and backwards at the end", async () => {
	const bin = join(dir, "cni-bin");
	mkdirSync(bin);
	const plugin = `#!/bin/sh
echo "$CNI_COMMAND $(basename $0) $CNI_IFNAME $(cat)" >> ${join(dir, "calls")}
[ "$CNI_COMMAND" = DEL ] || { nsenter --net=$CNI_NETNS ip link add $CNI_IFNAME type veth peer name other; echo '{"cniVersion":"1.0.0","by":"'$(basename $0)'"}'; }
`;
	for (const name of ["one", "two"]) {
		writeFileSync(join(bin, name), plugin, { mode: 0o755 });
	}
	const configPath = join(dir, "net.conflist");
	const config = { cniVersion: "1.0.0", name: "n", plugins: [{ type: "one", mtu: 9 }, { type: "two" }] };
	writeFileSync(configPath, JSON.stringify(config));
	const options = { configPath, binaryDir: bin, root: join(dir, "cni"), maxIdle: 1, debug: () => {} };
	{
		await using provider = createCniNetwork(options);
		const network = await provider.acquire({ signal });
		assert.match(inside(network, "ip -o link"), /eth0/);
		await network.release({ reusable: true });
		const again = await provider.acquire({ signal });
		assert.equal(again.namespacePath, network.namespacePath);
		await again.release({ reusable: true });
	}
	assert.deepEqual(readFileSync(join(dir, "calls"), "utf8").trim().split("\n"), [
		'ADD one eth0 {"type":"one","mtu":9,"cniVersion":"1.0.0","name":"n"}',
		'ADD two eth0 {"type":"two","cniVersion":"1.0.0","name":"n","prevResult":{"cniVersion":"1.0.0","by":"one"}}',
		'DEL two eth0 {"type":"two","cniVersion":"1.0.0","name":"n"}',
		'DEL one eth0 {"type":"one","mtu":9,"cniVersion":"1.0.0","name":"n"}',
	]);
	await using broken = createCniNetwork({ ...options, binaryDir: "/nowhere" });
	await assert.rejects(broken.acquire({ signal }), /failed to find plugin "one" in path \[\/nowhere\]/);
});

test("networks: auto takes the first that works, and says which", async () => {
	const said: string[] = [];
	const services = { searchPath, root: join(dir, "auto"), debug: (message: string) => said.push(message) };
	await using networks = createNetworks({ mode: "auto", cniConfigPath: join(dir, "none.json") }, services);
	const network = await networks.acquire("sandbox", { signal });
	assert.ok(network.namespacePath !== undefined);
	await network.release({ reusable: true });
	assert.deepEqual(said, ["network of steps: bridge"]);
	assert.equal((await networks.acquire("host", { signal })).namespacePath, undefined);
	assert.throws(() => createNetworks({ mode: "nat" as "host" }, services), /invalid network mode: "nat"/);
});

test("networks: auto ends at the machine's own where nothing else works", async () => {
	const said: string[] = [];
	const services = {
		searchPath: "",
		root: join(dir, "auto"),
		debug: (message: string) => said.push(message),
	};
	await using networks = createNetworks(
		{ mode: "auto", subnet: "192.0.2.0/30", cniConfigPath: join(dir, "none.json") },
		services,
	);
	assert.equal((await networks.acquire("sandbox", { signal })).namespacePath, undefined);
	assert.match(said[0] ?? "", /bridge does not work here: invalid subnet/);
	assert.match(said[1] ?? "", /user does not work here: neither slirp4netns nor pasta/);
	assert.equal(said[2], "network of steps: host");
});

test("pool: one that may have been changed is not used again; more than allowed wait", async () => {
	let made = 0;
	const closed: number[] = [];
	await using pool = createNetworkPool({
		make: async () => {
			const number = ++made;
			return {
				namespacePath: `/${number}`,
				nameservers: [],
				[Symbol.asyncDispose]: async () => void closed.push(number),
			};
		},
		maxIdle: 1,
		maxUsed: 2,
	});
	const one = await pool.acquire({ signal });
	const two = await pool.acquire({ signal });
	const waiting = pool.acquire({ signal });
	await one.release({ reusable: false });
	await one.release({ reusable: false });
	const three = await waiting;
	assert.deepEqual([three.namespacePath, closed], ["/3", [1]]);
	await two.release({ reusable: true });
	await three.release({ reusable: true });
	assert.deepEqual(closed, [1, 3], "one waits, the other is one too many");
	assert.equal(existsSync("/2"), false);
	await pool[Symbol.asyncDispose]();
	assert.deepEqual(closed, [1, 3, 2]);
});
