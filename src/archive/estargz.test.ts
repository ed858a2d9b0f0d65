import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { hasCode } from "../errors/errors.ts";
import { estargzPayload } from "./estargz.ts";
import { convertLayer, extractLayer, writeLayer } from "./layer.ts";
import { readTar } from "./tar-fixture.ts";

const signal = new AbortController().signal;
const control = { signal, throwIfAborted() {} };
const mib = 1 << 20;

function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), "estargz-"));
	mkdirSync(join(folder, "tree/dir"), { recursive: true });
	return body(folder).finally(() => rmSync(folder, { recursive: true, force: true }));
}

interface Entry {
	readonly name: string;
	readonly type: string;
	readonly size?: number;
	readonly offset?: number;
	readonly chunkOffset?: number;
	readonly chunkSize?: number;
	readonly digest?: string;
	readonly chunkDigest?: string;
}

const sha = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Files in and around the borders of pieces. */
function fill(folder: string): ReadonlyMap<string, Buffer> {
	const part = Buffer.concat(
		Array.from({ length: 4096 }, (_, i) => createHash("sha256").update(String(i)).digest()),
	);
	const noise = (bytes: number): Buffer => Buffer.alloc(bytes, part);
	const files = new Map([
		["dir/empty", Buffer.alloc(0)],
		["dir/exact", noise(4 * mib)],
		["dir/long", noise(9 * mib + 5)],
		["dir/short", Buffer.from("short")],
	]);
	for (const [name, bytes] of files) {
		writeFileSync(join(folder, "tree", name), bytes);
	}
	symlinkSync("short", join(folder, "tree/dir/to"));
	return files;
}

const source = (folder: string) => ({ kind: "diff", target: join(folder, "tree") }) as const;

test("estargz: a gzip stream of the tar and its table, each file in members of its own", () =>
	inFolder(async (folder) => {
		const files = fill(folder);
		const dest = join(folder, "blob");
		const made = await writeLayer(
			{ source: source(folder), dest, compression: { kind: "estargz" } },
			control,
		);
		const plain = await writeLayer(
			{ source: source(folder), dest: join(folder, "plain"), compression: { kind: "uncompressed" } },
			control,
		);
		const blob = readFileSync(dest);
		const whole = gunzipSync(blob);
		assert.equal(made.compression, "gzip");
		assert.equal(made.digest, sha(blob));
		assert.equal(made.diffId, sha(whole));
		assert.equal(made.uncompressedSize, whole.length);
		assert.equal(made.toc?.plainDiffId, plain.diffId);
		assert.deepEqual(whole.subarray(0, plain.uncompressedSize), readFileSync(join(folder, "plain")));
		assert.equal(blob.subarray(-35, -13).toString("latin1").slice(16), "STARGZ");

		const tocAt = estargzPayload(dest) ?? 0;
		const [index] = readTar(whole.subarray(plain.uncompressedSize));
		assert.equal(index?.header.name, "stargz.index.json");
		const json = index?.data ?? Buffer.alloc(0);
		assert.equal(made.toc?.digest, sha(json));
		assert.deepEqual(gunzipSync(blob.subarray(tocAt)), whole.subarray(plain.uncompressedSize));
		const { version, entries } = JSON.parse(Buffer.from(json).toString()) as {
			readonly version: number;
			readonly entries: readonly Entry[];
		};
		assert.equal(version, 1);
		assert.deepEqual(
			entries.map(({ name, type, chunkOffset, chunkSize }) => [name, type, chunkOffset, chunkSize]),
			[
				["dir/", "dir", undefined, undefined],
				["dir/empty", "reg", undefined, undefined],
				["dir/exact", "reg", undefined, 4 * mib],
				["dir/long", "reg", undefined, 4 * mib],
				["dir/long", "chunk", 4 * mib, 4 * mib],
				["dir/long", "chunk", 8 * mib, undefined],
				["dir/short", "reg", undefined, undefined],
				["dir/to", "symlink", undefined, undefined],
			],
		);
		for (const entry of entries.filter(({ offset }) => offset !== undefined)) {
			const bytes = files.get(entry.name) ?? Buffer.alloc(0);
			const start = entry.chunkOffset ?? 0;
			const part = bytes.subarray(start, entry.chunkSize === undefined ? undefined : start + entry.chunkSize);
			assert.equal(entry.chunkDigest, sha(part), entry.name);
			assert.deepEqual(gunzipSync(blob.subarray(entry.offset)).subarray(0, part.length), part);
		}
		for (const entry of entries.filter(({ type }) => type === "reg")) {
			assert.equal(entry.digest, sha(files.get(entry.name) ?? Buffer.alloc(0)));
		}
		assert.equal(entries.find(({ name }) => name === "dir/empty")?.offset, undefined);
	}));

test("estargz: is unpacked like gzip, and converted back to the same tar", () =>
	inFolder(async (folder) => {
		fill(folder);
		const dest = join(folder, "blob");
		const made = await writeLayer(
			{ source: source(folder), dest, compression: { kind: "estargz" } },
			control,
		);
		mkdirSync(join(folder, "out"));
		const chunks = (function* () {
			const bytes = readFileSync(dest);
			for (let at = 0; at < bytes.length; at += 100_000) {
				yield bytes.subarray(at, at + 100_000);
			}
		})();
		const { digest, size, diffId } = made;
		await extractLayer(
			{ root: join(folder, "out"), whiteouts: "overlay", expected: { digest, size, diffId } },
			chunks,
			control,
		);
		assert.equal(readFileSync(join(folder, "out/dir/short"), "utf8"), "short");
		assert.throws(() => readFileSync(join(folder, "out/stargz.index.json")), /ENOENT/);
		const back = await convertLayer(
			{ dest: join(folder, "back"), compression: { kind: "gzip" }, expected: { digest, size } },
			[readFileSync(dest)],
			control,
			estargzPayload(dest),
		);
		assert.equal(back.diffId, made.toc?.plainDiffId);
		const again = await convertLayer(
			{ dest: join(folder, "again"), compression: { kind: "estargz" } },
			[readFileSync(join(folder, "back"))],
			control,
		);
		assert.equal(again.digest, made.digest);
		assert.equal(estargzPayload(join(folder, "back")), undefined);
	}));

test("estargz: a file of the table's name has no place", () =>
	inFolder(async (folder) => {
		writeFileSync(join(folder, "tree/stargz.index.json"), "{}");
		const dest = join(folder, "blob");
		await assert.rejects(
			writeLayer({ source: source(folder), dest, compression: { kind: "estargz" } }, control),
			(thrown) => hasCode(thrown, "invalid-argument") && /needs that name itself/.test(String(thrown)),
		);
		assert.throws(() => readFileSync(dest), /ENOENT/);
	}));
