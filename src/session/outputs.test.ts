import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
	chmodSync,
	closeSync,
	existsSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { tryLock } from "../sys/lock.ts";
import { layoutOutput } from "./layout-output.ts";
import { descriptorOutput, directoryOutput, fileOutput } from "./outputs.ts";

const signal = new AbortController().signal;

function folder(): Disposable & { readonly path: string } {
	const path = mkdtempSync(join(tmpdir(), "slipway-output-"));
	return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

test("fileOutput shows the file when it is whole", async () => {
	using here = folder();
	const path = join(here.path, "out.tar");
	const stream = await fileOutput(path).open({});
	await stream.write(Buffer.from("one "));
	assert.equal(existsSync(path), false);
	assert.equal(typeof stream.fd, "number");
	await stream.write(Buffer.from("two"));
	await stream.close();
	await stream.close();
	assert.equal(readFileSync(path, "utf8"), "one two");
	assert.deepEqual(readdirSync(here.path), ["out.tar"]);
});

test("fileOutput leaves the old file and nothing else after an abort", async () => {
	using here = folder();
	const path = join(here.path, "out.tar");
	writeFileSync(path, "old");
	const stream = await fileOutput(path).open({});
	await stream.write(Buffer.from("new"));
	await stream.abort();
	assert.equal(readFileSync(path, "utf8"), "old");
	assert.deepEqual(readdirSync(here.path), ["out.tar"]);
});

test("fileOutput replaces a file, keeps its mode, and writes through a link", async () => {
	using here = folder();
	writeFileSync(join(here.path, "real"), "old");
	chmodSync(join(here.path, "real"), 0o600);
	symlinkSync("real", join(here.path, "link"));
	const stream = await fileOutput(join(here.path, "link")).open({});
	await stream.write(Buffer.from("new"));
	await stream.close();
	assert.equal(readlinkSync(join(here.path, "link")), "real");
	assert.equal(readFileSync(join(here.path, "real"), "utf8"), "new");
	assert.equal(lstatSync(join(here.path, "real")).mode & 0o777, 0o600);
});

test("fileOutput says what is wrong with the place", async () => {
	using here = folder();
	await assert.rejects(
		fileOutput(join(here.path, "no/out.tar")).open({}),
		(error) =>
			hasCode(error, "not-found") && /directory .*\/no does not exist/.test((error as Error).message),
	);
	await assert.rejects(fileOutput(here.path).open({}), /destination file .* is a directory/);
	const discard = await fileOutput("/dev/null").open({});
	assert.equal(discard.fd, undefined);
	await discard.write(Buffer.from("x"));
	await discard.close();
	assert.ok(lstatSync("/dev/null").isCharacterDevice());
});

test("descriptorOutput leaves the descriptor open", async () => {
	using here = folder();
	const fd = openSync(join(here.path, "x"), "w");
	for (const text of ["a", "b"]) {
		const stream = await descriptorOutput(fd).open({});
		await stream.write(Buffer.from(text));
		await stream.close();
	}
	assert.equal(readFileSync(join(here.path, "x"), "utf8"), "ab");
});

test("directoryOutput refuses a file", () => {
	using here = folder();
	writeFileSync(join(here.path, "f"), "");
	assert.throws(() => directoryOutput(join(here.path, "f")), /destination directory .* is a file/);
	assert.deepEqual(directoryOutput(join(here.path, "new"), "delete"), {
		kind: "directory",
		path: join(here.path, "new"),
		mode: "delete",
	});
});

async function* one(text: string): AsyncGenerator<Uint8Array> {
	yield Buffer.from(text);
}

function descriptor(text: string): { mediaType: string; digest: string; size: number } {
	return {
		mediaType: "application/vnd.oci.image.manifest.v1+json",
		digest: `sha256:${createHash("sha256").update(text).digest("hex")}`,
		size: text.length,
	};
}

test("layoutOutput takes blobs and verifies them", async () => {
	using here = folder();
	const { store } = layoutOutput(join(here.path, "layout"));
	const blob = descriptor("content");
	assert.equal(await store.has(blob.digest), false);
	await store.write(blob, one("content"), { signal });
	assert.equal(await store.has(blob.digest), true);
	const other = descriptor("expected");
	await assert.rejects(store.write(other, one("received"), { signal }), (error) =>
		hasCode(error, "data-loss"),
	);
	assert.deepEqual(readdirSync(join(here.path, "layout/blobs/sha256")), [blob.digest.slice(7)]);
	await assert.rejects(store.has("sha256:../../x"), (error) => hasCode(error, "invalid-argument"));
});

test("layoutOutput names results in the index, replacing older ones of the same name", async () => {
	using here = folder();
	const { store } = layoutOutput(here.path);
	const read = (): { manifests: { digest: string; annotations: Record<string, string> }[] } =>
		JSON.parse(readFileSync(join(here.path, "index.json"), "utf8"));
	const first = descriptor("1");
	await store.setRoot(JSON.stringify(first), []);
	assert.deepEqual(read(), {
		schemaVersion: 2,
		mediaType: "application/vnd.oci.image.index.v1+json",
		manifests: [{ ...first, annotations: { "org.opencontainers.image.ref.name": "latest" } }],
	});
	assert.equal(readFileSync(join(here.path, "oci-layout"), "utf8"), '{"imageLayoutVersion":"1.0.0"}');
	const second = descriptor("2");
	await store.setRoot(JSON.stringify(second), ["docker.io/library/a:v1", "localhost:5000/b"]);
	await store.setRoot(JSON.stringify(first), ["docker.io/library/a:v1"]);
	assert.deepEqual(
		read().manifests.map(({ digest, annotations }) => [digest, annotations]),
		[
			[first.digest, { "org.opencontainers.image.ref.name": "latest" }],
			[
				second.digest,
				{ "io.containerd.image.name": "localhost:5000/b", "org.opencontainers.image.ref.name": "" },
			],
			[
				first.digest,
				{ "io.containerd.image.name": "docker.io/library/a:v1", "org.opencontainers.image.ref.name": "v1" },
			],
		],
	);
	assert.deepEqual(readdirSync(here.path).sort(), ["index.json", "oci-layout"]);
});

test("layoutOutput waits for the lock of the index, and refuses an index that is none", async () => {
	using here = folder();
	const { store } = layoutOutput(here.path);
	const lock = join(here.path, "index.json.lock");
	const fd = openSync(lock, "w");
	assert.ok(tryLock(fd));
	const waiting = Promise.all([
		store.setRoot(JSON.stringify(descriptor("1")), ["x/a:1"]),
		store.setRoot(JSON.stringify(descriptor("2")), ["x/a:2"]),
	]);
	// The owner goes the way BuildKit's client does: the file first, or somebody locks what has no name.
	rmSync(lock);
	closeSync(fd);
	await waiting;
	assert.equal(JSON.parse(readFileSync(join(here.path, "index.json"), "utf8")).manifests.length, 2);
	writeFileSync(join(here.path, "index.json"), "[]nonsense");
	await assert.rejects(store.setRoot(JSON.stringify(descriptor("1")), []), /could not parse .*index.json/);
	assert.equal(existsSync(lock), false);
	mkdirSync(join(here.path, "other"));
	writeFileSync(join(here.path, "other/f"), "");
	assert.throws(() => layoutOutput(join(here.path, "other/f")), /is a file/);
});
