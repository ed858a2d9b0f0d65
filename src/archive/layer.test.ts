import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
	chmodSync,
	chownSync,
	existsSync,
	linkSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	symlinkSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import { listMounts, mount, unmount } from "../sys/mount.ts";
import { makeDevice, makeNode, setTimes } from "../sys/node.ts";
import { getXattr, setXattr } from "../sys/xattr.ts";
import type { CompressionKind, LayerBlob, LayerSource } from "./archive.ts";
import { convertLayer, extractLayer, writeLayer } from "./layer.ts";
import { makeTar, readTar } from "./tar-fixture.ts";

const signal = new AbortController().signal;
const control = { signal, throwIfAborted() {} };
let folder = "";
const at = (...parts: string[]): string => join(folder, ...parts);

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "layer-"));
	mount({ type: "tmpfs", source: "tmpfs", options: ["mode=755"] }, folder);
	for (const name of ["lower", "upper", "work", "merged", "target"]) {
		mkdirSync(at(name));
	}
});
afterEach(() => {
	for (const { target } of listMounts(folder).reverse()) {
		unmount(target, { detach: true });
	}
	rmSync(folder, { recursive: true, force: true });
});

let blobs = 0;
async function write(
	source: LayerSource,
	kind: CompressionKind = "uncompressed",
): Promise<LayerBlob & { path: string }> {
	const path = at(`blob${blobs++}`);
	return { ...(await writeLayer({ source, dest: path, compression: { kind } }, control)), path };
}

const namesOf = (path: string): string[] => readTar(readFileSync(path)).map(({ header }) => header.name);

/** Everything about a tree that a layer can carry, but for the times of whiteouts. */
function describe(root: string): string[] {
	return readdirSync(root, { recursive: true, encoding: "utf8" })
		.sort()
		.map((name) => {
			const path = join(root, name);
			const stats = lstatSync(path, { bigint: true });
			const content = stats.isFile() ? readFileSync(path, "latin1") : "";
			const capabilities = Buffer.from(getXattr(path, "security.capability") ?? []).toString("hex");
			const isWhiteout = stats.isCharacterDevice() && stats.rdev === 0n;
			const time = isWhiteout ? "" : stats.mtimeNs / 1_000_000_000n;
			return `${name} ${stats.mode} ${stats.uid}:${stats.gid} ${time} ${stats.rdev} ${stats.isDirectory() ? "" : stats.nlink} ${capabilities} ${content}`;
		});
}

const capability = Buffer.from("0100000200040000000000000000000000000000", "hex");

/** Fixed in every way that a layer shows. */
function makeTree(root: string): void {
	mkdirSync(join(root, "etc/conf.d"), { recursive: true });
	writeFileSync(join(root, "etc/conf.d/a"), "a\n");
	writeFileSync(join(root, "big"), "0123456789".repeat(250_000));
	linkSync(join(root, "etc/conf.d/a"), join(root, "hard"));
	symlinkSync("etc/conf.d", join(root, "soft"));
	makeNode(join(root, "dev"), "block", 0o640, makeDevice(8, 300));
	makeNode(join(root, "fifo"), "fifo", 0o600);
	makeNode(join(root, "socket"), "socket", 0o600);
	mkdirSync(join(root, "ünï"));
	writeFileSync(join(root, `ünï/${"x".repeat(120)}`), "");
	writeFileSync(join(root, "program"), "#!");
	chownSync(join(root, "program"), 3_000_000, 7);
	setXattr(join(root, "program"), "security.capability", capability);
	chmodSync(join(root, "program"), 0o4755);
	chmodSync(join(root, "etc"), 0o1777);
	chmodSync(join(root, "dev"), 0o640);
	for (const name of readdirSync(root, { recursive: true, encoding: "utf8" }).reverse()) {
		setTimes(join(root, name), undefined, { seconds: 1_600_000_000, nanoseconds: 999_999_999 });
	}
}

