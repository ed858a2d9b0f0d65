import assert from "node:assert/strict";
import { test } from "node:test";
import { collect } from "../content/bytes.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { createRegistryAuth, noCredentials } from "./auth.ts";
import { createRegistryClient } from "./client.ts";
import { type FakeRegistry, startFakeRegistry } from "./fake-registry.ts";
import type { RegistryClientOptions, Repository } from "./registry.ts";

const signal = new AbortController().signal;
const retry = { delayMs: 0, maxDelayMs: 0 };
const bytes = Buffer.alloc(300_000, "slipway ");
const document = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };

async function withRegistry(
	body: (registry: FakeRegistry, repository: Repository) => Promise<void>,
	options: RegistryClientOptions = {},
): Promise<void> {
	await using registry = await startFakeRegistry();
	await using client = createRegistryClient({ retry, ...options });
	const auth = createRegistryAuth(noCredentials);
	await body(registry, client.repository({ domain: registry.host, path: "a/b" }, { auth }));
}

const read = (repository: Repository, descriptor: { digest: string; size: number }, part = {}) =>
	collect(repository.blob(descriptor as Descriptor, { signal, ...part }), { maxBytes: 1e7, what: "blob" });

test("resolve: a tag by HEAD, a digest, and what is not there", () =>
	withRegistry(async (registry, repository) => {
		const { digest, size } = registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
		const expected = { descriptor: { mediaType: mediaTypes.ociIndex, digest, size } };
		assert.deepEqual(await repository.resolve("v1", { signal }), expected);
		assert.deepEqual(await repository.resolve(digest, { signal }), expected);
		assert.deepEqual(registry.log, ["HEAD /v2/a/b/manifests/v1", `HEAD /v2/a/b/manifests/${digest}`]);
		await assert.rejects(
			repository.resolve("v2", { signal }),
			new SlipwayError("not-found", `${registry.host}/a/b:v2: not found`),
		);
	}));

test("resolve: asks with GET where HEAD is not known or says too little", () =>
	withRegistry(async (registry, repository) => {
		const { digest } = registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
		registry.lie = (request, response) => {
			if (request.method === "HEAD") {
				response.writeHead(405).end();
				return true;
			}
			return false;
		};
		const found = await repository.resolve("v1", { signal });
		assert.equal(found.descriptor.digest, digest);
		assert.equal(Buffer.from(found.bytes ?? []).toString(), JSON.stringify(document));
		registry.lie = (request, response) => {
			if (request.method === "HEAD") {
				response.writeHead(200, { "content-type": mediaTypes.ociIndex }).end();
				return true;
			}
			return false;
		};
		assert.equal((await repository.resolve("v1", { signal })).descriptor.digest, digest);
	}));

test("manifest: wrong bytes, wrong type, too large and endless ones are refused", () =>
	withRegistry(async (registry, repository) => {
		const { digest } = registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
		const manifest = () => repository.manifest(digest as Descriptor["digest"], { signal });
		assert.equal((await manifest()).descriptor.digest, digest);
		registry.manifests.set(`a/b@${digest}`, { type: mediaTypes.ociIndex, bytes: Buffer.from("{}") });
		await assert.rejects(
			manifest(),
			(thrown) => hasCode(thrown, "data-loss") && /a\/b@sha256:/.test(String(thrown)),
		);
		registry.manifests.set(`a/b@${digest}`, {
			type: mediaTypes.ociManifest,
			bytes: Buffer.from(JSON.stringify(document)),
		});
		await assert.rejects(manifest(), /expected manifest but found index/);
		registry.manifests.set(`a/b@${digest}`, { type: "text/plain", bytes: Buffer.alloc(5 << 20) });
		await assert.rejects(manifest(), /rejecting 5242880 byte manifest/);
		registry.manifests.set(`a/b:old`, {
			type: "application/vnd.docker.distribution.manifest.v1+prettyjws",
			bytes: Buffer.from("{}"),
		});
		await assert.rejects(repository.resolve("old", { signal }), /schema 1 has been removed/);
		registry.lie = (_, response) => {
			response.writeHead(200, { "content-type": mediaTypes.ociIndex });
			const more = (): void => {
				while (response.write(Buffer.alloc(100_000, " ")));
			};
			response.on("drain", more);
			more();
			return true;
		};
		await assert.rejects(manifest(), /larger than 4194304 bytes/);
	}));

test("blob: whole, in part, empty and missing", () =>
	withRegistry(async (registry, repository) => {
		const blob = registry.addBlob(bytes);
		assert.deepEqual(await read(repository, blob), bytes);
		assert.deepEqual(await read(repository, blob, { offset: 10, length: 20 }), bytes.subarray(10, 30));
		assert.deepEqual(await read(repository, blob, { offset: 299_990 }), bytes.subarray(299_990));
		assert.equal((await read(repository, { digest: sha256(""), size: 0 })).length, 0);
		const missing = { digest: sha256("missing"), size: 7 };
		await assert.rejects(
			read(repository, missing),
			new SlipwayError("not-found", `${registry.host}/a/b@${missing.digest}: not found`),
		);
	}));

