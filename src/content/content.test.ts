import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { chunksOf, verifyBlob } from "./bytes.ts";
import { contentStoreSuite } from "./content.suite.ts";
import { openLocalContentStore } from "./local.ts";
import { createMemoryContentStore } from "./memory.ts";

const signal = new AbortController().signal;

async function withRoot(body: (root: string) => Promise<void>): Promise<void> {
	const root = mkdtempSync(join(tmpdir(), "slipway-content-"));
	try {
		await body(root);
	} finally {
		rmSync(root, { recursive: true });
	}
}

contentStoreSuite("memory", (body) => body(createMemoryContentStore()));
contentStoreSuite("local", (body) =>
	withRoot(async (root) => {
		await body(await openLocalContentStore({ root, signal }));
		assert.deepEqual(readdirSync(join(root, "ingest")), [], "nothing is left in ingest");
	}),
);

test("local: adopt takes a finished file over and refuses one of another size", () =>
	withRoot(async (root) => {
		const store = await openLocalContentStore({ root, signal });
		const digest = sha256("abc");
		const file = store.temporaryPath();
		writeFileSync(file, "abc");
		await assert.rejects(store.adopt(file, { digest, size: 4 }), (thrown) => hasCode(thrown, "data-loss"));
		await store.adopt(file, { digest, size: 3 });
		assert.equal(readFileSync(store.path(digest), "utf8"), "abc");
		const again = store.temporaryPath();
		writeFileSync(again, "abc");
		await store.adopt(again, { digest, size: 3 });
		assert.deepEqual(readdirSync(join(root, "ingest")), []);
	}));

test("local: a blob that was written or confirmed is known to be whole until its file is touched", () =>
	withRoot(async (root) => {
		const store = await openLocalContentStore({ root, signal });
		const { digest } = await store.write(chunksOf(Buffer.from("abc")), { signal });
		assert.equal(store.isConfirmed(digest), true);
		utimesSync(store.path(digest), 1, 1);
		assert.equal(store.isConfirmed(digest), false);
		store.confirmation(digest)();
		assert.equal(store.isConfirmed(digest), true);
		const early = store.confirmation(digest);
		utimesSync(store.path(digest), 2, 2);
		early();
		assert.equal(store.isConfirmed(digest), false, "touched between reading and confirming");
		const other = await openLocalContentStore({ root, signal });
		assert.equal(other.isConfirmed(digest), false, "what another process wrote is not known");
		await store.delete(digest);
		store.confirmation(digest)();
		assert.equal(store.isConfirmed(digest), false);
	}));

test("local: open sweeps what a killed process left under way", () =>
	withRoot(async (root) => {
		const first = await openLocalContentStore({ root, signal });
		const { digest } = await first.write(chunksOf(Buffer.from("kept")), { signal });
		writeFileSync(first.temporaryPath(), "half");
		const second = await openLocalContentStore({ root, signal });
		assert.deepEqual(readdirSync(join(root, "ingest")), []);
		assert.equal(await verifyBlob(second, digest, { signal }), true);
	}));

test("local: after a restart of the machine, damaged young blobs are removed and whole ones stay", () =>
	withRoot(async (root) => {
		const first = await openLocalContentStore({ root, signal, bootId: "one" });
		const whole = await first.write(chunksOf(Buffer.from("whole")), { signal });
		const torn = await first.write(chunksOf(Buffer.from("torn")), { signal });
		writeFileSync(first.path(torn.digest), "to\0\0");
		const same = await openLocalContentStore({ root, signal, bootId: "one" });
		assert.equal((await same.info(torn.digest))?.size, 4, "not looked at without a restart");
		const second = await openLocalContentStore({ root, signal, bootId: "two" });
		assert.equal(await second.info(torn.digest), undefined);
		assert.equal((await second.info(whole.digest))?.size, 5);
		assert.equal(readFileSync(join(root, "boot"), "utf8"), "two");
	}));

test("local: a full disk is one clear error and leaves nothing", () =>
	withRoot(async (root) => {
		execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "slipway-test", root]);
		try {
			const store = await openLocalContentStore({ root, signal });
			async function* large(): AsyncGenerator<Uint8Array> {
				for (let i = 0; i < 64; i++) {
					yield new Uint8Array(64 << 10);
				}
			}
			await assert.rejects(store.write(large(), { signal }), (thrown) => {
				return hasCode(thrown, "resource-exhausted") && /writing a blob: ENOSPC/.test(String(thrown));
			});
			assert.deepEqual(readdirSync(join(root, "ingest")), []);
			await store.write(chunksOf(Buffer.from("small")), { signal });
		} finally {
			execFileSync("umount", [root]);
		}
	}));