test("a tree becomes the layer that BuildKit makes of it", async () => {
	makeTree(at("lower"));
	const layer = await write({ kind: "overlay", upper: at("lower") });
	// From containerd's archive.WriteDiff over the same tree.
	assert.equal(layer.diffId, "sha256:8f86c272162118494ebb4067ef5f12821163820cf0627c77c7118803544a219d");
	assert.equal(layer.digest, layer.diffId);
	assert.equal(layer.size, lstatSync(layer.path).size);
	assert.deepEqual(await write({ kind: "diff", target: at("lower") }), {
		...layer,
		path: at(`blob${blobs - 1}`),
	});
});

test("a layer of every compression unpacks to the same tree, with all digests", async () => {
	makeTree(at("lower"));
	const plain = await write({ kind: "diff", target: at("lower") });
	rmSync(at("lower/socket"));
	for (const kind of ["uncompressed", "gzip", "zstd"] as const) {
		const blob = await write({ kind: "diff", target: at("lower") }, kind);
		assert.equal(blob.diffId, plain.diffId);
		const bytes = readFileSync(blob.path);
		const content = kind === "gzip" ? gunzipSync(bytes) : kind === "zstd" ? zstdDecompressSync(bytes) : bytes;
		assert.ok(content.equals(readFileSync(plain.path)));
		mkdirSync(at(kind));
		const found = await extractLayer(
			{
				root: at(kind),
				whiteouts: "overlay",
				expected: { digest: blob.digest, size: blob.size, diffId: blob.diffId },
			},
			inChunks(bytes, 9999),
			control,
		);
		assert.deepEqual({ ...found, path: blob.path }, blob);
		assert.deepEqual(describe(at(kind)), describe(at("lower")));
	}
});

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
	for (let from = 0; from < bytes.length; from += size) {
		yield bytes.subarray(from, from + size);
	}
}

/** Mounts an overlay, changes it, and unmounts it. */
function inOverlay(change: (merged: string) => void): void {
	mount(
		{
			type: "overlay",
			source: "overlay",
			options: [`lowerdir=${at("lower")}`, `upperdir=${at("upper")}`, `workdir=${at("work")}`],
		},
		at("merged"),
	);
	change(at("merged"));
}

test("changes in an overlay are the same layer read off the upper directory and by comparing trees", async () => {
	for (const name of ["gone/deep", "opaque/old", "same", "kept"]) {
		mkdirSync(at("lower", name), { recursive: true });
		writeFileSync(at("lower", name, "file"), name);
	}
	writeFileSync(at("lower/becomes-folder"), "");
	writeFileSync(at("lower/touched"), "same");
	linkSync(at("lower/kept/file"), at("lower/kept/second"));
	inOverlay((merged) => {
		rmSync(join(merged, "gone"), { recursive: true });
		rmSync(join(merged, "opaque"), { recursive: true });
		mkdirSync(join(merged, "opaque"));
		writeFileSync(join(merged, "opaque/new"), "new");
		rmSync(join(merged, "becomes-folder"));
		mkdirSync(join(merged, "becomes-folder/in"), { recursive: true });
		const { atime, mtime } = lstatSync(join(merged, "same/file"));
		chmodSync(join(merged, "same/file"), 0o600);
		chmodSync(join(merged, "same/file"), 0o644);
		utimesSync(join(merged, "same/file"), atime, mtime);
		writeFileSync(join(merged, "new-gone"), "");
		rmSync(join(merged, "new-gone"));
		linkSync(join(merged, "opaque/new"), join(merged, "another-name"));
	});
	const upper = await write({ kind: "overlay", upper: at("upper"), base: at("lower") });
	const trees = await write({ kind: "diff", target: at("merged"), base: at("lower") });
	assert.deepEqual(
		namesOf(upper.path).filter((name) => name !== "same/" && name !== "same/file"),
		[
			"another-name",
			"becomes-folder/",
			"becomes-folder/in/",
			".wh.gone",
			"opaque/",
			"opaque/new",
			"opaque/.wh.old",
		],
	);
	assert.equal(upper.diffId, trees.diffId);

	// Applied to a copy of the base, it gives the merged tree.
	execFileSync("cp", ["-a", `${at("lower")}/.`, at("target")]);
	await extractLayer({ root: at("target"), whiteouts: "apply" }, [readFileSync(upper.path)], control);
	assert.deepEqual(describe(at("target")), describe(at("merged")));
});

