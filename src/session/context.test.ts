import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { createThreadPool } from "../async/pool.ts";
import { hasCode } from "../errors/errors.ts";
import { isRemoteContext, openBuildContext } from "./context.ts";
import {
	type ContextArchiver,
	contextFromStdin,
	dockerfileFromStdin,
	dockerfileFromText,
	isArchive,
	type StdinOptions,
} from "./stdin-context.ts";

const signal = new AbortController().signal;

async function* stream(...parts: readonly (Uint8Array | string)[]): AsyncGenerator<Uint8Array | string> {
	yield* parts;
}

function folder(): Disposable & { readonly path: string } {
	const path = mkdtempSync(join(tmpdir(), "slipway-context-test-"));
	return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

function tar(directory: string, ...args: readonly string[]): Buffer {
	return execFileSync("tar", ["-C", directory, "-c", ...args]);
}

/** What the engine's archiver does, without a thread. */
const archiver: ContextArchiver = {
	async unpack({ path, dest }, options) {
		const { createArchiver } = await import("../archive/archiver.ts");
		await using pool = createThreadPool({ size: 1 });
		const made = createArchiver(pool);
		if (!(await made.isArchive(path, options))) {
			return false;
		}
		await made.unpack({ path, dest }, options);
		return true;
	},
};

function fromStdin(stdin: AsyncIterable<Uint8Array | string>, rest: Partial<StdinOptions> = {}) {
	return contextFromStdin({ stdin, archiver, dockerfileGiven: false, signal, ...rest });
}

function open(context: string, dockerfile?: string, stdin = stream("FROM x")) {
	return openBuildContext({
		context,
		...(dockerfile === undefined ? {} : { dockerfile }),
		stdin,
		archiver,
		signal,
	});
}

test("openBuildContext of a directory", async () => {
	using here = folder();
	mkdirSync(join(here.path, "sub"));
	writeFileSync(join(here.path, "sub/dockerfile"), "FROM scratch");
	await using plain = await open(here.path);
	assert.deepEqual(plain.options, { filename: "Dockerfile" });
	assert.deepEqual(plain.directories, { context: { path: here.path }, dockerfile: { path: here.path } });
	await using named = await open(here.path, join(here.path, "sub/dockerfile"));
	assert.deepEqual(named.options, { filename: "dockerfile" });
	assert.equal(named.directories["dockerfile"]?.path, join(here.path, "sub"));
	await using lower = await open(join(here.path, "sub"));
	assert.deepEqual(lower.options, { filename: "dockerfile" });

	const piped = await open(here.path, "-");
	const written = piped.directories["dockerfile"]?.path ?? "";
	assert.deepEqual(piped.options, { filename: "Dockerfile", dockerfilekey: "dockerfile" });
	assert.equal(readFileSync(join(written, "Dockerfile"), "utf8"), "FROM x");
	await piped[Symbol.asyncDispose]();
	assert.equal(existsSync(written), false);
});

test("openBuildContext refuses what is no context, in buildx's words", async () => {
	using here = folder();
	writeFileSync(join(here.path, "file"), "");
	for (const [context, dockerfile, message] of [
		["", undefined, 'please specify build context (e.g. "." for the current directory)'],
		["-", "-", "invalid argument: can't use stdin for both build context and dockerfile"],
		["./nowhere", undefined, 'unable to prepare context: path "./nowhere" not found'],
		[
			join(here.path, "file"),
			undefined,
			`unable to prepare context: "${here.path}/file" is not a directory; a Dockerfile of another name is given with --file`,
		],
		[join(here.path, "file/x"), undefined, `unable to prepare context: path "${here.path}/file/x" not found`],
	] as const) {
		await assert.rejects(open(context, dockerfile), { message });
	}
	await assert.rejects(
		open(here.path, "no/Dockerfile"),
		/directory of Dockerfile "no\/Dockerfile" not found/,
	);
});

test("openBuildContext of a URL leaves the fetching to the builder", async () => {
	await using plain = await open("https://github.com/a/b.git#main");
	assert.deepEqual(plain.options, { context: "https://github.com/a/b.git#main", filename: "Dockerfile" });
	assert.deepEqual(plain.directories, {});
	await using named = await open("git@host.example:a/b", "sub/Dockerfile");
	assert.deepEqual(named.options, { context: "git@host.example:a/b", filename: "sub/Dockerfile" });
	assert.equal(isRemoteContext("github.com/a/b"), true);
	assert.equal(isRemoteContext("./a@b:c"), false);
	assert.equal(isRemoteContext("C:/x"), false);
});

test("openBuildContext of stdin takes a Dockerfile or an archive", async () => {
	await using text = await open("-");
	assert.deepEqual(text.options, { filename: "Dockerfile", dockerfilekey: "dockerfile" });
	assert.deepEqual(readdirSync(text.directories["context"]?.path ?? ""), []);
	using here = folder();
	writeFileSync(join(here.path, "dockerfile"), "FROM scratch");
	await using archive = await open("-", undefined, stream(tar(here.path, "dockerfile")));
	assert.deepEqual(archive.options, { filename: "dockerfile" });
	assert.equal(archive.directories["dockerfile"]?.path, archive.directories["context"]?.path);
});

test("dockerfileFromStdin and dockerfileFromText make a directory that goes again", async () => {
	const piped = await dockerfileFromStdin({ stdin: stream("FROM ", Buffer.from("x")), signal });
	await using text = dockerfileFromText("FROM y");
	assert.equal(readFileSync(join(piped.path, "Dockerfile"), "utf8"), "FROM x");
	assert.equal(readFileSync(join(text.path, "Dockerfile"), "utf8"), "FROM y");
	await piped[Symbol.asyncDispose]();
	assert.equal(existsSync(piped.path), false);
});

test("contextFromStdin of a Dockerfile on stdin has an empty context", async () => {
	const opened = await fromStdin(stream("FROM ", Buffer.from("scratch")));
	const root = dirname(opened.path);
	assert.equal(opened.kind, "dockerfile");
	assert.deepEqual(readdirSync(opened.path), []);
	assert.equal(readFileSync(join(opened.dockerfileDirectory ?? "", "Dockerfile"), "utf8"), "FROM scratch");
	await opened[Symbol.asyncDispose]();
	await opened[Symbol.asyncDispose]();
	assert.equal(existsSync(root), false);
});

test("contextFromStdin of an archive on stdin unpacks it", async () => {
	using here = folder();
	writeFileSync(join(here.path, "Dockerfile"), "FROM scratch");
	mkdirSync(join(here.path, "d"));
	writeFileSync(join(here.path, "d/x"), "1");
	const plain = tar(here.path, ".");
	for (const bytes of [plain, gzipSync(plain)]) {
		// In small chunks, as a pipe brings it.
		const chunks = Array.from({ length: Math.ceil(bytes.length / 100) }, (_, at) =>
			bytes.subarray(at * 100, at * 100 + 100),
		);
		await using opened = await fromStdin(stream(...chunks), { dockerfileGiven: true });
		assert.equal(opened.kind, "archive");
		assert.equal(opened.dockerfileDirectory, undefined);
		assert.equal(readFileSync(join(opened.path, "d/x"), "utf8"), "1");
	}
});

test("contextFromStdin of a hostile archive leaves nothing outside", async () => {
	using here = folder();
	mkdirSync(join(here.path, "in"));
	mkdirSync(join(here.path, "victim"));
	symlinkSync(join(here.path, "victim"), join(here.path, "in/link"));
	writeFileSync(join(here.path, "in/evil"), "evil");
	const bytes = tar(here.path, "--transform=s,^in/evil,in/link/evil,", "-P", "in/link", "in/evil");
	const opened = await fromStdin(stream(bytes)).catch(() => undefined);
	await opened?.[Symbol.asyncDispose]();
	assert.deepEqual(readdirSync(join(here.path, "victim")), []);
});

test("contextFromStdin cleans up after a broken archive and after an abort", async (context) => {
	using here = folder();
	const usual = process.env["TMPDIR"];
	context.after(() => {
		if (usual === undefined) {
			delete process.env["TMPDIR"];
		} else {
			process.env["TMPDIR"] = usual;
		}
	});
	process.env["TMPDIR"] = here.path;
	await assert.rejects(fromStdin(stream(Buffer.from([0x1f, 0x8b, 8, 0, 1, 2, 3]))), /from stdin/);
	await assert.rejects(
		fromStdin(stream("FROM x"), { dockerfileGiven: true }),
		/ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles/,
	);
	const controller = new AbortController();
	const never: AsyncIterable<string> = {
		[Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
	};
	const running = fromStdin(never, { signal: controller.signal });
	controller.abort();
	await assert.rejects(running, (error) => hasCode(error, "canceled"));
	assert.deepEqual(readdirSync(here.path), []);
});

test("isArchive tells tar headers by their sum", () => {
	using here = folder();
	writeFileSync(join(here.path, "a"), "1");
	const bytes = tar(here.path, "a");
	assert.equal(isArchive(bytes.subarray(0, 512)), true);
	assert.equal(isArchive(bytes.subarray(0, 511)), false);
	assert.equal(isArchive(Buffer.alloc(512, "FROM scratch\n")), false);
	assert.equal(isArchive(Buffer.alloc(512)), false);
});
