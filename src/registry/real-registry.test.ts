import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { chunksOf, collect, verified } from "../content/bytes.ts";
import { openOciLayout } from "../content/oci-layout-reader.ts";
import { hasCode } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { parseManifest } from "../oci/manifest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { createRegistryAuth, noCredentials } from "./auth.ts";
import { createRegistryClient } from "./client.ts";
import { startRealRegistry } from "./real-registry.ts";
import type { Repository } from "./registry.ts";

const signal = new AbortController().signal;

/** A small image made of bytes. */
function makeImage(): { readonly blobs: Map<Digest, Buffer>; readonly manifest: Buffer } {
	const blobs = new Map<Digest, Buffer>();
	const add = (bytes: Buffer, mediaType: string): Descriptor => {
		const digest = sha256(bytes);
		blobs.set(digest, bytes);
		return { mediaType, digest, size: bytes.length };
	};
	const tar = Buffer.alloc(10_240 * 40, 0);
	const layer = add(gzipSync(tar), mediaTypes.ociLayerGzip);
	const config = add(
		Buffer.from(
			JSON.stringify({
				architecture: "amd64",
				os: "linux",
				rootfs: { type: "layers", diff_ids: [sha256(tar)] },
			}),
		),
		mediaTypes.ociConfig,
	);
	const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] };
	return { blobs, manifest: Buffer.from(JSON.stringify(manifest)) };
}

async function push(repository: Repository, tag: string, chunkBytes?: number): Promise<Descriptor> {
	const { blobs, manifest } = makeImage();
	for (const [digest, bytes] of blobs) {
		await repository.pushBlob({ digest, size: bytes.length }, () => chunksOf(bytes), {
			signal,
			...(chunkBytes === undefined ? {} : { chunkBytes }),
		});
	}
	return repository.pushManifest({ bytes: manifest, mediaType: mediaTypes.ociManifest }, [tag], { signal });
}

async function pull(repository: Repository, tag: string): Promise<Digest> {
	const { descriptor } = await repository.resolve(tag, { signal });
	const { bytes } = await repository.manifest(descriptor.digest, { signal });
	const { config, layers } = parseManifest(bytes);
	for (const blob of [config, ...layers]) {
		await collect(verified(repository.blob(blob, { signal }), blob), { maxBytes: 1e6, what: "blob" });
	}
	return descriptor.digest;
}

function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-test-"));
	return body(directory).finally(() => rmSync(directory, { recursive: true }));
}

test("docker-registry: push and pull whole, in chunks and by mount; skopeo reads ours, we read skopeo's", () =>
	withDirectory(async (directory) => {
		await using registry = await startRealRegistry();
		await using client = createRegistryClient();
		const auth = createRegistryAuth(noCredentials);
		const repository = (path: string) => client.repository({ domain: registry.host, path }, { auth });
		const pushed = await push(repository("a/whole"), "v1");
		assert.equal(await pull(repository("a/whole"), "v1"), pushed.digest);
		const { blobs } = makeImage();
		const [first] = blobs;
		assert.ok(first !== undefined);
		const [digest, bytes] = first;
		const blob = { digest, size: bytes.length };
		const unread = (): AsyncIterable<Uint8Array> => assert.fail("nothing is uploaded");
		assert.deepEqual(await repository("a/whole").pushBlob(blob, unread, { signal }), { outcome: "exists" });
		assert.deepEqual(
			await repository("b/mounted").pushBlob(blob, unread, { signal, mountFrom: ["x/y", "a/whole"] }),
			{
				outcome: "mounted",
				mountedFrom: "a/whole",
			},
		);
		await push(repository("c/chunks"), "v1", 100);
		assert.equal(await pull(repository("c/chunks"), "v1"), pushed.digest);
		const range = repository("a/whole").blob(blob, { signal, offset: 10, length: 5 });
		assert.deepEqual(await collect(range, { maxBytes: 5, what: "part" }), bytes.subarray(10, 15));

		const layout = join(directory, "layout");
		const plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
		const skopeo = (...args: string[]) => execFileSync("skopeo", ["copy", "--quiet", ...plain, ...args]);
		skopeo(`docker://${registry.host}/a/whole:v1`, `oci:${layout}:v1`);
		assert.equal(openOciLayout(layout).find("v1")?.digest, pushed.digest);
		skopeo(`oci:${layout}:v1`, `docker://${registry.host}/d/back:v2`);
		assert.equal(await pull(repository("d/back"), "v2"), pushed.digest);
		await assert.rejects(repository("a/whole").resolve("v9", { signal }), /a\/whole:v9: not found/);
		await assert.rejects(repository("nobody").resolve("v9", { signal }), (thrown) =>
			hasCode(thrown, "not-found"),
		);
	}));

/** bcrypt of "open sesame" for "ali". */
const htpasswd = "ali:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";

test("docker-registry: with a login over TLS of a certificate authority of its own", () =>
	withDirectory(async (directory) => {
		const certificate = join(directory, "cert.pem");
		const key = join(directory, "key.pem");
		const args = [
			"req",
			"-x509",
			"-newkey",
			"ec",
			"-pkeyopt",
			"ec_paramgen_curve:P-256",
			"-nodes",
			"-days",
			"2",
		];
		const subject = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"];
		execFileSync("openssl", [...args, ...subject, "-keyout", key, "-out", certificate], { stdio: "ignore" });
		await using registry = await startRealRegistry({ htpasswd, tls: { certificate, key } });
		const ali = createRegistryAuth(async () => ({ kind: "basic", username: "ali", password: "open sesame" }));
		const thief = createRegistryAuth(async () => ({ kind: "basic", username: "ali", password: "open" }));
		const config = { http: false, ca: [readFileSync(certificate, "utf8")] };
		await using client = createRegistryClient({ hosts: { [registry.host]: config } });
		const repository = (auth: typeof ali) =>
			client.repository({ domain: registry.host, path: "safe" }, { auth });
		const pushed = await push(repository(ali), "v1");
		assert.equal(await pull(repository(ali), "v1"), pushed.digest);
		for (const auth of [thief, createRegistryAuth(noCredentials)]) {
			await assert.rejects(repository(auth).resolve("v1", { signal }), (thrown) => {
				assert.match(
					String(thrown),
					/401 Unauthorized: .*registry 127\.0\.0\.1:\d+ wants a login for repository safe/,
				);
				return hasCode(thrown, "unauthenticated");
			});
		}
		await using stranger = createRegistryClient({ hosts: { [registry.host]: { http: false } } });
		const untrusted = stranger.repository({ domain: registry.host, path: "safe" }, { auth: ali });
		await assert.rejects(
			untrusted.resolve("v1", { signal }),
			/the certificate of 127.* is not trusted .*; configure its "ca"/,
		);
		const anyway = stranger.repository(
			{ domain: registry.host, path: "safe" },
			{ auth: ali, insecure: true },
		);
		assert.equal((await anyway.resolve("v1", { signal })).descriptor.digest, pushed.digest);
		await using plain = createRegistryClient();
		const http = plain.repository({ domain: registry.host, path: "safe" }, { auth: ali });
		await assert.rejects(http.resolve("v1", { signal }), /400 Bad Request/);
	}));
