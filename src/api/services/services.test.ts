import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as fsutil from "../generated/fsutil.ts";
import type { Method, MethodKind } from "../grpc.ts";
import { bytesMessage, tunnelMessage } from "./bytes-message.ts";
import { type Packet, type PacketStat, packet } from "./packet.ts";
import { decodePlainStat } from "./packet-stat.ts";

type Table = Readonly<Record<string, Method<MethodKind, unknown, unknown>>>;

/** `kind path` of every method in the .proto files. */
function declared(): readonly string[] {
	const folder = join(import.meta.dirname, "../proto");
	const found: string[] = [];
	for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
		if (!name.endsWith(".proto")) {
			continue;
		}
		const text = readFileSync(join(folder, name), "utf8");
		const scope = /^package ([\w.]+);/m.exec(text)?.[1];
		for (const [, service, body] of text.matchAll(/^service (\w+) \{([\s\S]*?)^\}/gm)) {
			for (const [, rpc, up, down] of (body ?? "").matchAll(
				/rpc (\w+)\((stream )?[\w.]+\) returns \((stream )?/g,
			)) {
				const kind = up ? (down ? "bidi" : "client-stream") : down ? "server-stream" : "unary";
				found.push(`${kind} /${scope}.${service}/${rpc}`);
			}
		}
	}
	return found.sort();
}

test("the tables have each method of the .proto files, with its path and kind", async () => {
	const found = new Set<string>();
	for (const name of readdirSync(import.meta.dirname)) {
		if (name.endsWith(".test.ts")) {
			continue;
		}
		const tables = Object.values((await import(`./${name}`)) as Record<string, Table>);
		for (const table of tables) {
			for (const method of Object.values(table)) {
				if (typeof method === "object" && "path" in method) {
					found.add(`${method.kind} ${method.path}`);
				}
			}
		}
	}
	assert.deepEqual([...found].sort(), declared());
});

const stat: PacketStat = {
	path: "a/b",
	mode: 0x80000000 + 0o755,
	uid: 1000,
	gid: 4_294_967_294,
	size: 2 ** 40 + 1,
	modTime: 1_763_719_200_123_456_789n,
	linkname: "target",
	devmajor: 8,
	devminor: 2 ** 33,
	xattrs: new Map([
		["user.b", Buffer.from([0, 255])],
		["user.a", new Uint8Array(0)],
	]),
};

