import assert from "node:assert/strict";
import {
	existsSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	rmSync,
	statSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { hasCode } from "../errors/errors.ts";
import { getXattr } from "../sys/xattr.ts";
import type { ExtractLayerRequest } from "./archive.ts";
import { extractLayer } from "./layer.ts";
import { resolveInRoot } from "./root-path.ts";
import { type Entry, makeTar } from "./tar-fixture.ts";

const signal = new AbortController().signal;
const control = { signal, throwIfAborted() {} };

/** `outside` must never change; `root` is what archives are unpacked into. */
let folder = "";
let root = "";
let outside = "";

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "hostile-"));
	root = join(folder, "root");
	outside = join(folder, "outside");
	mkdirSync(root);
	mkdirSync(outside);
	writeFileSync(join(outside, "victim"), "safe");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function extract(entries: readonly Entry[], request: Partial<ExtractLayerRequest> = {}): Promise<void> {
	await extractLayer({ root, whiteouts: "apply", ...request }, [makeTar(...entries)], control);
}

const up = "../".repeat(20);

/** Each archive, and where its file lands: inside, or nowhere (then the archive is refused with the message). */
const attacks: readonly {
	readonly name: string;
	readonly entries: () => readonly Entry[];
	readonly lands?: string;
	readonly fails?: RegExp;
}[] = [
	{ name: "absolute name", entries: () => [{ name: "/etc/passwd", data: "x" }], lands: "etc/passwd" },
	{ name: "climbing name", entries: () => [{ name: `${up}etc/passwd`, data: "x" }], lands: "etc/passwd" },
	{
		name: "climbing in the middle",
		entries: () => [{ name: `a/b/${up}victim`, data: "x" }],
		lands: "victim",
	},
	{
		name: "climbing through an absolute link",
		entries: () => [
			{ kind: "symlink", name: "link", linkName: outside },
			{ name: "link/victim", data: "x" },
		],
		lands: "LINK/victim",
	},
	{
		name: "climbing through a relative link",
		entries: () => [
			{ kind: "symlink", name: "a/link", linkName: `${up}tmp` },
			{ name: "a/link/victim", data: "x" },
		],
		lands: "tmp/victim",
	},
	{
		name: "a chain of links",
		entries: () => [
			{ kind: "symlink", name: "one", linkName: "/" },
			{ kind: "symlink", name: "two", linkName: `one/${up}` },
			{ name: "two/three/victim", data: "x" },
		],
		lands: "three/victim",
	},
	{
		name: "a loop of links",
		entries: () => [
			{ kind: "symlink", name: "a", linkName: "b" },
			{ kind: "symlink", name: "b", linkName: "a" },
			{ name: "a/x", data: "x" },
		],
		fails: /too many symbolic links/,
	},
	{
		name: "a file over a link to the outside",
		entries: () => [
			{ kind: "symlink", name: "victim", linkName: join(outside, "victim") },
			{ name: "victim", data: "x" },
		],
		lands: "victim",
	},
	{
		name: "a folder that becomes a link after it was used",
		entries: () => [
			{ kind: "directory", name: "d/" },
			{ name: "d/a", data: "x" },
			{ kind: "symlink", name: "d", linkName: outside },
			{ name: "d/victim", data: "x" },
		],
		lands: "LINK/victim",
	},
	{
		name: "mode and time of a folder that became a link",
		entries: () => [
			{ kind: "directory", name: "d/", mode: 0o777 },
			{ kind: "symlink", name: "d", linkName: outside },
			{ name: "x", data: "x" },
		],
		lands: "x",
	},
	{
		name: "a hard link to the outside",
		entries: () => [{ kind: "hardlink", name: "h", linkName: `${up}${outside}/victim` }],
		fails: /extract "h": ENOENT/,
	},
	{
		name: "a hard link through a link",
		entries: () => [
			{ kind: "symlink", name: "l", linkName: outside },
			{ kind: "hardlink", name: "h", linkName: "l/victim" },
		],
		fails: /extract "h": ENOENT/,
	},
	{
		name: "a hard link to the parent of the root",
		entries: () => [{ kind: "hardlink", name: "h", linkName: "a/.." }],
		fails: /invalid target/,
	},
	{
		name: "writing through a hard link to a link",
		entries: () => [
			{ kind: "symlink", name: "l", linkName: join(outside, "victim") },
			{ kind: "hardlink", name: "h", linkName: "l", mode: 0o777 },
			{ name: "h", data: "x" },
		],
		lands: "h",
	},
	{
		name: "a whiteout of the parent",
		entries: () => [{ name: "a/.wh..." }],
		fails: /invalid whiteout name/,
	},
	{ name: "a whiteout of the folder", entries: () => [{ name: "a/.wh.." }], fails: /invalid whiteout name/ },
	{ name: "a whiteout of nothing", entries: () => [{ name: ".wh." }], fails: /invalid whiteout name/ },
	{
		name: "a whiteout through a link",
		entries: () => [
			{ kind: "symlink", name: "l", linkName: outside },
			{ name: "l/.wh.victim" },
			{ name: "x", data: "x" },
		],
		lands: "x",
	},
	{
		name: "an opaque folder through a link",
		entries: () => [
			{ kind: "symlink", name: "l", linkName: outside },
			{ name: "l/.wh..wh..opq" },
			{ name: "x", data: "x" },
		],
		lands: "x",
	},
	{
		name: "a file as a folder",
		entries: () => [
			{ name: "f", data: "1" },
			{ name: "f/x", data: "2" },
		],
		fails: /mkparent .*not a directory/,
	},
	{
		name: "an owner that means nobody",
		entries: () => [{ name: "x", uid: 0xffff_ffff }],
		fails: /out of range/,
	},
	{ name: "a negative owner", entries: () => [{ name: "x", gid: -1, format: "gnu" }], fails: /out of range/ },
	{ name: "a name too long", entries: () => [{ name: "n".repeat(300) }], fails: /ENAMETOOLONG/ },
	{
		name: "marks of the overlay as attributes",
		entries: () => [
			{
				name: "x",
				data: "x",
				records: new Map([
					["SCHILY.xattr.trusted.overlay.opaque", "y"],
					["SCHILY.xattr.trusted.overlay.redirect", "/"],
					["SCHILY.xattr.user.overlay.metacopy", "y"],
				]),
			},
		],
		lands: "x",
	},
];

