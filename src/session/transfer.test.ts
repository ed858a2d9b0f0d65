import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
	chmodSync,
	linkSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	statSync,
	symlinkSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { createThreadPool } from "../async/pool.ts";
import { makeNode } from "../sys/node.ts";
import { getXattr, setXattr } from "../sys/xattr.ts";
import { createAnnouncer } from "./announce.ts";
import { packetPair } from "./packet-stream.fixture.ts";
import { type ReceiveTarget, receiveTree } from "./receive-tree.ts";
import { sendTree } from "./send-tree.ts";
import type { SyncSummary } from "./session.ts";
import { sourceFilter } from "./source-patterns.ts";
import { walkSource } from "./walk-source.ts";

const pool = createThreadPool({ size: 1 });
const root = mkdtempSync(join(tmpdir(), "slipway-transfer-"));
after(async () => {
	await pool[Symbol.asyncDispose]();
	rmSync(root, { recursive: true, force: true });
});

let counter = 0;

function directory(): string {
	const path = join(root, `d${counter++}`);
	mkdirSync(path);
	return path;
}

const never = new AbortController().signal;

async function transfer(
	source: string,
	target: string,
	options: Partial<ReceiveTarget> & {
		readonly includePatterns?: readonly string[];
		readonly excludePatterns?: readonly string[];
		readonly followPaths?: readonly string[];
	} = {},
): Promise<SyncSummary> {
	const { includePatterns = [], excludePatterns = [], followPaths = [], ...rest } = options;
	const { filter } = sourceFilter(source, { includePatterns, excludePatterns, followPaths });
	const announce = createAnnouncer({ root: source, prefix: "", anonymous: true });
	const [a, b] = packetPair();
	const [summary] = await Promise.all([
		receiveTree(
			b,
			{ target, force: false, mirror: true, place: { kind: "copy" }, ...rest },
			{ signal: never, pool, cancel: (error) => b.fail(error) },
		),
		sendTree(a, walkSource(source, filter).map(announce), { signal: never }),
	]);
	return summary;
}

function listing(path: string): string {
	const options = { encoding: "utf8", maxBuffer: 1 << 28 } as const;
	return execFileSync("find", [path, "-mindepth", "1", "-printf", "%P %y %m %s %T@ %l %n\n"], options)
		.split("\n")
		.map((line) => line.replace(/^(\S+ d \d+) \d+/, "$1"))
		.sort()
		.join("\n");
}

function assertSame(source: string, target: string): void {
	assert.equal(listing(target), listing(source));
	execFileSync("diff", ["-r", "--no-dereference", "--exclude=fifo", source, target], { stdio: "pipe" });
}

function makeTree(path: string): void {
	mkdirSync(join(path, "a/b/c"), { recursive: true });
	mkdirSync(join(path, "empty"));
	mkdirSync(join(path, "a-b"));
	writeFileSync(join(path, "a/file"), "content");
	writeFileSync(join(path, "a/b/c/deep"), "deep");
	writeFileSync(join(path, "a-b/x"), "x");
	writeFileSync(join(path, "nothing"), "");
	writeFileSync(join(path, "odd \u00fc\u4e2d"), "name");
	writeFileSync(join(path, "large"), Buffer.alloc(3_000_001, "large "));
	writeFileSync(join(path, "mode"), "m");
	chmodSync(join(path, "mode"), 0o4755);
	chmodSync(join(path, "a/b"), 0o1770);
	linkSync(join(path, "a/file"), join(path, "second"));
	linkSync(join(path, "a/file"), join(path, "a-b/third"));
	symlinkSync("a/file", join(path, "link"));
	symlinkSync("../../../../etc/passwd", join(path, "a/outside"));
	makeNode(join(path, "fifo"), "fifo", 0o600);
	setXattr(join(path, "large"), "user.note", Buffer.from("hello"));
	utimesSync(join(path, "a/b"), 1, 1_000_000_000.123_456);
	utimesSync(join(path, "mode"), 1, -5.5);
}

test("a transfer into an empty directory is an exact copy", async () => {
	const [source, target] = [directory(), directory()];
	makeTree(source);
	const summary = await transfer(source, target);
	assertSame(source, target);
	assert.equal(getXattr(join(target, "large"), "user.note")?.toString(), "104,101,108,108,111");
	assert.equal(statSync(join(target, "second")).ino, statSync(join(target, "a/file")).ino);
	assert.ok(summary.changed.includes("a/b/c/deep"));
	assert.ok(summary.bytes > 3_000_000);
});