describe("packet", () => {
	const empty = { kind: "stat", stat: undefined } as const;
	const packets: readonly (readonly [Packet, fsutil.Packet])[] = [
		[
			{ kind: "stat", stat },
			{ type: 0, stat: { ...stat, xattrs: new Map(stat.xattrs) }, ID: 0, data: new Uint8Array(0) },
		],
		[empty, { type: 0, stat: undefined, ID: 0, data: new Uint8Array(0) }],
		[
			{ kind: "request", id: 300 },
			{ type: 1, stat: undefined, ID: 300, data: new Uint8Array(0) },
		],
		[
			{ kind: "data", id: 0, data: Buffer.alloc(200, 7) },
			{ type: 2, stat: undefined, ID: 0, data: Buffer.alloc(200, 7) },
		],
		[
			{ kind: "data", id: 4_294_967_295, data: new Uint8Array(0) },
			{ type: 2, stat: undefined, ID: 4_294_967_295, data: new Uint8Array(0) },
		],
		[{ kind: "finish" }, { type: 3, stat: undefined, ID: 0, data: new Uint8Array(0) }],
		[
			{ kind: "error", message: "no ü" },
			{ type: 4, stat: undefined, ID: 0, data: Buffer.from("no ü") },
		],
	];

	test("what the hand codec writes is what the generated one reads, and the other way round", () => {
		for (const [ours, generated] of packets) {
			assert.deepEqual(plain(fsutil.Packet.decode(packet.encode(ours).finish())), plain(generated));
			assert.deepEqual(plain(packet.decode(fsutil.Packet.encode(generated).finish())), plain(ours));
			const parts = packet.parts?.(ours, 5);
			assert.ok(parts);
			assert.deepEqual(
				Buffer.concat([parts.head.subarray(5), parts.body]),
				Buffer.from(packet.encode(ours).finish()),
			);
		}
	});

	test("times of all sizes", () => {
		for (const modTime of [
			0n,
			1n,
			-1n,
			127n,
			128n,
			2n ** 53n - 1n,
			2n ** 53n,
			2n ** 63n - 1n,
			-(2n ** 63n),
		]) {
			const bytes = packet.encode({ kind: "stat", stat: { ...stat, modTime } }).finish();
			assert.equal(fsutil.Packet.decode(bytes).stat?.modTime, modTime);
			const back = packet.decode(bytes);
			assert.equal(back.kind === "stat" && back.stat?.modTime, modTime);
		}
	});

	test("the short way for entries gives what the whole codec gives, or nothing; also of damaged ones", () => {
		let given = 0;
		for (let seed = 0; seed < 20_000; seed++) {
			const entry = {
				...stat,
				xattrs: new Map(),
				path: "d/file".repeat(seed % 40),
				linkname: seed % 3 === 0 ? "" : "to",
				size: seed % 7 === 0 ? 2 ** 48 + seed : seed,
				modTime: [0n, 1n << 28n, 1_795_000_000_123_456_789n, 2n ** 63n - 1n, -1n][seed % 5] ?? 0n,
			};
			const bytes = Buffer.from(packet.encode({ kind: "stat", stat: entry }).finish());
			for (let damage = seed % 4; damage > 0; damage--) {
				bytes[(seed * 7919 * damage) % bytes.length] = (seed * 31 * damage) % 128;
			}
			const found = decodePlainStat(bytes);
			if (found !== undefined) {
				given += 1;
				// With a field that it does not know, which changes nothing, it is left to the whole codec.
				const whole = packet.decode(Buffer.concat([bytes, Buffer.from([0x7a, 0])]));
				assert.deepEqual({ kind: "stat", stat: found }, whole);
			}
		}
		assert.ok(given > 5000 && given < 20_000, `${given}`);
	});

	test("names that are no text", () => {
		const path = "caf\u00e9\u00ff/\u0080";
		const back = packet.decode(packet.encode({ kind: "stat", stat: { ...stat, path } }).finish());
		assert.equal(back.kind === "stat" && back.stat?.path, path);
	});

	test("a type that is not known, a stat that is longer than its packet", () => {
		assert.throws(() => packet.decode(Buffer.from([8, 9])), /unknown packet type 9/);
		assert.throws(() => packet.decode(Buffer.from([0x12, 9, 0x0a])), /invalid wire-format/);
		assert.throws(() => packet.decode(Buffer.from([0x12, 2, 0x0a, 3, 65, 66, 67])), /invalid wire-format/);
	});
});

test("bytesMessage: empty, small, large, with fields of newer clients", () => {
	for (const size of [0, 1, 127, 128, 70_000]) {
		const data = Buffer.alloc(size, 3);
		assert.ok(data.equals(bytesMessage.decode(bytesMessage.encode({ data }).finish()).data));
	}
	assert.deepEqual(bytesMessage.decode(Buffer.from([0x12, 1, 9, 0x0a, 1, 5])).data, Buffer.from([5]));
	assert.throws(() => bytesMessage.decode(Buffer.from([0])), /invalid wire-format/);
});

test("tunnelMessage: pieces as they come, wherever they are cut; others are left to the whole codec", () => {
	const data = Buffer.from(Array.from({ length: 300 }, (_, index) => index % 251));
	const bytes = Buffer.from(tunnelMessage.encode({ data }).finish());
	for (let cut = 3; cut <= bytes.length; cut++) {
		const pieces = [bytes.subarray(0, cut), bytes.subarray(cut, cut + 7), bytes.subarray(cut + 7)];
		const message = tunnelMessage.decodePieces?.(pieces, bytes.length);
		assert.ok(message !== undefined);
		assert.deepEqual(Buffer.concat([message.data, ...(message.more ?? [])]), data);
	}
	for (const [pieces, size] of [
		// The length of the data is in two pieces, another field follows, and the message is cut off.
		[[bytes.subarray(0, 2), bytes.subarray(2)], bytes.length],
		[[bytes, Buffer.from([0x12, 0])], bytes.length + 2],
		[[bytes.subarray(0, 100), bytes.subarray(100, 200)], 200],
	] as const) {
		assert.equal(tunnelMessage.decodePieces?.(pieces, size), undefined);
	}
});

/** Without the difference of Buffer and Uint8Array. */
function plain(value: unknown): unknown {
	if (value instanceof Uint8Array) {
		return [...value];
	}
	if (value instanceof Map) {
		return Object.fromEntries([...value].map(([key, entry]) => [key, plain(entry)]));
	}
	if (typeof value === "object" && value !== null) {
		return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
	}
	return value;
}
