import assert from "node:assert/strict";
import {
	existsSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { Packet, PacketStat } from "../api/services/packet.ts";
import { createThreadPool } from "../async/pool.ts";
import { SlipwayError } from "../errors/errors.ts";
import { toGoMode } from "./go-mode.ts";
import { type Ending, packetPair } from "./packet-stream.fixture.ts";
import { type ReceiveOptions, type ReceiveTarget, receiveTree } from "./receive-tree.ts";
import { sendTree } from "./send-tree.ts";
import type { SyncSummary } from "./session.ts";
import { encodeTreeState } from "./tree-state.ts";

const pool = createThreadPool({ size: 1 });
const root = mkdtempSync(join(tmpdir(), "slipway-hostile-"));
after(async () => {
	await pool[Symbol.asyncDispose]();
	rmSync(root, { recursive: true, force: true });
});
const never = new AbortController().signal;
const outside = join(root, "outside");
mkdirSync(outside);

let counter = 0;
function directory(): string {
	const path = join(root, `d${counter++}`);
	mkdirSync(path);
	return path;
}

const directoryMode = toGoMode(0o040755);
const fileMode = toGoMode(0o100644);
const linkMode = toGoMode(0o120777);

function stat(path: string, mode: number, rest: Partial<PacketStat> = {}): Packet {
	return {
		kind: "stat",
		stat: {
			path,
			mode,
			uid: 0,
			gid: 0,
			size: 1,
			modTime: 1_600_000_000_000_000_000n,
			linkname: "",
			devmajor: 0,
			devminor: 0,
			xattrs: new Map(),
			...rest,
		},
	};
}

const last: Packet = { kind: "stat", stat: undefined };

function data(id: number, text: string): Packet {
	return { kind: "data", id, data: Buffer.from(text) };
}

interface Attempt {
	readonly result: Promise<SyncSummary>;
	readonly peer: Ending;
}

function attempt(
	target: string,
	rest: Partial<ReceiveTarget> = {},
	options: Partial<ReceiveOptions> = {},
): Attempt {
	const [peer, ours] = packetPair();
	const result = receiveTree(
		ours,
		{ target, force: false, mirror: true, place: { kind: "copy" }, ...rest },
		{ signal: never, pool, cancel: (error) => peer.fail(error), ...options },
	);
	result.catch(() => undefined);
	return { result, peer };
}

/** Says all of it, whatever the answers, and goes. */
async function recite(packets: readonly Packet[], target: string): Promise<SyncSummary> {
	const { result, peer } = attempt(target);
	for (const packet of packets) {
		peer.send(packet)?.catch(() => undefined);
	}
	peer.close();
	return result;
}

const lies: readonly (readonly [string, readonly Packet[], RegExp])[] = [
	["an absolute path", [stat("/etc/x", fileMode)], /absolute path/],
	["a path that leads up", [stat("../x", fileMode)], /changes out of order|escape/],
	["the parent itself", [stat("..", directoryMode)], /escape check/],
	["the directory itself", [stat(".", directoryMode)], /unclean path/],
	["an empty path", [stat("", directoryMode)], /unclean path/],
	[
		"a path that leads up in the middle",
		[stat("a", directoryMode), stat("a/../../x", fileMode)],
		/out of order/,
	],
	["two separators", [stat("a", directoryMode), stat("a//b", fileMode)], /out of order/],
	["a separator at the end", [stat("a/", directoryMode)], /unclean path/],
	["a zero byte", [stat("a\0b", fileMode)], /unclean path/],
	["names out of order", [stat("b", fileMode), stat("a", fileMode)], /changes out of order: "a" "b"/],
	["a name twice", [stat("a", fileMode), stat("a", fileMode)], /out of order/],
	[
		"a directory that was left",
		[stat("a", directoryMode), stat("b", fileMode), stat("a/x", fileMode)],
		/out of order/,
	],
	["an entry of no directory", [stat("a/b", fileMode)], /out of order/],
	["an entry below a file", [stat("a", fileMode), stat("a/b", fileMode)], /out of order/],
	[
		"an entry below a link",
		[stat("a", linkMode, { linkname: outside }), stat("a/b", fileMode)],
		/out of order/,
	],
	["a hard link to nothing", [stat("a", fileMode, { linkname: "z" })], /invalid link a to unknown path: "z"/],
	["a hard link out of the tree", [stat("a", fileMode, { linkname: "../../etc/passwd" })], /unknown path/],
	[
		"a hard link to a directory",
		[stat("a", directoryMode), stat("b", fileMode, { linkname: "a" })],
		/unknown path/,
	],
	[
		"a hard link to a symbolic link",
		[stat("a", linkMode, { linkname: outside }), stat("b", fileMode, { linkname: "a" })],
		/unknown path/,
	],
	["a symbolic link to nothing", [stat("a", linkMode)], /leads nowhere/],
	["a mode of no file", [stat("a", 0x8800_0000)], /unknown file mode/],
	["a name that is too long", [stat("a".repeat(5000), fileMode)], /too long/],
	[
		"a name that no file system has",
		[stat("a".repeat(300), fileMode), last, data(0, "x"), data(0, "")],
		/could not write/,
	],
	[
		"attributes without end",
		[stat("a", fileMode, { xattrs: new Map([["user.a", Buffer.alloc(70_000)]]) })],
		/attributes of "a" are too large/,
	],
	["content that nobody asked for", [stat("a", fileMode), data(1, "x")], /invalid file request 1/],
	["content of a directory", [stat("a", directoryMode), data(0, "x")], /invalid file request 0/],
	[
		"content after its end",
		[stat("a", fileMode), stat("b", fileMode), data(0, "x"), data(0, ""), data(0, "y")],
		/invalid file request 0/,
	],
	["an end before the end", [stat("a", fileMode), { kind: "finish" }], /declared complete/],
	["an entry after the last", [stat("a", fileMode), last, stat("b", fileMode)], /after the last one/],
	["the last entry twice", [stat("a", fileMode), last, last], /after the last one/],
	["a request", [{ kind: "request", id: 0 }], /asked for by the side that sends/],
	["an error", [stat("a", fileMode), { kind: "error", message: "no more" }], /error from sender: no more/],
	["nothing", [], /ended before it was complete/],
	["half of it", [stat("a", fileMode), last, data(0, "x")], /ended before it was complete/],
];

for (const [title, packets, message] of lies) {
	test(`a sender that gives ${title} is told so`, async () => {
		const target = directory();
		const { result, peer } = attempt(target);
		for (const packet of packets) {
			peer.send(packet)?.catch(() => undefined);
		}
		peer.close();
		await assert.rejects(result, (error: SlipwayError) => {
			assert.ok(error instanceof SlipwayError);
			assert.match(error.message, message);
			return true;
		});
		assert.deepEqual(readdirSync(outside), []);
		let told: string | undefined;
		const answers = peer[Symbol.asyncIterator]();
		while (told === undefined) {
			const { value } = await answers.next();
			told = value?.kind === "error" ? value.message : undefined;
		}
		assert.match(told, message);
	});
}

test("a sender that gives more than it announced, without end, is stopped", async () => {
	const { result, peer } = attempt(directory());
	await peer.send(stat("a", fileMode));
	await peer.send(last);
	const flood = (async () => {
		const piece = Buffer.alloc(8 << 20);
		for (let at = 0; at < 100; at++) {
			await peer.send({ kind: "data", id: 0, data: piece });
		}
	})();
	flood.catch(() => undefined);
	await assert.rejects(result, { code: "resource-exhausted" });
});

test("a sender that says nothing has stalled", async () => {
	const { result, peer } = attempt(directory(), {}, { stallMs: 30 });
	await peer.send(stat("a", fileMode));
	await assert.rejects(result, { code: "deadline-exceeded" });
});

test("a file that is smaller than announced is asked for again next time", async () => {
	const target = directory();
	const packets = [
		stat("a", fileMode, { size: 10 }),
		last,
		data(0, "short"),
		data(0, ""),
		{ kind: "finish" } as const,
	];
	const { state } = await reciteAll(packets, target);
	const again = attempt(target, { previous: state });
	await again.peer.send(stat("a", fileMode, { size: 10 }));
	const answer = await again.peer[Symbol.asyncIterator]().next();
	assert.deepEqual(answer.value, { kind: "request", id: 0 });
	again.peer.close();
	await assert.rejects(again.result);
});

/** An honest end: `finish` is said when it is time. */
async function reciteAll(packets: readonly Packet[], target: string): Promise<SyncSummary> {
	const { result, peer } = attempt(target);
	for (const packet of packets.slice(0, -1)) {
		await peer.send(packet);
	}
	for await (const answer of peer) {
		if (answer.kind === "finish") {
			break;
		}
	}
	await peer.send({ kind: "finish" });
	return result;
}

test("links that are in the target are replaced, not followed, whatever was remembered", async () => {
	const target = directory();
	const packets = [
		stat("a", directoryMode),
		stat("a/b", fileMode),
		last,
		data(1, "x"),
		data(1, ""),
		{ kind: "finish" } as const,
	];
	symlinkSync(outside, join(target, "a"));
	const { state } = await reciteAll(packets, target);
	assert.deepEqual(readdirSync(outside), []);
	assert.ok(lstatSync(join(target, "a")).isDirectory());
	rmSync(join(target, "a"), { recursive: true });
	symlinkSync(outside, join(target, "a"));
	const { result, peer } = attempt(target, { previous: state });
	for (const packet of [stat("a", directoryMode), stat("a/b", fileMode), stat("a/c", fileMode), last]) {
		await peer.send(packet);
	}
	await peer.send(data(2, "x"));
	await peer.send(data(2, ""));
	await assert.rejects(result, /could not open directory/);
	assert.deepEqual(readdirSync(outside), []);
});

test("a state of something else is no state", async () => {
	for (const previous of [new Uint8Array(0), new Uint8Array(200), Buffer.from("garbage".repeat(50))]) {
		const target = directory();
		writeFileSync(join(target, "old"), "old");
		const { result, peer } = attempt(target, { previous });
		await peer.send(last);
		for await (const answer of peer) {
			if (answer.kind === "finish") {
				break;
			}
		}
		await peer.send({ kind: "finish" });
		assert.deepEqual((await result).changed, ["old"]);
		assert.equal(existsSync(join(target, "old")), false);
	}
	assert.ok(encodeTreeState({ count: 0, names: [], rows: new Float64Array() }, "").length > 0);
});

test("a receiver that asks for what there is not is told so", async () => {
	const [ours, peer] = packetPair();
	const sending = sendTree(ours, [], { signal: never });
	sending.catch(() => undefined);
	await peer.send({ kind: "request", id: 5 });
	await assert.rejects(sending, { message: "invalid file id 5" });
});

/** Numbers that are the same in every run. */
function seeded(seed: number): () => number {
	let state = seed;
	return () => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return state / 2 ** 32;
	};
}

