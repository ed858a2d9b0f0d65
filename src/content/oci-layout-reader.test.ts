import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { readBlob } from "./bytes.ts";
import { openOciLayout } from "./oci-layout-reader.ts";

const signal = new AbortController().signal;

test("OCI layout: roots by name, tag or alone, and blobs by digest", async () => {
	const directory = mkdtempSync(join(tmpdir(), "slipway-layout-"));
	try {
		const digest = sha256("blob");
		mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
		writeFileSync(join(directory, "blobs/sha256", digest.slice(7)), "blob");
		const root = (annotations: Record<string, string>) => ({
			mediaType: mediaTypes.ociManifest,
			digest,
			size: 4,
			annotations,
		});
		const tagged = root({ "org.opencontainers.image.ref.name": "latest" });
		const named = root({ "io.containerd.image.name": "latest" });
		const write = (manifests: unknown[]): void =>
			writeFileSync(join(directory, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
		const reader = openOciLayout(directory);
		assert.throws(() => reader.roots(), /could not read .*index\.json/);
		write([tagged, named]);
		assert.deepEqual(reader.find("latest")?.annotations, named.annotations);
		assert.equal(reader.find("other"), undefined);
		assert.equal(reader.find(undefined), undefined, "two roots");
		write([tagged]);
		assert.equal(reader.find(undefined)?.digest, digest);
		assert.deepEqual(await reader.info(digest), { digest, size: 4 });
		assert.equal(Buffer.from(await readBlob(reader, digest, { maxBytes: 4, signal })).toString(), "blob");
		const other = readBlob(reader, sha256("x"), { maxBytes: 4, signal });
		await assert.rejects(other, (thrown) => hasCode(thrown, "not-found"));
		writeFileSync(join(directory, "index.json"), "[1");
		assert.throws(
			() => reader.roots(),
			(thrown) => hasCode(thrown, "invalid-argument"),
		);
	} finally {
		rmSync(directory, { recursive: true });
	}
});
