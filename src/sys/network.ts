import { closeSync, constants, openSync } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";
import { cFunction } from "./ffi.ts";
import { enterNamespace, inUserNamespace, unshare } from "./namespace.ts";
import {
	attribute,
	messageFlag,
	type NetlinkMessage,
	type NetlinkSocket,
	nested,
	readAttributes,
	u32,
} from "./netlink.ts";

/**
 * Network namespaces, and the orders of rtnetlink(7) that a pair of connected interfaces needs. IPv4 only. All orders are for the
 * namespace in which the socket was opened.
 */

/** A network namespace that lives as long as a process is in it, or the descriptor is open. */
export interface NetworkNamespace extends Disposable {
	readonly fd: number;
	/** For another process, as long as this one lives. */
	readonly path: string;
}

const currentNamespace = "/proc/thread-self/ns/net";

/** Makes an empty one. `prepare` is called in it. */
export function createNetworkNamespace(prepare: () => void): NetworkNamespace {
	return aside(() => {
		unshare(["net"]);
		prepare();
		const fd = openSync(currentNamespace, constants.O_RDONLY);
		let open = true;
		return {
			fd,
			path: `/proc/${process.pid}/fd/${fd}`,
			[Symbol.dispose]() {
				if (open) {
					open = false;
					closeSync(fd);
				}
			},
		};
	});
}

/** Calls `work` with this thread in the namespace. `work` must not wait: everything else of the thread would be in it too. */
export function inNetworkNamespace<T>(namespace: NetworkNamespace, work: () => T): T {
	return aside(() => {
		enterNamespace(namespace.fd, "net");
		return work();
	});
}

/** The thread is back where it was when this returns or throws. */
function aside<T>(work: () => T): T {
	if (inUserNamespace()) {
		throw new SlipwayError(
			"permission-denied",
			"in a user namespace the way back from another network is closed: the machine's belongs to the machine",
		);
	}
	const home = openSync(currentNamespace, constants.O_RDONLY);
	try {
		return work();
	} finally {
		try {
			enterNamespace(home, "net");
		} catch {
			// Going on in the wrong network would be silent and for everything that follows.
			process.abort();
		} finally {
			closeSync(home);
		}
	}
}

const nameToIndex = cFunction<[string]>("if_nametoindex", "uint", ["const char *"]);

/** The interface's number in this thread's namespace; undefined if there is none of the name. */
export function interfaceIndex(name: string): number | undefined {
	return nameToIndex(name) || undefined;
}

const newLink = 16;
const deleteLink = 17;
const newAddress = 20;
const newRoute = 24;

const inet = 2;
const interfaceUp = 1;
const scopeLink = 253;
const scopeUniverse = 0;

function ordered(type: number, body: Uint8Array, flags = 0): NetlinkMessage {
	return { type, flags: messageFlag.request | messageFlag.acknowledge | flags, body };
}

const making = messageFlag.create | messageFlag.exclusive;

/** Two connected interfaces: `name` here, `peer` in the other namespace. Both go when either goes, as with its namespace. */
export function addVeth(
	socket: NetlinkSocket,
	veth: {
		readonly name: string;
		readonly peer: string;
		readonly peerNamespace: NetworkNamespace;
		readonly mtu: number;
	},
): void {
	const peer = Buffer.concat([
		linkHeader(0, 0),
		attribute(3, veth.peer),
		attribute(4, u32(veth.mtu)),
		attribute(28, u32(veth.peerNamespace.fd)),
	]);
	const body = Buffer.concat([
		linkHeader(0, 0),
		attribute(3, veth.name),
		attribute(4, u32(veth.mtu)),
		nested(18, attribute(1, "veth"), nested(2, attribute(1, peer))),
	]);
	socket.order([ordered(newLink, body, making)], `add interface ${veth.name}`);
}

export function removeLink(socket: NetlinkSocket, name: string): void {
	const index = interfaceIndex(name);
	if (index !== undefined) {
		socket.order([ordered(deleteLink, linkHeader(index, 0))], `remove interface ${name}`);
	}
}

/** What an interface gets after it was made. */
export interface LinkSetup {
	readonly name: string;
	/** Its own address, without a network around it. */
	readonly address?: string;
	/** Addresses that are right behind it. */
	readonly neighbours?: readonly string[];
	/** Where everything else is sent to, one of the neighbours. */
	readonly gateway?: string;
}