test("random packets end in an error or a tree, and leave everything else alone", async () => {
	const names = ["a", "b", "a/b", "a/c", "a/b/c", "..", "../x", "/x", "", "c", "a-b", "z"];
	const modes = [directoryMode, fileMode, linkMode, toGoMode(0o010644), 0xffff_ffff, 1 << 24];
	const target = directory();
	for (let seed = 1; seed <= 300; seed++) {
		const random = seeded(seed);
		const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
		const packets = Array.from({ length: Math.floor(random() * 20) }, (): Packet => {
			switch (Math.floor(random() * 8)) {
				case 0:
					return data(Math.floor(random() * 6), pick(["", "content"]));
				case 1:
					return pick<Packet>([last, { kind: "finish" }, { kind: "error", message: "x" }]);
				default:
					return stat(pick(names), pick(modes), {
						linkname: pick(["", "", "a", "../../outside", outside]),
						size: pick([0, 1, 7, 2 ** 50]),
						modTime: pick([0n, -1n, 2n ** 62n]),
					});
			}
		});
		await recite(packets, target).catch((error: unknown) => assert.ok(error instanceof SlipwayError));
		assert.deepEqual(readdirSync(outside), []);
	}
	assert.deepEqual(
		readdirSync(root).filter((name) => name === "x"),
		[],
	);
});
