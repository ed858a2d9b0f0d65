import {
	attribute,
	be32,
	messageFlag,
	type NetlinkMessage,
	type NetlinkSocket,
	nested,
	readAttributes,
} from "./netlink.ts";

/**
 * Packet filtering by nf_tables (linux/netfilter/nf_tables.h), as far as a network behind address translation needs it. A table
 * here belongs to the socket that made it: the kernel removes it when the socket is closed, also by the end of the process.
 */

const subsystem = 10;
const batchBegin = 0x10;
const batchEnd = 0x11;
const newTable = 0;
const deleteTable = 2;
const newChain = 3;
const getChain = 4;
const newRule = 6;

const ipv4 = 2;
const ownerFlag = 2;

const hookForward = 2;
const hookPostrouting = 4;
const verdictDrop = 0;

function message(type: number, attributes: readonly Uint8Array[], flags = 0): NetlinkMessage {
	return {
		type: (subsystem << 8) | type,
		flags: messageFlag.request | messageFlag.acknowledge | flags,
		body: Buffer.concat([new Uint8Array([ipv4, 0, 0, 0]), ...attributes]),
	};
}

/** All or nothing. */
function batch(messages: readonly NetlinkMessage[]): readonly NetlinkMessage[] {
	const frame = (type: number): NetlinkMessage => ({
		type,
		flags: messageFlag.request,
		body: new Uint8Array([0, 0, 0, subsystem]),
	});
	return [frame(batchBegin), ...messages, frame(batchEnd)];
}

/**
 * What leaves the network (first three bytes of its addresses) gets the machine's own address; from elsewhere only answers come in,
 * also from other addresses of the network itself.
 */
export function addMasquerading(
	socket: NetlinkSocket,
	{
		table,
		network,
		ownedBySocket,
	}: { readonly table: string; readonly network: Uint8Array; readonly ownedBySocket: boolean },
): void {
	const named = (type: number): Uint8Array => attribute(type, table);
	const flags = ownedBySocket ? [attribute(2, be32(ownerFlag))] : [];
	const chain = (
		name: string,
		{ type, hook, priority }: { readonly type: string; readonly hook: number; readonly priority: number },
	): NetlinkMessage =>
		message(
			newChain,
			[
				named(1),
				attribute(3, name),
				nested(4, attribute(1, be32(hook)), attribute(2, be32(priority))),
				attribute(7, type),
			],
			messageFlag.create,
		);
	const rule = (name: string, expressions: readonly Uint8Array[]): NetlinkMessage =>
		message(
			newRule,
			[named(1), attribute(2, name), nested(4, ...expressions)],
			messageFlag.create | messageFlag.append,
		);
	socket.order(
		batch([
			message(newTable, [named(1), ...flags], messageFlag.create | messageFlag.exclusive),
			chain("postrouting", { type: "nat", hook: hookPostrouting, priority: 100 }),
			chain("forward", { type: "filter", hook: hookForward, priority: 0 }),
			rule("postrouting", [...addressIn("source", network), expression("masq")]),
			rule("forward", [...addressIn("destination", network), ...notOfKnownConnection, drop]),
		]),
		`add nftables table ${table}`,
	);
}

export function removeTable(socket: NetlinkSocket, table: string): void {
	socket.order(batch([message(deleteTable, [attribute(1, table)])]), `remove nftables table ${table}`);
}

/** A chain that sees forwarded packets. */
export interface ForwardChain {
	/** True for the family of IPv4 alone, false for one that has both. */
	readonly isIpv4: boolean;
	readonly table: string;
	readonly name: string;
	/** What no rule accepts is dropped: our own rules cannot let it through. */
	readonly drops: boolean;
}

const bothFamilies = 1;

export function listForwardChains(socket: NetlinkSocket): readonly ForwardChain[] {
	const question: NetlinkMessage = {
		type: (subsystem << 8) | getChain,
		flags: messageFlag.request | messageFlag.dump,
		body: new Uint8Array([0, 0, 0, 0]),
	};
	return socket.dump(question, "list nftables chains").flatMap((body) => {
		const attributes = readAttributes(body.subarray(4));
		const hook = attributes.get(4);
		const family = body[0];
		if (
			hook === undefined ||
			readBe32(readAttributes(hook).get(1)) !== hookForward ||
			(family !== ipv4 && family !== bothFamilies)
		) {
			return [];
		}
		return [
			{
				isIpv4: family === ipv4,
				table: readText(attributes.get(1)),
				name: readText(attributes.get(3)),
				drops: readBe32(attributes.get(5)) === verdictDrop,
			},
		];
	});
}

function readText(bytes: Uint8Array | undefined): string {
	return new TextDecoder().decode(bytes?.subarray(0, -1));
}

function readBe32(bytes: Uint8Array | undefined): number | undefined {
	return bytes === undefined || bytes.length < 4
		? undefined
		: new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, false);
}

function expression(name: string, ...data: readonly Uint8Array[]): Uint8Array {
	return nested(1, attribute(1, name), ...(data.length === 0 ? [] : [nested(2, ...data)]));
}

const register = 1;
const networkHeader = 1;
const equal = 0;

/** Loads the beginning of an address of the packet and goes on only if it is the network's. */
function addressIn(which: "source" | "destination", network: Uint8Array): readonly Uint8Array[] {
	return [
		expression(
			"payload",
			attribute(1, be32(register)),
			attribute(2, be32(networkHeader)),
			attribute(3, be32(which === "source" ? 12 : 16)),
			attribute(4, be32(network.length)),
		),
		compare(network),
	];
}

function compare(value: Uint8Array): Uint8Array {
	return expression(
		"cmp",
		attribute(1, be32(register)),
		attribute(2, be32(equal)),
		nested(3, attribute(1, value)),
	);
}

/** Bits of the connection's state: established 2, related 4; in this machine's order, which is little endian. */
const notOfKnownConnection: readonly Uint8Array[] = [
	expression("ct", attribute(1, be32(register)), attribute(2, be32(0))),
	expression(
		"bitwise",
		attribute(1, be32(register)),
		attribute(2, be32(register)),
		attribute(3, be32(4)),
		nested(4, attribute(1, new Uint8Array([6, 0, 0, 0]))),
		nested(5, attribute(1, new Uint8Array(4))),
	),
	compare(new Uint8Array(4)),
];

const drop: Uint8Array = expression(
	"immediate",
	attribute(1, be32(0)),
	nested(2, nested(2, attribute(1, be32(verdictDrop)))),
);