test("blob: a transfer that is cut is resumed where it broke", () =>
	withRegistry(async (registry, repository) => {
		const blob = registry.addBlob(bytes);
		let cuts = 0;
		registry.lie = (request, response) => {
			if (cuts++ >= 3) {
				return false;
			}
			const from = Number(/\d+/.exec(request.headers.range ?? "0")?.[0]);
			response.writeHead(from === 0 ? 200 : 206, { "content-length": bytes.length - from });
			response.write(bytes.subarray(from, from + 50_000), () => setImmediate(() => response.destroy()));
			return true;
		};
		assert.deepEqual(await read(repository, blob), bytes);
		assert.equal(registry.log.length, 4);
	}));

test("blob, manifest: a server that stands still is asked again, for what is missing", () =>
	withRegistry(
		async (registry, repository) => {
			const blob = registry.addBlob(bytes);
			const { digest } = registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
			let stalls = 0;
			registry.lie = (request, response) => {
				if (stalls++ > 1) {
					return false;
				}
				if (request.url?.includes("/blobs/")) {
					const from = stalls === 1 ? 0 : 50_000;
					response.writeHead(from === 0 ? 200 : 206, { "content-length": bytes.length - from });
					response.write(bytes.subarray(from, from + 50_000));
				}
				return true;
			};
			assert.deepEqual(await read(repository, blob), bytes);
			assert.deepEqual(
				registry.log.map((line) => line.split(" ")[0]),
				["GET", "GET", "GET"],
			);
			stalls = 1;
			const found = await repository.manifest(digest as Descriptor["digest"], { signal });
			assert.equal(found.descriptor.digest, digest);
			registry.lie = () => true;
			await assert.rejects(repository.manifest(digest as Descriptor["digest"], { signal }), (thrown) => {
				assert.match(String(thrown), new RegExp(`${registry.host} did not answer in time`));
				return hasCode(thrown, "deadline-exceeded");
			});
		},
		{ timeouts: { stallMs: 100, answerMs: 100 }, retry: { attempts: 3, delayMs: 0 } },
	));

test("blob: a server without ranges is read from the start again", () =>
	withRegistry(async (registry, repository) => {
		const blob = registry.addBlob(bytes);
		let requests = 0;
		registry.lie = (_, response) => {
			response.writeHead(200, { "content-length": bytes.length });
			if (requests++ === 0) {
				response.write(bytes.subarray(0, 100_000), () => setImmediate(() => response.destroy()));
			} else {
				response.end(bytes);
			}
			return true;
		};
		assert.deepEqual(await read(repository, blob), bytes);
		assert.deepEqual(await read(repository, blob, { offset: 5, length: 6 }), bytes.subarray(5, 11));
	}));

test("blob: a server that always cuts, sends too little, too much or another part is given up", () =>
	withRegistry(async (registry, repository) => {
		const blob = registry.addBlob(bytes);
		registry.lie = (_, response) => {
			response.writeHead(200, { "content-length": bytes.length });
			response.write("x", () => setImmediate(() => response.destroy()));
			return true;
		};
		await assert.rejects(read(repository, blob), (thrown) => hasCode(thrown, "unavailable"));
		assert.equal(registry.log.length, 5);
		registry.lie = (_, response) => {
			response.end(bytes.subarray(0, 99_999));
			return true;
		};
		await assert.rejects(read(repository, blob), /registry has 99999 bytes instead of 300000/);
		registry.lie = (_, response) => {
			response.writeHead(200, { "transfer-encoding": "chunked" });
			response.write(bytes);
			response.end("more");
			return true;
		};
		await assert.rejects(read(repository, blob), /longer than the expected 300000 bytes/);
		registry.lie = (_, response) => {
			response.writeHead(206, { "content-range": "bytes 0-9/300000" }).end("0123456789");
			return true;
		};
		await assert.rejects(
			read(repository, blob, { offset: 10, length: 10 }),
			/sent bytes 0-9\/300000 instead of/,
		);
	}));

test("retry: 429 with Retry-After and 503 are tried again, and give up with advice", () =>
	withRegistry(async (registry, repository) => {
		const { digest } = registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
		const statuses = [429, 503, 502, 500];
		registry.lie = (_, response) => {
			const status = statuses.shift();
			if (status === undefined) {
				return false;
			}
			response.writeHead(status, { "retry-after": "7" }).end();
			return true;
		};
		assert.equal((await repository.resolve("v1", { signal })).descriptor.digest, digest);
		registry.log.length = 0;
		registry.lie = (_, response) => {
			response.writeHead(429).end();
			return true;
		};
		await assert.rejects(repository.manifest(sha256("x"), { signal }), /429/);
		await assert.rejects(read(repository, { digest: sha256("x"), size: 1 }), /429/);
		assert.equal(registry.log.length, 10, "five attempts each");
		await assert.rejects(
			repository.resolve("v1", { signal }),
			(thrown) =>
				hasCode(thrown, "resource-exhausted") &&
				/unexpected status from HEAD request to http:.*: 429 Too Many Requests: registry .* limits requests/.test(
					String(thrown),
				),
		);
	}));

