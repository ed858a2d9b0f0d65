import assert from "node:assert/strict";
import { test } from "node:test";
import { chunksOf } from "../content/bytes.ts";
import { hasCode } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { createRegistryAuth, noCredentials } from "./auth.ts";
import { createRegistryClient } from "./client.ts";
import { type FakeRegistry, startFakeRegistry } from "./fake-registry.ts";
import type { Repository } from "./registry.ts";

const signal = new AbortController().signal;
const bytes = Buffer.alloc(250_000, "slipway ");
const blob = { digest: sha256(bytes), size: bytes.length };

async function* open(): AsyncGenerator<Uint8Array> {
	for (let at = 0; at < bytes.length; at += 60_000) {
		yield bytes.subarray(at, at + 60_000);
	}
}

async function withRegistry(
	body: (registry: FakeRegistry, repository: Repository) => Promise<void>,
): Promise<void> {
	await using registry = await startFakeRegistry();
	await using client = createRegistryClient({ retry: { delayMs: 0, maxDelayMs: 0 } });
	const auth = createRegistryAuth(noCredentials);
	await body(registry, client.repository({ domain: registry.host, path: "a/b" }, { auth }));
}

test("pushBlob: uploads once, with progress, then finds it there", () =>
	withRegistry(async (registry, repository) => {
		const progress: number[] = [];
		const options = { signal, onProgress: (n: number) => progress.push(n) };
		assert.deepEqual(await repository.pushBlob(blob, open, options), { outcome: "uploaded" });
		assert.deepEqual(Buffer.from(registry.blobs.get(blob.digest) ?? []), bytes);
		assert.equal(progress.at(-1), bytes.length);
		assert.deepEqual(await repository.pushBlob(blob, open, options), { outcome: "exists" });
		assert.equal(await repository.hasBlob(blob.digest, { signal }), true);
		assert.equal(await repository.hasBlob(sha256("x"), { signal }), false);
		const empty = { digest: sha256(""), size: 0 };
		await repository.pushBlob(empty, () => chunksOf(new Uint8Array()), { signal });
		assert.equal(registry.blobs.get(empty.digest)?.length, 0);
	}));

test("pushBlob: in chunks", () =>
	withRegistry(async (registry, repository) => {
		await repository.pushBlob(blob, open, { signal, chunkBytes: 100_000 });
		assert.deepEqual(Buffer.from(registry.blobs.get(blob.digest) ?? []), bytes);
		assert.equal(registry.log.filter((line) => line.startsWith("PATCH")).length, 3);
	}));

test("pushBlob: one blob is sent while the registry stores another, as many at a time as the limit says", {
	timeout: 30_000,
}, async () => {
	await using registry = await startFakeRegistry();
	await using client = createRegistryClient({ maxConcurrency: 1 });
	const auth = createRegistryAuth(noCredentials);
	const repository = client.repository({ domain: registry.host, path: "a/b" }, { auth });
	const events: string[] = [];
	const secondArrived = Promise.withResolvers<void>();
	let uploads = 0;
	registry.lie = async (request, response) => {
		if (request.method !== "PUT") {
			return false;
		}
		const isFirst = ++uploads === 1;
		await request.toArray();
		if (isFirst) {
			await secondArrived.promise;
		} else {
			secondArrived.resolve();
		}
		events.push("stored");
		response.writeHead(201).end();
		return true;
	};
	const push = (name: string) =>
		repository.pushBlob(
			{ digest: sha256(name), size: bytes.length },
			async function* () {
				events.push(`${name} begins`);
				yield* open();
				events.push(`${name} ends`);
			},
			{ signal },
		);
	const pushed = await Promise.all([push("first"), push("second")]);
	assert.deepEqual(pushed, [{ outcome: "uploaded" }, { outcome: "uploaded" }]);
	assert.match(events.join(), /^(\w+) begins,\1 ends,\w+ begins,/);
});

test("pushBlob: mounted where another repository has it, uploaded where that is refused", () =>
	withRegistry(async (registry, repository) => {
		const have = async (mountFrom: readonly string[]) => {
			registry.log.length = 0;
			return repository.pushBlob(blob, open, { signal, mountFrom });
		};
		registry.lie = (request, response, url) => {
			if (request.method === "HEAD") {
				response.writeHead(404).end();
				return true;
			}
			if (url.searchParams.get("from") === "secret") {
				response.writeHead(403).end();
				return true;
			}
			return false;
		};
		assert.deepEqual(await have(["secret", "other"]), { outcome: "uploaded" });
		assert.deepEqual(await have(["a/b", "secret", "other"]), { outcome: "mounted", mountedFrom: "other" });
		assert.deepEqual(registry.log.slice(1), [
			`POST /v2/a/b/blobs/uploads/?mount=${encodeURIComponent(blob.digest)}&from=secret`,
			`POST /v2/a/b/blobs/uploads/?mount=${encodeURIComponent(blob.digest)}&from=other`,
		]);
	}));

