import assert from "node:assert/strict";
import {
	appendFileSync,
	chmodSync,
	existsSync,
	linkSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	renameSync,
	rmSync,
	symlinkSync,
	truncateSync,
	unlinkSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createThreadPool } from "../async/pool.ts";
import { hasCode } from "../errors/errors.ts";
import { makeDevice, makeNode, setTimes } from "../sys/node.ts";
import { getXattr, removeXattr, setXattr } from "../sys/xattr.ts";
import type { SyncRequest, SyncSummary } from "./session.ts";
import { syncDirectory } from "./sync-directory.ts";
import { syncTree } from "./sync-tree.ts";

const pool = createThreadPool({ size: 1 });
after(() => pool[Symbol.asyncDispose]());

interface Place extends Disposable {
	readonly root: string;
	readonly source: string;
	readonly target: string;
	readonly sync: (request?: Partial<SyncRequest>) => Promise<SyncSummary>;
}

function place(): Place {
	const root = mkdtempSync(join(tmpdir(), "slipway-sync-"));
	const source = join(root, "source");
	const target = join(root, "target");
	mkdirSync(source);
	mkdirSync(target);
	return {
		root,
		source,
		target,
		sync: (request = {}) =>
			syncDirectory(
				source,
				{
					includePatterns: [],
					excludePatterns: [],
					followPaths: [],
					differ: "metadata",
					target,
					...request,
				},
				{ signal: new AbortController().signal, pool },
			),
		[Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
	};
}

/** Writes `path: content`; a trailing slash makes a directory. */
function fill(root: string, files: Readonly<Record<string, string>>): void {
	for (const [path, content] of Object.entries(files)) {
		mkdirSync(join(root, path.endsWith("/") ? path : join(path, "..")), { recursive: true });
		if (!path.endsWith("/")) {
			writeFileSync(join(root, path), content);
		}
	}
}

/** All paths below, links not followed. */
function list(root: string, prefix = ""): string[] {
	return readdirSync(join(root, prefix), { withFileTypes: true })
		.flatMap((entry) => {
			const path = join(prefix, entry.name);
			return entry.isDirectory() ? [path, ...list(root, path)] : [path];
		})
		.sort();
}

/** Until files written just now are old enough to be trusted by their times. */
function settle(): Promise<void> {
	return sleep(50);
}

test("sync copies files with mode, time to the nanosecond and owner", async () => {
	using here = place();
	fill(here.source, { "a.txt": "a", "d/b.sh": "b" });
	chmodSync(join(here.source, "d/b.sh"), 0o4755);
	chmodSync(join(here.source, "d"), 0o1777);
	const time = { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
	for (const path of ["d/b.sh", "a.txt", "d"]) {
		setTimes(join(here.source, path), time, time);
	}
	const { bytes, changed } = await here.sync();
	assert.equal(bytes, 2);
	assert.deepEqual(changed, ["a.txt", "d", "d/b.sh"]);
	assert.equal(readFileSync(join(here.target, "d/b.sh"), "utf8"), "b");
	for (const path of ["a.txt", "d", "d/b.sh"]) {
		const stat = lstatSync(join(here.target, path), { bigint: true });
		assert.equal(stat.mtimeNs, 1_600_000_000_123_456_789n, path);
		assert.equal(Number(stat.mode), lstatSync(join(here.source, path)).mode, path);
		assert.equal(Number(stat.uid), process.getuid?.());
	}
});

test("sync with the state of the last time copies what changed and nothing else", async () => {
	using here = place();
	fill(here.source, { same: "1", "d/grows": "2", "d/gone": "3", "e/f/g": "4", touched: "5" });
	await settle();
	const first = await here.sync();
	const before = lstatSync(join(here.target, "same")).ino;
	const idle = await here.sync({ previous: first.state });
	assert.deepEqual(idle, { bytes: 0, changed: [], state: first.state });

	appendFileSync(join(here.source, "d/grows"), "22");
	unlinkSync(join(here.source, "d/gone"));
	rmSync(join(here.source, "e/f"), { recursive: true });
	utimesSync(join(here.source, "touched"), 1, 1);
	fill(here.source, { "new/x": "6" });
	await settle();
	const second = await here.sync({ previous: idle.state });
	assert.deepEqual([...second.changed].sort(), ["d/gone", "d/grows", "e/f", "new", "new/x", "touched"]);
	assert.equal(second.bytes, 5);
	assert.deepEqual(list(here.target), ["d", "d/grows", "e", "new", "new/x", "same", "touched"]);
	assert.equal(readFileSync(join(here.target, "d/grows"), "utf8"), "222");
	assert.equal(lstatSync(join(here.target, "same")).ino, before);
	assert.equal(
		lstatSync(join(here.target, "d")).mtimeMs,
		lstatSync(join(here.source, "d")).mtimeMs,
		"directory times follow the source",
	);
	const third = await here.sync({ previous: second.state });
	assert.deepEqual(third.changed, []);
});

test("sync notices new content behind the same size and modification time", async () => {
	using here = place();
	fill(here.source, { a: "one" });
	utimesSync(join(here.source, "a"), 5, 5);
	await settle();
	const { state } = await here.sync();
	fill(here.source, { a: "two" });
	utimesSync(join(here.source, "a"), 5, 5);
	const again = await here.sync({ previous: state });
	assert.deepEqual(again.changed, ["a"]);
	assert.equal(readFileSync(join(here.target, "a"), "utf8"), "two");
});

test("sync does not trust times of files that were written a moment before the walk", async (context) => {
	using here = place();
	fill(here.source, { a: "one" });
	const written = lstatSync(join(here.source, "a")).ctimeMs;
	context.mock.method(Date, "now", () => written + 5);
	const { state } = await here.sync();
	const again = await here.sync({ previous: state });
	assert.deepEqual(again.changed, ["a"]);
});

test("sync without a state compares with the target", async () => {
	using here = place();
	fill(here.source, { same: "1", "d/e": "2", other: "3" });
	symlinkSync("same", join(here.source, "link"));
	await here.sync();
	const kept = lstatSync(join(here.target, "same")).ino;
	fill(here.target, { "foreign/x": "x", "d/y": "y", other: "4444" });
	unlinkSync(join(here.target, "link"));
	symlinkSync("elsewhere", join(here.target, "link"));
	const { changed } = await here.sync();
	assert.deepEqual([...changed].sort(), ["d/y", "foreign", "link", "other"]);
	assert.deepEqual(list(here.target), ["d", "d/e", "link", "other", "same"]);
	assert.equal(lstatSync(join(here.target, "same")).ino, kept);
	assert.equal(readFileSync(join(here.target, "other"), "utf8"), "3");
	assert.equal(readlinkSync(join(here.target, "link")), "same");
});

test("sync with differ none keeps what it remembers to have copied, and writes all else again", async () => {
	using here = place();
	fill(here.source, { "a/b": "1", c: "2" });
	await settle();
	const { state } = await here.sync();
	const known = await here.sync({ previous: state, differ: "none" });
	assert.equal(known.bytes, 0);
	const again = await here.sync({ differ: "none" });
	assert.equal(again.bytes, 2);
	assert.deepEqual(again.changed, ["a/b", "c"]);
});

test("sync replaces one kind of entry by another", async () => {
	using here = place();
	fill(here.source, { "dir/in/it": "1", file: "2", target: "t" });
	symlinkSync("target", join(here.source, "link"));
	await settle();
	const first = await here.sync();
	rmSync(join(here.source, "dir"), { recursive: true });
	unlinkSync(join(here.source, "file"));
	unlinkSync(join(here.source, "link"));
	fill(here.source, { dir: "now a file", "file/now/a": "directory", "link/too": "x" });
	await settle();
	const second = await here.sync({ previous: first.state });
	assert.deepEqual(list(here.target), [
		"dir",
		"file",
		"file/now",
		"file/now/a",
		"link",
		"link/too",
		"target",
	]);
	assert.equal(readFileSync(join(here.target, "dir"), "utf8"), "now a file");
	rmSync(join(here.source, "link"), { recursive: true });
	symlinkSync("/etc", join(here.source, "link"));
	await settle();
	const third = await here.sync({ previous: second.state });
	assert.equal(readlinkSync(join(here.target, "link")), "/etc");
	assert.deepEqual(third.changed, ["link"]);
});

test("sync keeps hard links among what is shown", async () => {
	using here = place();
	fill(here.source, { "a/one": "1", "b/": "", outside: "o" });
	linkSync(join(here.source, "a/one"), join(here.source, "b/two"));
	linkSync(join(here.source, "a/one"), join(here.source, "three"));
	await settle();
	const first = await here.sync();
	const inode = (path: string): number => lstatSync(join(here.target, path)).ino;
	assert.equal(inode("a/one"), inode("b/two"));
	assert.equal(inode("a/one"), inode("three"));
	assert.equal(first.bytes, 2);
	assert.deepEqual((await here.sync({ previous: first.state })).changed, []);
	assert.deepEqual((await here.sync()).changed, []);

	appendFileSync(join(here.source, "three"), "more");
	await settle();
	const second = await here.sync({ previous: first.state });
	assert.deepEqual([...second.changed].sort(), ["a/one", "b/two", "three"]);
	assert.equal(inode("a/one"), inode("three"));
	assert.equal(readFileSync(join(here.target, "b/two"), "utf8"), "1more");

	const third = await here.sync({ previous: second.state, excludePatterns: ["a"] });
	assert.equal(inode("b/two"), inode("three"));
	assert.deepEqual(list(here.target), ["b", "b/two", "outside", "three"]);
	assert.equal(readFileSync(join(here.target, "three"), "utf8"), "1more");
	unlinkSync(join(here.source, "b/two"));
	await settle();
	await here.sync({ previous: third.state, excludePatterns: ["a"] });
	assert.equal(lstatSync(join(here.target, "three")).nlink, 1);
});

test("sync shows what the patterns show", async () => {
	using here = place();
	fill(here.source, {
		"src/a.ts": "1",
		"src/a.test.ts": "2",
		"src/deep/b.ts": "3",
		"node_modules/x/index.js": "4",
		"docs/readme.md": "5",
		"docs/secret.md": "6",
		"empty/": "",
	});
	await settle();
	const excludePatterns = ["node_modules", "**/*.test.ts", "docs", "!docs/readme.md"];
	const first = await here.sync({ excludePatterns });
	assert.deepEqual(list(here.target), [
		"docs",
		"docs/readme.md",
		"empty",
		"src",
		"src/a.ts",
		"src/deep",
		"src/deep/b.ts",
	]);
	assert.deepEqual((await here.sync({ excludePatterns, previous: first.state })).changed, []);

	fill(here.source, { "docs/other.md": "7", "src/c.test.ts": "8", "src/c.ts": "9" });
	unlinkSync(join(here.source, "docs/readme.md"));
	await settle();
	const second = await here.sync({ excludePatterns, previous: first.state });
	assert.deepEqual([...second.changed].sort(), ["docs", "docs/readme.md", "src/c.ts"]);
	assert.equal(existsSync(join(here.target, "docs")), false);

	const third = await here.sync({ includePatterns: ["docs/*.md", "src/deep"], previous: second.state });
	assert.deepEqual(list(here.target), [
		"docs",
		"docs/other.md",
		"docs/secret.md",
		"src",
		"src/deep",
		"src/deep/b.ts",
	]);
	const fourth = await here.sync({ previous: third.state });
	assert.deepEqual(list(here.target), list(here.source));
	assert.deepEqual((await here.sync({ previous: fourth.state })).changed, []);
});

test("sync follows links of the paths that are asked for, on the source's side", async () => {
	using here = place();
	fill(here.source, { "real/file": "1", "real/other": "2", unrelated: "3" });
	symlinkSync("real", join(here.source, "alias"));
	symlinkSync("../../etc/passwd", join(here.source, "escape"));
	await here.sync({ followPaths: ["alias/file", "escape"] });
	assert.deepEqual(list(here.target), ["alias", "escape", "real", "real/file"]);
	assert.equal(readlinkSync(join(here.target, "escape")), "../../etc/passwd");
});

test("sync carries names that are no text", async () => {
	using here = place();
	const names = [
		Buffer.from("line\nbreak"),
		Buffer.from([0x66, 0xff, 0xfe]),
		Buffer.from("ünï/x"),
		Buffer.from("-rf *"),
		Buffer.from("a\\b"),
	];
	mkdirSync(join(here.source, "ünï"));
	for (const name of names) {
		writeFileSync(Buffer.concat([Buffer.from(`${here.source}/`), name]), name);
	}
	await settle();
	const { state } = await here.sync();
	const target = (name: Buffer): Buffer => Buffer.concat([Buffer.from(`${here.target}/`), name]);
	for (const name of names) {
		assert.deepEqual(readFileSync(target(name)), name);
	}
	assert.deepEqual((await here.sync({ previous: state })).changed, []);
	unlinkSync(Buffer.concat([Buffer.from(`${here.source}/`), names[1] ?? Buffer.alloc(0)]));
	await here.sync({ previous: state });
	assert.equal(existsSync(target(names[1] ?? Buffer.alloc(0))), false);
});

test("sync carries attributes and special files, and sockets as empty files", async () => {
	using here = place();
	fill(here.source, { attr: "1" });
	setXattr(join(here.source, "attr"), "user.note", Buffer.from("hello"));
	makeNode(join(here.source, "fifo"), "fifo", 0o640);
	makeNode(join(here.source, "null"), "character", 0o666, makeDevice(1, 3));
	const server = createServer().listen(join(here.source, "socket"));
	try {
		await settle();
		const first = await here.sync();
		assert.equal(Buffer.from(getXattr(join(here.target, "attr"), "user.note") ?? []).toString(), "hello");
		assert.ok(lstatSync(join(here.target, "fifo")).isFIFO());
		const device = lstatSync(join(here.target, "null"));
		assert.ok(device.isCharacterDevice());
		assert.equal(device.rdev, makeDevice(1, 3));
		const socket = lstatSync(join(here.target, "socket"));
		assert.ok(socket.isFile());
		assert.equal(socket.size, 0);
		assert.deepEqual((await here.sync({ previous: first.state })).changed, []);
		assert.deepEqual((await here.sync()).changed, []);

		removeXattr(join(here.source, "attr"), "user.note");
		const second = await here.sync({ previous: first.state });
		assert.deepEqual(second.changed, ["attr"]);
		assert.equal(getXattr(join(here.target, "attr"), "user.note"), undefined);
	} finally {
		server.close();
	}
});

test("sync does not write through links that somebody put into the target", async () => {
	using here = place();
	fill(here.source, { "d/file": "1", "e/x": "2" });
	fill(here.root, { "outside/keep": "safe", "outside/x": "safe" });
	await settle();
	const { state } = await here.sync();
	rmSync(join(here.target, "d"), { recursive: true });
	symlinkSync(join(here.root, "outside"), join(here.target, "d"));
	rmSync(join(here.target, "e"), { recursive: true });
	symlinkSync(join(here.root, "outside"), join(here.target, "e"));
	fill(here.source, { "d/new": "3" });
	rmSync(join(here.source, "e"), { recursive: true });
	await assert.rejects(
		here.sync({ previous: state }),
		/could not copy "d\/new": could not open directory "d\/new"|d/,
	);
	assert.deepEqual(list(join(here.root, "outside")), ["keep", "x"]);
	// Without the state, what is there is seen and put right.
	await here.sync();
	assert.deepEqual(list(here.target), ["d", "d/file", "d/new"]);
	assert.deepEqual(list(join(here.root, "outside")), ["keep", "x"]);
	assert.equal(readFileSync(join(here.root, "outside/x"), "utf8"), "safe");
});

test("sync puts links that lead out of the tree as they are, and reads nothing behind them", async () => {
	using here = place();
	fill(here.root, { "secret/key": "k" });
	fill(here.source, { a: "1" });
	symlinkSync("../secret", join(here.source, "up"));
	symlinkSync("..", join(here.source, "dots"));
	await here.sync();
	assert.deepEqual(list(here.target), ["a", "dots", "up"]);
	assert.equal(readlinkSync(join(here.target, "up")), "../secret");
});

test("sync remembers the bytes that were copied when a file changes while it is read", async () => {
	using here = place();
	fill(here.source, { "a/log": "x".repeat(1 << 20), "b/x": "1" });
	await settle();
	const options = { includePatterns: [], excludePatterns: [], followPaths: [], differ: "metadata" as const };
	let changes = 0;
	const run = (previous: Uint8Array | undefined, each: () => void): SyncSummary | undefined =>
		syncTree({
			source: here.source,
			request: { ...options, target: here.target, ...(previous === undefined ? {} : { previous }) },
			// Called before each step: between the walk and the copy.
			throwIfAborted: () => {
				changes += 1;
				each();
			},
			onBytes: () => {},
			limits: { entries: Infinity, steps: Infinity, bytes: Infinity },
		});
	const first = run(undefined, () => {
		if (changes > 1 && existsSync(join(here.source, "a/log"))) {
			truncateSync(join(here.source, "a/log"), 1000 + changes);
		}
	});
	assert.ok(first !== undefined && changes > 2);
	await settle();
	const second = run(first.state, () => {});
	assert.ok(second?.changed.includes("a/log"));
	assert.equal(lstatSync(join(here.target, "a/log")).size, lstatSync(join(here.source, "a/log")).size);
});

test("sync leaves out what vanishes during the walk, and finds it when it is back", async () => {
	using here = place();
	fill(here.source, { "a/one": "1", "a/two": "2" });
	await settle();
	const move = (from: string, to: string): void => renameSync(join(here.source, from), join(here.root, to));
	let calls = 0;
	const first = syncTree({
		source: here.source,
		request: {
			includePatterns: [],
			excludePatterns: [],
			followPaths: [],
			differ: "metadata",
			target: here.target,
		},
		throwIfAborted: () => {
			calls += 1;
			if (calls === 2) {
				move("a/two", "moved");
			}
		},
		onBytes: () => {},
		limits: { entries: Infinity, steps: Infinity, bytes: Infinity },
	});
	assert.deepEqual(list(here.target), ["a", "a/one"]);
	renameSync(join(here.root, "moved"), join(here.source, "a/two"));
	await here.sync(first === undefined ? {} : { previous: first.state });
	assert.deepEqual(list(here.target), ["a", "a/one", "a/two"]);
});

test("sync in a thread gives the same as on this one, and can be aborted", async () => {
	using here = place();
	const files: Record<string, string> = {};
	for (let index = 0; index < 1500; index++) {
		files[`d${index % 7}/f${index}`] = `${index}`;
	}
	fill(here.source, files);
	await settle();
	const first = await here.sync();
	assert.equal(first.changed.length, 1507);
	assert.deepEqual(list(here.target), list(here.source));
	assert.deepEqual((await here.sync({ previous: first.state })).changed, []);
	const controller = new AbortController();
	const running = syncDirectory(
		here.source,
		{ includePatterns: [], excludePatterns: [], followPaths: [], differ: "none", target: here.target },
		{ signal: controller.signal, pool },
	);
	controller.abort();
	await assert.rejects(running, (error) => hasCode(error, "canceled"));
});

test("sync takes a state that it did not write for none", async () => {
	using here = place();
	fill(here.source, { a: "1" });
	for (const previous of [new Uint8Array(), new Uint8Array(500), Buffer.from("{}")]) {
		await here.sync({ previous });
		assert.deepEqual(list(here.target), ["a"]);
	}
});

test("sync of a directory that is none says so", async () => {
	using here = place();
	await assert.rejects(
		syncDirectory(
			join(here.source, "missing"),
			{ includePatterns: [], excludePatterns: [], followPaths: [], differ: "metadata", target: here.target },
			{ signal: new AbortController().signal, pool },
		),
		(error) => hasCode(error, "not-found") && /missing/.test((error as Error).message),
	);
});
