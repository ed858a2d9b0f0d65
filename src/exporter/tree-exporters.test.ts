import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
	chmodSync,
	existsSync,
	lchownSync,
	linkSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	symlinkSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SlipwayError } from "../errors/errors.ts";
import { fileOutput } from "../session/outputs.ts";
import type { SessionOutput } from "../session/session.ts";
import {
	buildResult,
	createTestServices,
	exportContext,
	fakeRef,
	memoryOutput,
	platformResult,
	statusNames,
	type TestServices,
} from "./export.fixture.ts";
import type { BuildResult } from "./exporter.ts";
import { createLocalExporter } from "./local-exporter.ts";
import { createTarExporter } from "./tar-exporter.ts";

/** Each key is a path; a value that begins with `->` is a link, one that begins with `=` another name, a folder ends in a slash. */
function makeTree(services: TestServices, files: Readonly<Record<string, string>>): string {
	const root = mkdtempSync(join(services.directory, "tree-"));
	fill(root, files);
	return root;
}

function fill(root: string, files: Readonly<Record<string, string>>): void {
	for (const [name, text] of Object.entries(files)) {
		const path = join(root, name);
		mkdirSync(name.endsWith("/") ? path : join(path, ".."), { recursive: true });
		if (text.startsWith("->")) {
			symlinkSync(text.slice(2), path);
		} else if (text.startsWith("=")) {
			linkSync(join(root, text.slice(1)), path);
		} else if (!name.endsWith("/")) {
			writeFileSync(path, text);
		}
	}
}

function listTree(root: string): Record<string, string> {
	const found: Record<string, string> = {};
	for (const name of (readdirSync(root, { recursive: true }) as string[]).sort()) {
		const path = join(root, name);
		const stat = lstatSync(path);
		found[stat.isDirectory() ? `${name}/` : name] = stat.isSymbolicLink()
			? `->${readlinkSync(path)}`
			: stat.isFile()
				? readFileSync(path, "utf8")
				: "";
	}
	return found;
}

function single(root: string | undefined): BuildResult {
	return buildResult([platformResult("linux/amd64", root === undefined ? undefined : fakeRef([], root))]);
}

function pair(one: string, other: string, metadata: Readonly<Record<string, string>> = {}): BuildResult {
	return buildResult(
		[platformResult("linux/amd64", fakeRef([], one)), platformResult("linux/arm64", fakeRef([], other))],
		{ multiPlatform: true, metadata },
	);
}

async function exportLocal(
	services: TestServices,
	result: BuildResult,
	dest: string,
	attrs: Readonly<Record<string, string>> = {},
	mode: "copy" | "delete" = "copy",
): Promise<ReturnType<typeof exportContext>> {
	const context = exportContext({ kind: "directory", path: dest, mode });
	await createLocalExporter(services)(attrs).export(result, context);
	return context;
}

test("local: a new directory gets everything, with modes, times and links; owners become the caller's", async () => {
	await using services = await createTestServices();
	const root = makeTree(services, {
		"bin/tool": "#!",
		"bin/again": "=bin/tool",
		link: "->bin/tool",
		"empty/": "",
		"sealed/x": "y",
	});
	chmodSync(join(root, "bin/tool"), 0o4755);
	utimesSync(join(root, "bin/tool"), 1_600_000_000.25, 1_600_000_000.25);
	utimesSync(join(root, "bin"), 1_500_000_000, 1_500_000_000);
	chmodSync(join(root, "sealed"), 0o555);
	lchownSync(join(root, "sealed/x"), 1234, 1234);
	execFileSync("mkfifo", [join(root, "pipe")]);
	const dest = join(services.directory, "new/out");
	const context = await exportLocal(services, single(root), dest);
	assert.deepEqual(listTree(dest), listTree(root));
	assert.equal(lstatSync(dest).mode & 0o7777, 0o700);
	const tool = lstatSync(join(dest, "bin/tool"));
	assert.equal(tool.mode & 0o7777, 0o4755);
	assert.equal(tool.mtimeMs, 1_600_000_000_250);
	assert.equal(tool.ino, lstatSync(join(dest, "bin/again")).ino);
	assert.equal(lstatSync(join(dest, "bin")).mtimeMs, 1_500_000_000_000);
	assert.equal(lstatSync(join(dest, "sealed")).mode & 0o7777, 0o555);
	assert.equal(lstatSync(join(dest, "sealed/x")).uid, process.getuid?.());
	assert.ok(lstatSync(join(dest, "pipe")).isFIFO());
	assert.deepEqual(statusNames(context.events), ["copying files"]);
	const last = context.events.at(-1);
	assert.equal(last?.kind === "status" ? last.status.current : 0, 3);
	assert.deepEqual(services.mounted, []);
});