/** Gives the interface its address, takes it into use and adds its routes. */
export function setUpLink(socket: NetlinkSocket, setup: LinkSetup): void {
	const index = interfaceIndex(setup.name);
	if (index === undefined) {
		throw new SlipwayError("not-found", `no network interface ${setup.name}`);
	}
	const messages: NetlinkMessage[] = [];
	if (setup.address !== undefined) {
		const address = addressBytes(setup.address);
		const header = new Uint8Array([inet, 32, 0, 0, ...u32(index)]);
		const body = Buffer.concat([header, attribute(2, address), attribute(1, address)]);
		messages.push(ordered(newAddress, body, making));
	}
	messages.push(ordered(newLink, linkHeader(index, interfaceUp)));
	for (const neighbour of setup.neighbours ?? []) {
		const body = Buffer.concat([
			routeHeader(32, scopeLink),
			attribute(1, addressBytes(neighbour)),
			attribute(4, u32(index)),
		]);
		messages.push(ordered(newRoute, body, making));
	}
	if (setup.gateway !== undefined) {
		const body = Buffer.concat([
			routeHeader(0, scopeUniverse),
			attribute(5, addressBytes(setup.gateway)),
			attribute(4, u32(index)),
		]);
		messages.push(ordered(newRoute, body, making));
	}
	socket.order(messages, `set up interface ${setup.name}`);
}

/** ifinfomsg: family, type, index, flags, and which flags to change. */
function linkHeader(index: number, flags: number): Uint8Array {
	const bytes = new Uint8Array(16);
	const view = new DataView(bytes.buffer);
	view.setInt32(4, index, true);
	view.setUint32(8, flags, true);
	view.setUint32(12, flags, true);
	return bytes;
}

const mainTable = 254;
const staticRoute = 4;
const unicast = 1;

/** rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags. */
function routeHeader(prefix: number, scope: number): Uint8Array {
	return new Uint8Array([inet, prefix, 0, 0, mainTable, staticRoute, scope, unicast, 0, 0, 0, 0]);
}

/** A route of the main table that is in use. */
export interface Route {
	readonly address: string;
	/** 0 is the default route. */
	readonly prefix: number;
	readonly interfaceIndex: number | undefined;
}

/** IPv4 routes of the socket's namespace. */
export function listRoutes(socket: NetlinkSocket): readonly Route[] {
	const question = { type: 26, flags: messageFlag.request | messageFlag.dump, body: routeHeader(0, 0) };
	return socket.dump(question, "list routes").flatMap((body) => {
		const [family, prefix = 0, , , table] = body;
		if (family !== inet || table !== mainTable) {
			return [];
		}
		const attributes = readAttributes(body.subarray(12));
		const index = attributes.get(4);
		return [
			{
				address: [...(attributes.get(1) ?? [0, 0, 0, 0])].join("."),
				prefix,
				interfaceIndex:
					index === undefined
						? undefined
						: new DataView(index.buffer, index.byteOffset, 4).getUint32(0, true),
			},
		];
	});
}

export interface Link {
	readonly index: number;
	readonly name: string;
	/** The most bytes that it sends at once. */
	readonly mtu: number;
}

/** Interfaces of the socket's namespace. */
export function listLinks(socket: NetlinkSocket): readonly Link[] {
	const question = { type: 18, flags: messageFlag.request | messageFlag.dump, body: linkHeader(0, 0) };
	return socket.dump(question, "list interfaces").map((body) => {
		const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
		const attributes = readAttributes(body.subarray(16));
		const mtu = attributes.get(4);
		return {
			index: view.getInt32(4, true),
			name: new TextDecoder().decode(attributes.get(3)?.slice(0, -1)),
			mtu: mtu === undefined ? 0 : new DataView(mtu.buffer, mtu.byteOffset, 4).getUint32(0, true),
		};
	});
}

/** The four bytes of a dotted IPv4 address. */
export function addressBytes(text: string): Uint8Array {
	const parts = text.split(".").map(Number);
	if (parts.length !== 4 || parts.some((part) => !Number.isInteger(part) || part < 0 || part > 255)) {
		throw new SlipwayError("invalid-argument", `invalid IPv4 address ${JSON.stringify(text)}`);
	}
	return new Uint8Array(parts);
}