test("a layer unpacked for an overlay shows the merged tree above its base", async () => {
	for (const name of ["gone", "opaque", "again"]) {
		mkdirSync(at("lower", name));
		writeFileSync(at("lower", name, "old"), "");
	}
	const tar = makeTar(
		{ name: ".wh.gone" },
		{ kind: "directory", name: "opaque/", mode: 0o755 },
		{ name: "opaque/.wh..wh..opq" },
		{ name: "opaque/new" },
		{ name: ".wh.again" },
		{ kind: "directory", name: "again/", mode: 0o755 },
		{ name: "again/new" },
	);
	await extractLayer({ root: at("upper"), whiteouts: "overlay" }, [tar], control);
	inOverlay((merged) => {
		assert.deepEqual(readdirSync(merged).sort(), ["again", "opaque"]);
		assert.deepEqual(readdirSync(join(merged, "opaque")), ["new"]);
		assert.deepEqual(readdirSync(join(merged, "again")), ["new"]);
	});
	assert.equal(Buffer.from(getXattr(at("upper/opaque"), "trusted.overlay.opaque") ?? []).toString(), "y");
	await extractLayer({ root: at("target"), whiteouts: "overlay-user" }, [tar], control);
	assert.equal(Buffer.from(getXattr(at("target/opaque"), "user.overlay.opaque") ?? []).toString(), "y");
});

test("an opaque folder keeps what its own layer brought, whatever the order", async () => {
	mkdirSync(at("target/d/old"), { recursive: true });
	writeFileSync(at("target/d/file"), "");
	await extractLayer(
		{ root: at("target"), whiteouts: "apply" },
		[makeTar({ name: "d/new" }, { name: "d/implied/x" }, { name: "d/.wh..wh..opq" }, { name: "d/later" })],
		control,
	);
	assert.deepEqual(readdirSync(at("target/d")).sort(), ["implied", "later", "new"]);
});

test("an implied parent looks as in the layers below", async () => {
	mkdirSync(at("lower/a/b"), { recursive: true });
	chmodSync(at("lower/a"), 0o2710);
	chownSync(at("lower/a/b"), 5, 6);
	setXattr(at("lower/a"), "user.note", Buffer.from("kept"));
	setTimes(at("lower/a"), undefined, { seconds: 1000, nanoseconds: 7 });
	await extractLayer(
		{ root: at("target"), whiteouts: "overlay", parents: [at("upper"), at("lower")] },
		[makeTar({ name: "a/b/c/file" })],
		control,
	);
	const a = lstatSync(at("target/a"), { bigint: true });
	assert.equal(a.mode & 0o7777n, 0o2710n);
	assert.equal(a.mtimeNs, 1_000_000_000_007n);
	assert.equal(lstatSync(at("target/a/b")).uid, 5);
	assert.equal(lstatSync(at("target/a/b/c")).mode & 0o7777, 0o755);
	assert.equal(Buffer.from(getXattr(at("target/a"), "user.note") ?? []).toString(), "kept");
});

test("times keep their nanoseconds; those out of bounds become 1970", async () => {
	const time = { seconds: 1_234_567_890, nanoseconds: 123_456_789 };
	await extractLayer(
		{ root: at("target"), whiteouts: "overlay" },
		[
			makeTar(
				{ kind: "directory", name: "d/", mode: 0o755, modified: time, format: "pax" },
				{ name: "d/file", modified: time, format: "pax" },
				{ kind: "symlink", name: "d/link", linkName: "x", modified: time, format: "pax" },
				{ name: "d/old", modified: { seconds: -1, nanoseconds: 0 }, format: "pax" },
				{ name: "d/far", modified: { seconds: 2 ** 40, nanoseconds: 0 }, format: "pax" },
			),
		],
		control,
	);
	for (const name of ["d", "d/file", "d/link"]) {
		assert.equal(lstatSync(at("target", name), { bigint: true }).mtimeNs, 1_234_567_890_123_456_789n, name);
	}
	assert.equal(lstatSync(at("target/d/old")).mtimeMs, 0);
	assert.equal(lstatSync(at("target/d/far")).mtimeMs, 0);
});