test("redirects: followed for reads, loops and strange locations end", () =>
	withRegistry(async (registry, repository) => {
		const blob = registry.addBlob(bytes);
		await using other = await startFakeRegistry();
		other.lie = (_, response) => {
			response.end(bytes);
			return true;
		};
		registry.lie = (_, response) => {
			response.writeHead(307, { location: `http://${other.host}/elsewhere?signature=secret` }).end();
			return true;
		};
		assert.deepEqual(await read(repository, blob), bytes);
		registry.lie = (request, response) => {
			response.writeHead(302, { location: request.url ?? "" }).end();
			return true;
		};
		registry.log.length = 0;
		await assert.rejects(read(repository, blob), /stopped after 10 redirects/);
		assert.equal(registry.log.length, 11);
		registry.lie = (_, response) => {
			response.writeHead(302, { location: "file:///etc/passwd" }).end();
			return true;
		};
		await assert.rejects(read(repository, blob), /redirect to an invalid location/);
		other.lie = (_, response) => {
			response.writeHead(403).end();
			return true;
		};
		registry.lie = (_, response) => {
			response.writeHead(307, { location: `http://${other.host}/elsewhere?signature=secret` }).end();
			return true;
		};
		await assert.rejects(read(repository, blob), (thrown) => !String(thrown).includes("secret"));
	}));

test("mirrors: asked first with the namespace, and passed by when they fail", async () => {
	await using mirror = await startFakeRegistry();
	await using registry = await startFakeRegistry();
	await using client = createRegistryClient({
		retry,
		hosts: { [registry.host]: { mirrors: ["127.0.0.1:1", `${mirror.host}/cache/`] } },
	});
	const auth = createRegistryAuth(noCredentials);
	const repository = client.repository({ domain: registry.host, path: "a/b" }, { auth });
	const { digest } = registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
	mirror.addManifest("cache/a/b", "v1", mediaTypes.ociIndex, document);
	assert.equal((await repository.resolve("v1", { signal })).descriptor.digest, digest);
	assert.deepEqual(registry.log, []);
	assert.deepEqual(mirror.log, [`HEAD /v2/cache/a/b/manifests/v1?ns=${encodeURIComponent(registry.host)}`]);
	mirror.lie = (_, response) => {
		response.writeHead(500).end();
		return true;
	};
	assert.equal((await repository.resolve("v1", { signal })).descriptor.digest, digest);
	assert.equal(mirror.log.length, 2, "a mirror is not asked twice");
});

test("failures of the network name host and what to do", async () => {
	await using client = createRegistryClient({ retry });
	const auth = createRegistryAuth(noCredentials);
	const resolve = (domain: string) =>
		client.repository({ domain, path: "a/b" }, { auth }).resolve("latest", { signal });
	await assert.rejects(resolve("127.0.0.1:1"), (thrown) => {
		assert.match(
			String(thrown),
			/HEAD http:\/\/127\.0\.0\.1:1\/v2\/a\/b\/manifests\/latest: connection refused by/,
		);
		return hasCode(thrown, "unavailable");
	});
	await assert.rejects(resolve("registry.invalid"), /no such host: registry\.invalid; check the name/);
	await using registry = await startFakeRegistry();
	await using secure = createRegistryClient({ retry, hosts: { [registry.host]: { http: false } } });
	const repository = secure.repository({ domain: registry.host, path: "a/b" }, { auth });
	await assert.rejects(
		repository.resolve("v1", { signal }),
		/does not speak TLS; if it is meant to be plain http/,
	);
	registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
	const insecure = secure.repository({ domain: registry.host, path: "a/b" }, { auth, insecure: true });
	assert.equal((await insecure.resolve("v1", { signal })).descriptor.mediaType, mediaTypes.ociIndex);
});

test("an abort ends a request that hangs, a transfer and the wait for a slot", () =>
	withRegistry(
		async (registry, repository) => {
			const blob = registry.addBlob(bytes) as Descriptor;
			registry.lie = (request, response) => {
				if (request.url?.includes("/blobs/")) {
					response.writeHead(200, { "content-length": bytes.length }).write("x");
				}
				return true;
			};
			const controller = new AbortController();
			const options = { signal: controller.signal };
			const reads = [1, 2].map(async () => {
				for await (const _ of repository.blob(blob, options)) {
					controller.abort(new SlipwayError("canceled", "enough"));
				}
			});
			const hanging = repository.resolve("v1", options);
			for (const each of [...reads, hanging]) {
				await assert.rejects(each, /enough/);
			}
		},
		{ maxConcurrency: 1 },
	));