test("local: merges; what is in the way gives way, what is not in the result stays", async () => {
	await using services = await createTestServices();
	const root = makeTree(services, { a: "new", "d/b": "b", f: "file", "g/": "", h: "=a", l: "->x" });
	const dest = makeTree(services, {
		a: "old",
		keep: "keep",
		"d/keep": "keep",
		"f/g": "was a directory",
		g: "was a file",
		h: "was another file",
		l: "was a file",
	});
	const before = lstatSync(join(dest, "a")).ino;
	await exportLocal(services, single(root), dest);
	assert.deepEqual(listTree(dest), {
		a: "new",
		keep: "keep",
		"d/": "",
		"d/b": "b",
		"d/keep": "keep",
		f: "file",
		"g/": "",
		h: "new",
		l: "->x",
	});
	assert.notEqual(lstatSync(join(dest, "a")).ino, before);
	await exportLocal(services, single(root), dest);
	assert.equal(readFileSync(join(dest, "h"), "utf8"), "new");
	assert.equal(readdirSync(dest).filter((name) => name.startsWith(".tmp")).length, 0);
});

test("local: links in the destination are replaced, never followed", async () => {
	await using services = await createTestServices();
	const outside = makeTree(services, { file: "outside" });
	const root = makeTree(services, { "dir/file": "inside", file: "inside", "deep/er/file": "inside" });
	const dest = makeTree(services, {
		dir: `->${outside}`,
		file: `->${outside}/file`,
		"deep/er": `->${outside}`,
	});
	const link = join(services.directory, "dest-link");
	symlinkSync(dest, link);
	await exportLocal(services, single(root), link, {}, "delete");
	assert.deepEqual(listTree(outside), { file: "outside" });
	assert.deepEqual(listTree(dest), {
		"deep/": "",
		"deep/er/": "",
		"deep/er/file": "inside",
		"dir/": "",
		"dir/file": "inside",
		file: "inside",
	});
});

test("local: mode=delete of the client mirrors, without it nothing is deleted", async () => {
	await using services = await createTestServices();
	const outside = makeTree(services, { file: "outside" });
	const root = makeTree(services, { a: "a", "d/b": "b" });
	const dest = makeTree(services, { "d/c": "c", "e/f": "f", g: `->${outside}` });
	await exportLocal(services, single(root), dest, { mode: "delete" });
	assert.ok(existsSync(join(dest, "e/f")));
	await exportLocal(services, single(root), dest, { mode: "delete" }, "delete");
	assert.deepEqual(listTree(dest), { a: "a", "d/": "", "d/b": "b" });
	assert.deepEqual(listTree(outside), { file: "outside" });
});

test("local: several platforms are split into directories, or share one without a clash", async () => {
	await using services = await createTestServices();
	const one = makeTree(services, { "bin/a": "amd64" });
	const other = makeTree(services, { "bin/b": "arm64" });
	const split = join(services.directory, "split");
	const context = await exportLocal(services, pair(one, other), split);
	assert.deepEqual(listTree(split), {
		"linux_amd64/": "",
		"linux_amd64/bin/": "",
		"linux_amd64/bin/a": "amd64",
		"linux_arm64/": "",
		"linux_arm64/bin/": "",
		"linux_arm64/bin/b": "arm64",
	});
	assert.equal(lstatSync(join(split, "linux_amd64")).mode & 0o7777, 0o755);
	assert.deepEqual(statusNames(context.events), ["copying files linux/amd64", "copying files linux/arm64"]);
	const shared = join(services.directory, "shared");
	await exportLocal(services, pair(one, other), shared, { "platform-split": "false" });
	assert.deepEqual(listTree(shared), { "bin/": "", "bin/a": "amd64", "bin/b": "arm64" });
	const clash = makeTree(services, { "bin/a": "arm64" });
	await assert.rejects(exportLocal(services, pair(one, clash), shared, { "platform-split": "false" }), {
		message: "cannot overwrite bin/a from linux/amd64 with linux/arm64 when split option is disabled",
	});
	assert.equal(readFileSync(join(shared, "bin/a"), "utf8"), "amd64");
	await exportLocal(services, pair(one, other), split, {}, "delete");
	assert.deepEqual(readdirSync(split).sort(), ["linux_amd64", "linux_arm64"]);
});