test("gzip is one member with the same bytes for the same tar", async () => {
	const data = Buffer.alloc(5 << 20);
	for (let index = 0; index < data.length; index++) {
		data[index] = index < 2 << 20 ? (index * index) >> 7 : Math.imul(index, 2_654_435_761) >>> 24;
	}
	writeFileSync(at("lower/data"), data);
	execFileSync("sh", ["-c", `head -c 3000000 /dev/urandom > ${at("lower/random")}`]);
	const one = await write({ kind: "diff", target: at("lower") }, "gzip");
	const two = await write({ kind: "diff", target: at("lower") }, "gzip");
	assert.equal(one.digest, two.digest);
	execFileSync("gzip", ["-t", one.path], { input: "" });
	assert.equal(
		execFileSync("sh", ["-c", `gzip -dc < ${one.path} | sha256sum`], { encoding: "utf8" }).slice(0, 64),
		one.diffId.slice(7),
	);
	// However the bytes arrive.
	const plain = await write({ kind: "diff", target: at("lower") });
	const three = await convertLayer(
		{ dest: at("three"), compression: { kind: "gzip" } },
		inChunks(readFileSync(plain.path), 77_777),
		control,
	);
	assert.deepEqual({ ...three, path: one.path }, one);
});

test("a layer that is not what was expected fails, and so does one cut off or damaged", async () => {
	const tar = makeTar({
		name: "x",
		data: Array.from({ length: 20_000 }, (_, index) => `${index * index}`).join(""),
	});
	const run = (bytes: Uint8Array, expected = {}): Promise<unknown> =>
		extractLayer({ root: at("target"), whiteouts: "overlay", expected }, inChunks(bytes, 1000), control);
	for (const [bytes, expected, message] of [
		[tar, { digest: "sha256:00" }, /layer has digest sha256:.*expected sha256:00/],
		[tar, { size: 5 }, /layer has size/],
		[gzipSync(tar), { diffId: "sha256:00" }, /uncompressed digest/],
		[gzipSync(tar).subarray(0, 300), {}, /gzip stream is damaged or cut off/],
		[zstdCompressSync(tar).subarray(0, 300), {}, /zstd stream is damaged or cut off/],
		[Buffer.concat([zstdCompressSync(tar), Buffer.from("more")]), {}, /bytes between frames/],
		[Buffer.concat([gzipSync(tar).subarray(0, 50), Buffer.alloc(100, 7)]), {}, /gzip stream is damaged/],
		[tar.subarray(0, 5000), {}, /unexpected EOF/],
	] as const) {
		await assert.rejects(run(bytes, expected), (error: Error) => {
			assert.match(error.message, message);
			return hasCode(error, "data-loss");
		});
	}
});

test("several members of gzip, and frames of zstd with skippable ones between, are one layer", async () => {
	const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5]);
	const empty = zstdCompressSync(Buffer.alloc(0));
	const cut = 700;
	for (const [numbers, chunkBytes] of [
		[300_000, 1 << 20],
		[300_000, 997],
		[1000, 1],
	] as const) {
		const data = Array.from({ length: numbers }, (_, index) => `${(index * index) % 9973}`).join("");
		const tar = makeTar({ name: "x", data });
		for (const bytes of [
			Buffer.concat([gzipSync(tar.subarray(0, cut)), gzipSync(tar.subarray(cut))]),
			Buffer.concat([zstdCompressSync(tar.subarray(0, cut)), zstdCompressSync(tar.subarray(cut))]),
			Buffer.concat([
				skippable,
				zstdCompressSync(tar.subarray(0, cut), { params: { [constants.ZSTD_c_checksumFlag]: 1 } }),
				skippable,
				skippable,
				empty,
				zstdCompressSync(tar.subarray(cut, 5000)),
				zstdCompressSync(tar.subarray(5000)),
				skippable,
			]),
		]) {
			await extractLayer({ root: at("target"), whiteouts: "overlay" }, inChunks(bytes, chunkBytes), control);
			assert.ok(readFileSync(at("target/x"), "utf8") === data);
			rmSync(at("target/x"));
		}
	}
});