for (const known of [true, false]) {
	test(`a transfer into ${known ? "a remembered" : "an unknown"} copy sends what differs and removes what is gone`, async () => {
		const [source, target] = [directory(), directory()];
		makeTree(source);
		let { state } = await transfer(source, target);
		const previous = (): { previous?: Uint8Array } => (known ? { previous: state } : {});
		const again = await transfer(source, target, previous());
		assert.deepEqual(again.changed, []);
		if (known) {
			assert.equal(again.state, state);
		}
		writeFileSync(join(source, "a/b/c/deep"), "changed");
		writeFileSync(join(source, "new"), "new");
		rmSync(join(source, "a-b"), { recursive: true });
		rmSync(join(source, "link"));
		symlinkSync("a/elsewhere", join(source, "link"));
		rmSync(join(source, "empty"), { recursive: true });
		writeFileSync(join(source, "empty"), "now a file");
		rmSync(join(source, "nothing"));
		mkdirSync(join(source, "nothing"));
		chmodSync(join(source, "large"), 0o600);
		rmSync(join(source, "second"));
		writeFileSync(join(source, "second"), "by itself");
		const third = await transfer(source, target, previous());
		state = third.state;
		assertSame(source, target);
		assert.deepEqual(
			[...third.changed].sort(),
			["a-b", "a/b/c/deep", "empty", "large", "link", "new", "nothing", "second"].sort(),
		);
		assert.deepEqual((await transfer(source, target, previous())).changed, []);
	});
}

test("patterns and followed links choose what is sent, with the directories around it", async () => {
	const [source, target] = [directory(), directory()];
	makeTree(source);
	await transfer(source, target, { followPaths: ["link", "a-b/x"] });
	assert.deepEqual(readdirSync(target).sort(), ["a", "a-b", "link"]);
	assert.deepEqual(readdirSync(join(target, "a")), ["file"]);
	await transfer(source, target, { excludePatterns: ["*", "!a/b/c/deep"] });
	assert.deepEqual(readdirSync(target), ["a"]);
	assert.equal(readFileSync(join(target, "a/b/c/deep"), "utf8"), "deep");
});

test("force writes everything again", async () => {
	const [source, target] = [directory(), directory()];
	makeTree(source);
	const { state } = await transfer(source, target);
	const { changed } = await transfer(source, target, { force: true, previous: state });
	assert.ok(changed.includes("large"));
	assertSame(source, target);
});

test("a result fills a user's directory and leaves what else is there", async () => {
	const [source, target, outside] = [directory(), directory(), directory()];
	makeTree(source);
	mkdirSync(join(target, "a"));
	writeFileSync(join(target, "a/mine"), "mine");
	writeFileSync(join(target, "a/file"), "old");
	mkdirSync(join(target, "link"));
	symlinkSync(outside, join(target, "a-b"));
	symlinkSync(join(outside, "target"), join(target, "large"));
	await transfer(source, target, { mirror: false, place: { kind: "replace", unique: "u" } });
	assert.equal(readFileSync(join(target, "a/mine"), "utf8"), "mine");
	assert.equal(readFileSync(join(target, "a/file"), "utf8"), "content");
	assert.deepEqual(readdirSync(outside), []);
	rmSync(join(target, "a/mine"));
	utimesSync(join(target, "a"), 1, statSync(join(source, "a")).mtimeMs / 1000);
	execFileSync("diff", ["-r", "--no-dereference", "--exclude=fifo", source, target], { stdio: "pipe" });
	writeFileSync(join(target, "a/mine"), "mine");
	await transfer(source, target, { mirror: true, force: true, place: { kind: "replace", unique: "v" } });
	assertSame(source, target);
});

test("large files are hashed while they arrive, as they will be read", async () => {
	const [source, target] = [directory(), directory()];
	const large = Buffer.alloc(3_000_000, "data");
	mkdirSync(join(source, "d"));
	writeFileSync(join(source, "d/one"), large);
	writeFileSync(join(source, "two"), large.subarray(0, 400_000), { mode: 0o640 });
	writeFileSync(join(source, "small"), "small");
	writeFileSync(join(source, "attributed"), large.subarray(0, 400_000));
	setXattr(join(source, "attributed"), "user.a", Buffer.from("b"));
	linkSync(join(source, "two"), join(source, "two-again"));
	const digestHeader: ReceiveTarget["digestHeader"] = (file) => Buffer.from(JSON.stringify(file));
	const { digests, state } = await transfer(source, target, { digestHeader });
	const expected = (path: string): string => {
		const { mode, uid, gid, size } = statSync(join(target, path));
		const header = digestHeader({ mode: mode & 0o7777, uid, gid, size });
		return createHash("sha256")
			.update(header)
			.update(readFileSync(join(target, path)))
			.digest("hex");
	};
	assert.deepEqual(
		[...(digests ?? [])].sort(),
		["d/one", "two"].map((path) => [path, expected(path)]),
	);
	assert.equal((await transfer(source, target, { digestHeader, previous: state })).digests?.size, 0);
});
