import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { createThreadPool } from "../async/pool.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Archiver, FetchedLayer } from "./archive.ts";
import { createArchiver } from "./archiver.ts";
import { makeTar } from "./tar-fixture.ts";

const content = "slipway ".repeat(200_000);
const tar = makeTar({ name: "dir/", kind: "directory" }, { name: "dir/file", data: content });
const blob = gzipSync(tar);
const sha = (bytes: Uint8Array): `sha256:${string}` =>
	`sha256:${createHash("sha256").update(bytes).digest("hex")}`;

interface Bench {
	readonly root: string;
	readonly keepAt: string;
	fetch(chunks: AsyncIterable<Uint8Array>, bytes?: Uint8Array, signal?: AbortSignal): Promise<FetchedLayer>;
}

async function withBench(body: (bench: Bench) => Promise<void>): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), "fetch-"));
	await using pool = createThreadPool({ size: 1 });
	const archiver: Archiver = createArchiver(pool);
	const root = join(folder, "root");
	const keepAt = join(folder, "blob");
	mkdirSync(root);
	try {
		await body({
			root,
			keepAt,
			fetch: (chunks, bytes = blob, signal = new AbortController().signal) =>
				archiver.fetchLayer(
					{
						chunks,
						keepAt,
						root,
						whiteouts: "apply",
						expected: { digest: sha(bytes), size: bytes.length, diffId: sha(tar) },
					},
					{ signal },
				),
		});
	} finally {
		rmSync(folder, { recursive: true });
	}
}

async function* inChunks(bytes: Uint8Array, size = 7_001): AsyncGenerator<Uint8Array> {
	for (let at = 0; at < bytes.length; at += size) {
		await sleep(0);
		yield bytes.subarray(at, at + size);
	}
}

for (const [name, bytes] of [
	["gzip", blob],
	["zstd", zstdCompressSync(tar)],
	["uncompressed", tar],
] as const) {
	test(`fetchLayer: ${name} is unpacked while it arrives, and kept`, () =>
		withBench(async ({ fetch, root, keepAt }) => {
			const fetched = await fetch(inChunks(bytes), bytes);
			assert.ok(fetched.kind === "unpacked");
			assert.equal(fetched.layer.digest, sha(bytes));
			assert.equal(fetched.layer.diffId, sha(tar));
			assert.equal(fetched.layer.size, bytes.length);
			assert.deepEqual(readFileSync(keepAt), Buffer.from(bytes));
			assert.equal(readFileSync(join(root, "dir/file"), "utf8"), content);
		}));
}

test("fetchLayer: a blob that cannot be unpacked is whole and kept even so", () =>
	withBench(async ({ fetch, keepAt }) => {
		const odd = gzipSync(
			makeTar({ name: "link", kind: "hardlink", linkName: "missing" }, { name: "after", data: content }),
		);
		const fetched = await fetch(inChunks(odd), odd);
		assert.ok(fetched.kind === "kept");
		assert.ok(hasCode(fetched.failure, "not-found"), String(fetched.failure));
		assert.deepEqual(readFileSync(keepAt), odd);
		rmSync(keepAt);
		const noise = Buffer.alloc(300_000, "no tar at all ");
		const second = await fetch(inChunks(noise), noise);
		assert.ok(second.kind === "kept" && hasCode(second.failure, "data-loss"));
		assert.deepEqual(readFileSync(keepAt), noise);
	}));

test("fetchLayer: bytes with another digest, too few or too many are refused and not kept", () =>
	withBench(async ({ fetch, keepAt }) => {
		const wrong = Buffer.from(blob);
		wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
		for (const [bytes, message] of [
			[wrong, /content has digest sha256:.* instead of the expected/],
			[blob.subarray(0, -1), /ended after \d+ of the expected \d+ bytes/],
			[Buffer.concat([blob, Buffer.alloc(1)]), /longer than the expected \d+ bytes/],
		] as const) {
			await assert.rejects(fetch(inChunks(bytes)), (thrown) => {
				assert.match(String(thrown), message);
				return hasCode(thrown, "data-loss");
			});
			assert.ok(!existsSync(keepAt));
		}
	}));

test("fetchLayer: an error of the source and an abort end it, and nothing is kept", () =>
	withBench(async ({ fetch, keepAt }) => {
		async function* broken(): AsyncGenerator<Uint8Array> {
			yield blob.subarray(0, 1000);
			throw new SlipwayError("unavailable", "the line is cut");
		}
		await assert.rejects(fetch(broken()), (thrown) => {
			assert.match(String(thrown), /the line is cut/);
			return hasCode(thrown, "unavailable");
		});
		assert.ok(!existsSync(keepAt));
		const controller = new AbortController();
		async function* hanging(): AsyncGenerator<Uint8Array> {
			yield blob.subarray(0, 1000);
			setImmediate(() => controller.abort(new SlipwayError("canceled", "enough")));
			await new Promise((_, reject) => {
				controller.signal.addEventListener("abort", () => reject(controller.signal.reason));
			});
		}
		await assert.rejects(fetch(hanging(), blob, controller.signal), /enough/);
		assert.ok(!existsSync(keepAt));
	}));