test("a frame of zstd that unfolds to very much is not held in memory at once", async () => {
	const tar = makeTar({ name: "x", data: "\0".repeat(20 << 20) });
	const bytes = zstdCompressSync(tar);
	assert.ok(bytes.length < 10_000);
	await extractLayer({ root: at("target"), whiteouts: "overlay" }, [bytes], control);
	assert.equal(lstatSync(at("target/x")).size, 20 << 20);
});

test("convertLayer bounds times as rewrite-timestamp does, and otherwise keeps every byte", async () => {
	const early = { seconds: 100, nanoseconds: 0 };
	const late = { seconds: 2000, nanoseconds: 5 };
	const tar = makeTar(
		{ name: "early", modified: early, format: "pax" },
		{ name: "late", modified: late, accessed: late, format: "pax", data: "x" },
	);
	const same = await convertLayer(
		{ dest: at("same"), compression: { kind: "uncompressed" } },
		[gzipSync(tar)],
		control,
	);
	assert.equal(same.entries, 2);
	assert.ok(readFileSync(at("same")).equals(tar));
	await convertLayer(
		{ dest: at("bounded"), compression: { kind: "uncompressed" }, maxModifiedSeconds: 1000 },
		[tar],
		control,
	);
	const bound = { seconds: 1000, nanoseconds: 0 };
	assert.deepEqual(
		readTar(readFileSync(at("bounded"))).map(({ header, data }) => [
			header.modified,
			header.accessed,
			data.toString(),
		]),
		[
			[early, undefined, ""],
			[bound, bound, "x"],
		],
	);
	await assert.rejects(
		convertLayer(
			{ dest: at("bad"), compression: { kind: "gzip" }, expected: { diffId: "sha256:00" } },
			[tar],
			control,
		),
		/expected sha256:00/,
	);
	assert.ok(!existsSync(at("bad")));
});

test("maxModifiedSeconds bounds a layer's times", async () => {
	writeFileSync(at("lower/new"), "");
	await writeLayer(
		{
			source: { kind: "diff", target: at("lower") },
			dest: at("out"),
			compression: { kind: "uncompressed" },
			maxModifiedSeconds: 5,
		},
		control,
	);
	assert.equal(readTar(readFileSync(at("out")))[0]?.header.modified.seconds, 5);
});

test("an abort, an error and a name taken leave no file of ours", async () => {
	makeTree(at("lower"));
	const source: LayerSource = { kind: "diff", target: at("lower") };
	for (const kind of ["uncompressed", "gzip", "zstd"] as const) {
		const controller = new AbortController();
		const reason = new SlipwayError("canceled", "stopped by test");
		let calls = 0;
		const throwIfAborted = (): void => {
			if (++calls === 4) {
				controller.abort(reason);
				throw reason;
			}
		};
		await assert.rejects(
			writeLayer(
				{ source, dest: at("out"), compression: { kind } },
				{ signal: controller.signal, throwIfAborted },
			),
			reason,
		);
		assert.ok(!existsSync(at("out")));
	}
	await assert.rejects(
		write({ kind: "changes", root: at("lower"), changes: [{ kind: "add", path: "/nothing" }] }),
		/stat .*lower\/nothing: ENOENT/,
	);
	writeFileSync(at("taken"), "mine");
	await assert.rejects(
		writeLayer({ source, dest: at("taken"), compression: { kind: "gzip" } }, control),
		(error) => hasCode(error, "already-exists"),
	);
	assert.equal(readFileSync(at("taken"), "utf8"), "mine");
	await assert.rejects(
		writeLayer({ source, dest: at("out"), compression: { kind: "gzip", level: 12 } }, control),
		/invalid gzip compression level 12/,
	);
	assert.ok(!existsSync(at("out")));
});

test("a file that shrinks while it is read is an error with its path", async () => {
	writeFileSync(at("lower/file"), "x".repeat(100));
	let calls = 0;
	const throwIfAborted = (): void => {
		if (++calls === 1) {
			writeFileSync(at("lower/file"), "short");
		}
	};
	await assert.rejects(
		writeLayer(
			{
				source: { kind: "diff", target: at("lower") },
				dest: at("out"),
				compression: { kind: "uncompressed" },
			},
			{ signal, throwIfAborted },
		),
		/read .*lower\/file: file shrank by 95 of 100 bytes/,
	);
});