for (const whiteouts of ["apply", "overlay"] as const) {
	for (const { name, entries, lands, fails } of attacks) {
		test(`${whiteouts}: ${name} stays inside`, async () => {
			const before = statSync(outside);
			if (fails === undefined) {
				await extract(entries(), { whiteouts });
			} else {
				await assert.rejects(extract(entries(), { whiteouts }), fails);
			}
			if (lands !== undefined) {
				const path = join(root, lands.replace("LINK", outside));
				assert.equal(readFileSync(path, "utf8"), "x");
				assert.deepEqual(
					["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy"].map((each) =>
						getXattr(path, each),
					),
					[undefined, undefined, undefined],
				);
			}
			assert.deepEqual(readdirSync(outside), ["victim"]);
			assert.equal(readFileSync(join(outside, "victim"), "utf8"), "safe");
			const after = statSync(outside);
			assert.deepEqual([after.mode, after.mtimeMs, after.uid], [before.mode, before.mtimeMs, before.uid]);
			assert.deepEqual(readdirSync(folder).sort(), ["outside", "root"]);
		});
	}
}

test("entries for the root itself are ignored", async () => {
	await extract([
		{ kind: "directory", name: "./", mode: 0o700, uid: 5 },
		{ kind: "directory", name: "/", mode: 0o700, uid: 5 },
		{ kind: "symlink", name: "..", linkName: "/" },
		{ name: "", data: "" },
	]);
	assert.equal(lstatSync(root).uid, process.getuid?.());
	assert.deepEqual(readdirSync(root), []);
});

test("an archive that grows beyond its limits is refused", async () => {
	const bomb = gzipSync(makeTar({ name: "zeros", data: "\0".repeat(10 << 20) }));
	const run = (limits: NonNullable<ExtractLayerRequest["limits"]>): Promise<unknown> =>
		extractLayer({ root, whiteouts: "apply", limits }, [bomb], control);
	await assert.rejects(run({ maxBytes: 1 << 20 }), (error) => hasCode(error, "resource-exhausted"));
	assert.ok(!existsSync(join(root, "zeros")));
	await assert.rejects(
		extract([{ name: "a" }, { name: "b" }], { limits: { maxEntries: 1 } }),
		/more than 1 entries/,
	);
	await run({ maxBytes: 10 << 20, maxEntries: 1 });
});

test("resolveInRoot answers as if the folder were the machine's root", async () => {
	await extract([
		{ kind: "directory", name: "usr/bin/" },
		{ kind: "symlink", name: "bin", linkName: "usr/bin" },
		{ kind: "symlink", name: "abs", linkName: "/usr" },
		{ kind: "symlink", name: "usr/up", linkName: "../.." },
	]);
	for (const [path, found] of [
		["/bin/sh", "/usr/bin/sh"],
		["abs/bin", "/usr/bin"],
		["usr/up/abs/../x", "/x"],
		["../../..", ""],
		["not/there", "/not/there"],
	] as const) {
		assert.equal(resolveInRoot(root, path), `${root}${found}`);
	}
	assert.equal(readlinkSync(join(root, "abs")), "/usr");
});