test("pushBlob: an upload that is cut or lost starts again, a refused one says what to do", () =>
	withRegistry(async (registry, repository) => {
		let failures = 0;
		registry.lie = (request, response) => {
			if (request.method !== "PUT" || failures >= 3) {
				return false;
			}
			failures++;
			if (failures === 1) {
				request.socket.destroy();
			} else {
				request.resume();
				request.on("end", () => response.writeHead(failures === 2 ? 503 : 404).end());
			}
			return true;
		};
		assert.deepEqual(await repository.pushBlob(blob, open, { signal }), { outcome: "uploaded" });
		assert.equal(registry.log.filter((line) => line.startsWith("POST")).length, 4);
		registry.blobs.clear();
		registry.lie = (request, response) => {
			if (request.method !== "POST") {
				return false;
			}
			response
				.writeHead(403)
				.end(JSON.stringify({ errors: [{ code: "DENIED", message: "quota exceeded" }] }));
			return true;
		};
		await assert.rejects(repository.pushBlob(blob, open, { signal }), (thrown) => {
			assert.match(
				String(thrown),
				/403 Forbidden: denied: quota exceeded: .*does not let this login push repository a\/b/,
			);
			return hasCode(thrown, "permission-denied");
		});
	}));

test("pushBlob: a source that is not what it says never becomes a blob", () =>
	withRegistry(async (registry, repository) => {
		const push = (size: number) => repository.pushBlob({ ...blob, size }, open, { signal });
		await assert.rejects(push(bytes.length - 1), /to push is longer than its 249999 bytes/);
		await assert.rejects(push(bytes.length + 1), /to push ended after 250000 of 250001 bytes/);
		const wrong = repository.pushBlob({ ...blob, digest: sha256("other") }, open, { signal });
		await assert.rejects(wrong, /400 Bad Request: digest invalid: no match/);
		assert.equal(registry.blobs.size, 0);
	}));

test("pushBlob: the login goes with an upload only to the registry itself", async () => {
	await using registry = await startFakeRegistry();
	await using storage = await startFakeRegistry();
	await using client = createRegistryClient({ retry: { delayMs: 0 } });
	const header = `Basic ${Buffer.from("u:p").toString("base64")}`;
	registry.auth = { accepts: (sent) => sent === header, challenge: "Basic" };
	registry.lie = (request, response) => {
		if (request.method === "POST" && request.headers.authorization === header) {
			response.writeHead(202, { location: `http://${storage.host}/upload?key=1` }).end();
			return true;
		}
		return false;
	};
	storage.lie = (request, response) => {
		request.resume();
		request.on("end", () => response.writeHead(201).end());
		return true;
	};
	const auth = createRegistryAuth(async () => ({ kind: "basic", username: "u", password: "p" }));
	await client.repository({ domain: registry.host, path: "a" }, { auth }).pushBlob(blob, open, { signal });
	assert.deepEqual(storage.log, [`PUT /upload?key=1&digest=${encodeURIComponent(blob.digest)}`]);
});

test("pushManifest: under each tag, or under its digest", () =>
	withRegistry(async (registry, repository) => {
		const manifest = { bytes: Buffer.from('{"schemaVersion":2}'), mediaType: mediaTypes.ociManifest };
		const digest = sha256(manifest.bytes);
		await repository.pushManifest(manifest, ["one", "two"], { signal });
		assert.deepEqual(await repository.pushManifest(manifest, [], { signal }), {
			mediaType: mediaTypes.ociManifest,
			digest,
			size: 19,
		});
		assert.deepEqual([...registry.manifests.keys()].sort(), ["a/b:one", "a/b:two", `a/b@${digest}`].sort());
		registry.lie = (_, response) => {
			response.writeHead(201, { "docker-content-digest": sha256("other") }).end();
			return true;
		};
		await assert.rejects(
			repository.pushManifest(manifest, ["one"], { signal }),
			/stored the manifest of a\/b as/,
		);
	}));
