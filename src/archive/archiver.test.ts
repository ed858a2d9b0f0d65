import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
	chmodSync,
	existsSync,
	linkSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Archiver, TarPart } from "./archive.ts";
import { createArchiver } from "./archiver.ts";
import { makeTar, readTar } from "./tar-fixture.ts";

const signal = new AbortController().signal;
let pool: ThreadPool;
let archiver: Archiver;
let folder = "";
const at = (...parts: string[]): string => join(folder, ...parts);

before(() => {
	pool = createThreadPool({ size: 2 });
	archiver = createArchiver(pool);
});
after(() => pool[Symbol.asyncDispose]());
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "archiver-"));
	mkdirSync(at("tree"));
	mkdirSync(at("target"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function* source(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
	for (let from = 0; from < bytes.length; from += 50_000) {
		yield bytes.subarray(from, from + 50_000);
	}
}

async function collect(parts: readonly TarPart[]): Promise<Buffer> {
	return Buffer.concat(await Array.fromAsync(archiver.tar(parts, { signal })));
}

test("a layer is written in a thread, and read from a file or a stream", async () => {
	writeFileSync(at("tree/file"), "x".repeat(3_000_000));
	const options = { signal };
	const layer = await archiver.writeLayer(
		{ source: { kind: "overlay", upper: at("tree") }, dest: at("blob"), compression: { kind: "gzip" } },
		options,
	);
	const expected = { digest: layer.digest, diffId: layer.diffId };
	for (const bytes of [
		{ kind: "file", path: at("blob") },
		{ kind: "stream", chunks: source(readFileSync(at("blob"))) },
	] as const) {
		assert.deepEqual(
			await archiver.extractLayer(
				{ source: bytes, root: at("target"), whiteouts: "apply", expected },
				options,
			),
			layer,
		);
		assert.equal(readFileSync(at("target/file"), "utf8"), "x".repeat(3_000_000));
	}
	const converted = await archiver.convertLayer(
		{ source: { kind: "file", path: at("blob") }, dest: at("zstd"), compression: { kind: "zstd" }, expected },
		options,
	);
	assert.equal(converted.diffId, layer.diffId);
});

test("the digest does not depend on the number of threads", async () => {
	writeFileSync(
		at("tree/file"),
		Buffer.from(Array.from({ length: 4 << 20 }, (_, index) => (index * index) >> 9)),
	);
	const digests = new Set<string>();
	for (const size of [1, 3]) {
		await using own = createThreadPool({ size });
		const blobs = await Promise.all(
			Array.from({ length: size }, (_, index) =>
				createArchiver(own).writeLayer(
					{
						source: { kind: "diff", target: at("tree") },
						dest: at(`blob-${size}-${index}`),
						compression: { kind: "gzip" },
					},
					{ signal },
				),
			),
		);
		for (const { digest } of blobs) {
			digests.add(digest);
		}
	}
	assert.equal(digests.size, 1);
});

test("a source that fails, or a layer that is refused, ends both sides", async () => {
	async function* broken(): AsyncGenerator<Uint8Array> {
		yield makeTar({ name: "x", data: "y".repeat(10_000) }).subarray(0, 2000);
		throw new SlipwayError("unavailable", "connection lost");
	}
	const request = { root: at("target"), whiteouts: "apply" } as const;
	await assert.rejects(
		archiver.extractLayer({ ...request, source: { kind: "stream", chunks: broken() } }, { signal }),
		(error: Error) => hasCode(error, "unavailable") && error.message === "connection lost",
	);
	let closed = false;
	async function* endless(): AsyncGenerator<Uint8Array> {
		try {
			for (;;) {
				yield Buffer.alloc(100_000, "no tar");
			}
		} finally {
			closed = true;
		}
	}
	await assert.rejects(
		archiver.extractLayer({ ...request, source: { kind: "stream", chunks: endless() } }, { signal }),
		(error) => hasCode(error, "data-loss"),
	);
	assert.ok(closed);
});

test("an abort ends a job in its thread and leaves no file", async () => {
	const controller = new AbortController();
	const reason = new SlipwayError("canceled", "stopped by test");
	async function* stalled(): AsyncGenerator<Uint8Array> {
		yield makeTar({ name: "x", data: "y".repeat(10_000) }).subarray(0, 2000);
		controller.abort(reason);
		await new Promise(() => {});
	}
	await assert.rejects(
		archiver.convertLayer(
			{ source: { kind: "stream", chunks: stalled() }, dest: at("blob"), compression: { kind: "gzip" } },
			{ signal: controller.signal },
		),
		reason,
	);
	// Both threads take work again only after the job has cleaned up.
	await Promise.all([archiver.isArchive(at("none"), { signal }), archiver.isArchive(at("none"), { signal })]);
	assert.ok(!existsSync(at("blob")));
});

test("tar streams trees, files and folders", async () => {
	mkdirSync(at("tree/sub"));
	writeFileSync(at("tree/sub/file"), "content");
	linkSync(at("tree/sub/file"), at("tree/z-link"));
	symlinkSync("/sub/file", at("tree/soft"));
	chmodSync(at("tree/sub"), 0o751);
	writeFileSync(at("tree/big"), Buffer.alloc(2_500_000, "b"));
	const archive = await collect([
		{ kind: "directory", name: "linux_amd64", mode: 0o755, modifiedSeconds: 7 },
		{ kind: "tree", root: at("tree"), prefix: "linux_amd64", modifiedSeconds: 7 },
		{ kind: "file", name: "linux_amd64/sbom.json", data: Buffer.from("{}"), mode: 0o600, modifiedSeconds: 7 },
	]);
	const entries = readTar(archive);
	assert.deepEqual(
		entries.map(({ header }) => [
			header.kind,
			header.name,
			header.linkName,
			header.size,
			header.modified.seconds,
		]),
		[
			["directory", "linux_amd64/", "", 0, 7],
			["file", "linux_amd64/big", "", 2_500_000, 7],
			["symlink", "linux_amd64/soft", "/linux_amd64/sub/file", 0, 7],
			["directory", "linux_amd64/sub/", "", 0, 7],
			["file", "linux_amd64/sub/file", "", 7, 7],
			["hardlink", "linux_amd64/z-link", "linux_amd64/sub/file", 0, 7],
			["file", "linux_amd64/sbom.json", "", 2, 7],
		],
	);
	assert.equal(entries[3]?.header.mode, 0o751);
	execFileSync("tar", ["-xf", "-", "-C", at("target")], { input: archive });
	assert.equal(readFileSync(at("target/linux_amd64/sub/file"), "utf8"), "content");
});

test("a tar that fails on the way, or is left early, ends its job", async () => {
	await assert.rejects(collect([{ kind: "tree", root: at("nowhere") }]), /list .*nowhere: ENOENT/);
	writeFileSync(at("tree/big"), Buffer.alloc(20_000_000));
	for await (const chunk of archiver.tar([{ kind: "tree", root: at("tree") }], { signal })) {
		assert.ok(chunk.length > 0);
		break;
	}
	const controller = new AbortController();
	await assert.rejects(
		async () => {
			for await (const _ of archiver.tar([{ kind: "tree", root: at("tree") }], {
				signal: controller.signal,
			})) {
				controller.abort();
			}
		},
		(error) => hasCode(error, "canceled"),
	);
	assert.equal(
		(await collect([{ kind: "file", name: "x", data: Buffer.from("y"), mode: 0o600, modifiedSeconds: 0 }]))
			.length,
		2048,
	);
});

const archive = makeTar(
	{ kind: "directory", name: "d/", mode: 0o750, uid: 5, gid: 6 },
	{ name: "d/.wh.kept", data: "literal", uid: 7, gid: 8 },
	{ kind: "symlink", name: "soft", linkName: "/d" },
	{ name: "soft/file", data: "through the link" },
	{ kind: "global", name: "", records: new Map([["comment", "from git"]]) },
);

test("unpack reads every compression of ADD and keeps whiteouts as files", async () => {
	const program = (name: string): Buffer => execFileSync(name, ["-c"], { input: archive });
	for (const [name, bytes] of [
		["plain", archive],
		["gzip", gzipSync(archive)],
		["zstd", zstdCompressSync(archive)],
		["xz", program("xz")],
		["bzip2", program("bzip2")],
	] as const) {
		writeFileSync(at(name), bytes);
		mkdirSync(at(`to-${name}`));
		assert.equal(await archiver.isArchive(at(name), { signal }), true, name);
		await archiver.unpack({ path: at(name), dest: at(`to-${name}`) }, { signal });
		assert.equal(readFileSync(at(`to-${name}`, "d/.wh.kept"), "utf8"), "literal");
		assert.equal(readFileSync(at(`to-${name}`, "d/file"), "utf8"), "through the link");
		assert.equal(readlinkSync(at(`to-${name}`, "soft")), "/d");
		assert.equal(lstatSync(at(`to-${name}`, "d/.wh.kept")).uid, 7);
	}
	mkdirSync(at("owned"));
	await archiver.unpack({ path: at("gzip"), dest: at("owned"), owner: { uid: 11, gid: 12 } }, { signal });
	for (const name of readdirSync(at("owned"), { recursive: true, encoding: "utf8" })) {
		const { uid, gid } = lstatSync(at("owned", name));
		assert.deepEqual([uid, gid], [11, 12], name);
	}
});

test("isArchive says no to all that ADD copies", async () => {
	writeFileSync(at("text"), "no archive, but long enough to have a header. ".repeat(50));
	writeFileSync(at("empty"), "");
	writeFileSync(at("gzipped text"), gzipSync("text ".repeat(1000)));
	writeFileSync(at("false gzip"), Buffer.from([0x1f, 0x8b, 8, 1, 2, 3]));
	writeFileSync(at("false xz"), Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2]));
	writeFileSync(at("empty tar"), Buffer.alloc(10_240));
	writeFileSync(at("tar"), archive);
	symlinkSync(at("tar"), at("link"));
	for (const name of [
		"text",
		"empty",
		"gzipped text",
		"false gzip",
		"false xz",
		"empty tar",
		"link",
		"tree",
		"none",
	]) {
		assert.equal(await archiver.isArchive(at(name), { signal }), false, name);
	}
});

test("a missing program is an error that names its package", async () => {
	writeFileSync(at("a.xz"), Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2]));
	const path = process.env["PATH"];
	process.env["PATH"] = at("target");
	try {
		// A thread copies the environment when it starts.
		await using own = createThreadPool({ size: 1 });
		await assert.rejects(
			createArchiver(own).isArchive(at("a.xz"), { signal }),
			(error: Error) =>
				hasCode(error, "failed-precondition") && /install the package xz-utils/.test(error.message),
		);
	} finally {
		process.env["PATH"] = path;
	}
});