test("local: an epoch is every file's time, from the option or for one platform", async () => {
	await using services = await createTestServices();
	const root = makeTree(services, { "d/a": "a", l: "->x" });
	const dest = join(services.directory, "out");
	await exportLocal(services, single(root), dest, { "source-date-epoch": "1600000000" });
	for (const name of ["d", "d/a", "l"]) {
		assert.equal(lstatSync(join(dest, name)).mtimeMs, 1_600_000_000_000);
	}
	await exportLocal(services, pair(root, root, { "source.date.epoch/linux/arm64": "5" }), dest);
	assert.equal(lstatSync(join(dest, "linux_arm64/d/a")).mtimeMs, 5000);
	assert.notEqual(lstatSync(join(dest, "linux_amd64/d/a")).mtimeMs, 5000);
});

test("local: an empty result makes an empty directory; names that are no UTF-8 are kept", async () => {
	await using services = await createTestServices();
	const dest = join(services.directory, "out");
	await exportLocal(services, single(undefined), dest);
	assert.deepEqual(readdirSync(dest), []);
	const root = makeTree(services, {});
	writeFileSync(Buffer.from(`${root}/caf\xe9`, "latin1"), "x");
	await exportLocal(services, single(root), dest);
	assert.deepEqual(readdirSync(dest, { encoding: "latin1" }), ["caf\xe9"]);
});

test("local and tar: bad options are refused in BuildKit's words", async () => {
	await using services = await createTestServices();
	const make = createLocalExporter(services);
	assert.throws(() => make({ mode: "move" }), { message: 'invalid local exporter mode "move"' });
	assert.throws(() => make({ "platform-split": "x" }), {
		message: 'non-bool value for platform-split: x: strconv.ParseBool: parsing "x": invalid syntax',
	});
	make({ mode: " Delete " });
	assert.equal(make({}).name, "exporting to client directory");
	const occupied = join(makeTree(services, { file: "x" }), "file/below");
	await assert.rejects(exportLocal(services, single(undefined), occupied), {
		message: new RegExp(`^failed to create synctarget dest dir ${occupied}: ENOTDIR`),
	});
	await assert.rejects(
		createTarExporter(services)({}).export(
			single(undefined),
			exportContext({ kind: "directory", path: "/x", mode: "copy" }),
		),
		{ message: "output directory is not supported by tar exporter" },
	);
});

test("tar: the files as an archive, equal in a file and in a stream", async () => {
	await using services = await createTestServices();
	const root = makeTree(services, { a: "one", b: "=a", "d/l": "->../a" });
	const client = memoryOutput();
	const context = exportContext(client.output);
	assert.deepEqual(await createTarExporter(services)({}).export(single(root), context), {});
	assert.deepEqual(statusNames(context.events), ["sending tarball"]);
	const file = join(services.directory, "out.tar");
	await createTarExporter(services)({}).export(single(root), exportContext(fileOutput(file)));
	assert.ok(readFileSync(file).equals(Buffer.concat(client.chunks)));
	const unpacked = join(services.directory, "unpacked");
	mkdirSync(unpacked);
	execFileSync("tar", ["xf", file, "-C", unpacked]);
	assert.deepEqual(listTree(unpacked), listTree(root));
});

test("tar: several platforms are directories, in the order of their names", async () => {
	await using services = await createTestServices();
	const root = makeTree(services, { a: "one" });
	const file = join(services.directory, "out.tar");
	const [one, other] = ["linux/arm64", "linux/amd64"].map((id) => platformResult(id, fakeRef([], root)));
	await createTarExporter(services)({ "source-date-epoch": "0" }).export(
		buildResult(one === undefined || other === undefined ? [] : [one, other], { multiPlatform: true }),
		exportContext(fileOutput(file)),
	);
	assert.deepEqual(execFileSync("tar", ["tf", file], { encoding: "utf8" }).trim().split("\n"), [
		"linux_amd64/",
		"linux_amd64/a",
		"linux_arm64/",
		"linux_arm64/a",
	]);
});

test("a failure of the client ends the export and releases the mounts", async () => {
	await using services = await createTestServices();
	const root = makeTree(services, { a: "one" });
	const calls: string[] = [];
	const output: SessionOutput = {
		kind: "stream",
		open: async () => ({
			fd: undefined,
			write: async () => {
				throw new SlipwayError("unavailable", "client is gone");
			},
			close: async () => void calls.push("close"),
			abort: async () => void calls.push("abort"),
		}),
	};
	await assert.rejects(createTarExporter(services)({}).export(single(root), exportContext(output)), {
		message: "client is gone",
	});
	assert.deepEqual(calls, ["abort"]);
	assert.deepEqual(services.mounted, []);
});
