import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { collect } from "../content/bytes.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { discardProgress } from "../progress/progress.ts";
import type { Session } from "../session/session.ts";
import type { StepContext } from "../solver/solver.ts";
import { createAzureBackend } from "./azblob-backend.ts";
import { exportCache } from "./export-cache.ts";
import {
	azureLogin,
	type FakeCloud,
	ghaToken,
	s3Login,
	startFakeAzure,
	startFakeGha,
	startFakeS3,
} from "./fake-clouds.fixture.ts";
import { createGhaBackend, createGhaStore } from "./gha-backend.ts";
import type { CacheBackend, CacheBlob, ExportedCache } from "./remotecache.ts";
import { createS3Backend } from "./s3-backend.ts";

const session = {} as Session;
const { signal } = new AbortController();
const context: StepContext = {
	signal,
	vertex: sha256("test"),
	progress: discardProgress,
	clients: () => [],
};

function blobOf(bytes: Uint8Array): CacheBlob {
	return {
		descriptor: { mediaType: mediaTypes.ociLayerGzip, digest: sha256(bytes), size: bytes.length },
		diffId: sha256(`plain ${bytes.length}`),
		createdAt: 1_700_000_000_123,
		description: undefined,
		provider: {
			read: async function* () {
				for (let at = 0; at < bytes.length; at += 1 << 20) {
					yield bytes.subarray(at, at + (1 << 20));
				}
			},
		},
	};
}

/** Larger than one part of an upload. */
const large = randomBytes((16 << 20) + 12_345);
const small = randomBytes(1000);

function cacheOf(...contents: readonly Uint8Array[]): ExportedCache {
	const blobs = contents.map(blobOf);
	return {
		config: {
			layers: blobs.map(({ descriptor }, index) => ({ blob: descriptor.digest, parent: index - 1 })),
			records: [
				{
					digest: sha256("record"),
					results: [{ layer: blobs.length - 1, createdAt: 1_700_000_000_456 }],
					chains: [],
					inputs: [],
				},
			],
		},
		blobs: new Map(blobs.map((blob) => [blob.descriptor.digest, blob])),
	};
}

async function send(backend: CacheBackend, attrs: Readonly<Record<string, string>>, cache: ExportedCache) {
	const target = backend.target?.(attrs, session);
	assert.ok(target !== undefined);
	await Promise.all([...cache.blobs.values()].map((blob) => target.sendBlob(blob, context)));
	await target.finish(cache, context);
}

const clouds: readonly {
	readonly name: string;
	readonly start: () => Promise<FakeCloud>;
	readonly backend: () => CacheBackend;
	readonly attrs: (url: string) => Readonly<Record<string, string>>;
	/** What the objects are called. */
	readonly config: RegExp;
	readonly blob: (digest: Digest) => string;
}[] = [
	{
		name: "s3",
		start: startFakeS3,
		backend: () => createS3Backend({ AWS_REGION: "eu-north-1" }),
		attrs: (url) => ({
			bucket: "builds",
			endpoint_url: url,
			use_path_style: "true",
			prefix: "team/",
			name: "main;other",
			access_key_id: s3Login.accessKeyId,
			secret_access_key: s3Login.secretAccessKey,
		}),
		config: /^\/builds\/team\/manifests\/(?:main|other)$/,
		blob: (digest) => `/builds/team/blobs/${digest}`,
	},
	{
		name: "azblob",
		start: startFakeAzure,
		backend: () => createAzureBackend({ BUILDKIT_AZURE_STORAGE_CONTAINER: "caches" }),
		attrs: (url) => ({
			account_url: `${url}/${azureLogin.account}`,
			account_name: azureLogin.account,
			secret_access_key: azureLogin.key,
			prefix: "team",
		}),
		config: /^\/testaccount\/caches\/team\/manifests\/buildkit$/,
		blob: (digest) => `/testaccount/caches/team/blobs/${digest}`,
	},
	...["1", "2"].map((version) => ({
		name: `gha, version ${version}`,
		start: () => startFakeGha(token),
		backend: createGhaBackend,
		attrs: (url: string) => ({
			token,
			...(version === "2" ? { url_v2: `${url}/` } : { url, version }),
			scope: "tests",
		}),
		config: new RegExp(`^/store/index-tests-1-${sha256("refs/heads/topic").slice(7, 15)}#\\d+$`),
		blob: (digest: Digest) => `/store/buildkit-blob-1-${digest}`,
	})),
];
const token = ghaToken();

for (const { name, start, backend, attrs, config, blob } of clouds) {
	test(`${name}: what was sent is read again; what is there is not sent twice`, async () => {
		await using cloud = await start();
		const options = attrs(cloud.url);
		const origin = backend().origin?.(options, session);
		assert.ok(origin !== undefined);
		assert.deepEqual(await origin.read(context), [], "nothing yet, which is no error");

		const cache = cacheOf(small, large);
		await send(backend(), options, cache);
		assert.deepEqual(cloud.objects.get(blob(sha256(small)))?.bytes, small);
		assert.ok(cloud.objects.get(blob(sha256(large)))?.bytes.equals(large));
		assert.ok(
			[...cloud.objects.keys()].some((key) => config.test(key)),
			[...cloud.objects.keys()].join(" "),
		);

		const [read] = await origin.read(context);
		assert.ok(read !== undefined);
		assert.deepEqual(read.config.records, cache.config.records);
		for (const [digest, expected] of cache.blobs) {
			const found: CacheBlob = read.blobs.get(digest) ?? assert.fail();
			assert.deepEqual({ ...found, provider: 0 }, { ...expected, provider: 0 });
			const { descriptor } = expected;
			const all: AsyncIterable<Uint8Array> = found.provider.read(descriptor, { signal });
			assert.equal(sha256(await collect(all, { maxBytes: 1 << 30, what: "blob" })), digest);
			const part: AsyncIterable<Uint8Array> = found.provider.read(descriptor, {
				signal,
				offset: 5,
				length: 7,
			});
			assert.equal((await collect(part, { maxBytes: 100, what: "part" })).length, 7);
		}

		const before = cloud.requests.length;
		await send(backend(), options, cacheOf(small, large, randomBytes(10)));
		const bytesSent = cloud.requests
			.slice(before)
			.filter((line) => line.includes(encodeURIComponent(sha256(large))));
		assert.ok(
			bytesSent.every((line) => !/^(?:PUT|PATCH)/.test(line)),
			bytesSent.join("\n"),
		);
		const [again] = await origin.read(context);
		assert.equal(again?.blobs.size, 3, "the newest config is the one that is read");
	});

	test(`${name}: an object that was cut short, a config of random bytes and a refused login are errors that say where`, async () => {
		await using cloud = await start();
		const options = attrs(cloud.url);
		await send(backend(), options, cacheOf(small));
		const object = cloud.objects.get(blob(sha256(small)));
		assert.ok(object !== undefined);
		object.bytes = object.bytes.subarray(0, 500);
		const origin = backend().origin?.(options, session);
		const [read] = (await origin?.read(context)) ?? [];
		const provider = read?.blobs.get(sha256(small))?.provider ?? assert.fail();
		await assert.rejects(
			collect(provider.read(blobOf(small).descriptor, { signal }), { maxBytes: 1 << 20, what: "blob" }),
			(error: unknown) => error instanceof SlipwayError,
		);
		for (const [key, value] of cloud.objects) {
			if (config.test(key)) {
				value.bytes = randomBytes(100);
			}
		}
		await assert.rejects(
			backend().origin?.(options, session).read(context) ?? Promise.resolve(),
			(error: unknown) => hasCode(error, "invalid-argument"),
		);
		const stranger = {
			...options,
			...("token" in options
				? { token: `${ghaToken()}x` }
				: { secret_access_key: Buffer.from("another").toString("base64") }),
		};
		await assert.rejects(
			backend().origin?.(stranger, session).read(context) ?? Promise.resolve(),
			(error: unknown) =>
				hasCode(error, "permission-denied") && !String(error).includes(options["token"] ?? "no token"),
		);
	});
}

test("s3: an object that is old is renewed by a copy onto itself", async () => {
	await using cloud = await startFakeS3();
	const s3 = clouds[0] ?? assert.fail();
	const options = { ...s3.attrs(cloud.url), touch_refresh: "1h" };
	await send(s3.backend(), options, cacheOf(small));
	const object = cloud.objects.get(s3.blob(sha256(small))) ?? assert.fail();
	object.modified = new Date(Date.now() - 2 * 3600 * 1000);
	await send(s3.backend(), options, cacheOf(small));
	const renewed = cloud.objects.get(s3.blob(sha256(small))) ?? assert.fail();
	assert.ok(Date.now() - renewed.modified.getTime() < 60_000);
	assert.deepEqual(renewed.bytes, small);
});

test("gha: a config that somebody else writes is waited for, and skipped when he seems to have died", async () => {
	const saved: string[] = [];
	let pauses = 0;
	const store = createGhaStore(
		{ scope: "s", scopes: [{ name: "main", permission: 3 }] },
		{
			find: async () => undefined,
			save: async (key) => {
				saved.push(key.slice(key.indexOf("#")));
				return key.endsWith("#3");
			},
			read: async function* () {},
		},
		async () => void pauses++,
	);
	await store.putConfig(new Uint8Array(1), { signal });
	assert.deepEqual(saved.slice(-3), ["#1", "#2", "#3"]);
	assert.ok(saved.slice(0, -3).every((each) => each === "#1"));
	assert.equal(pauses, 8);
});

test("s3: a proxy of the environment is asked, as by Go programs, but not for this machine", async () => {
	await using cloud = await startFakeS3();
	const attrs = (endpoint: string) => ({
		bucket: "builds",
		endpoint_url: endpoint,
		use_path_style: "true",
		retry_max_attempts: "1",
		access_key_id: s3Login.accessKeyId,
		secret_access_key: s3Login.secretAccessKey,
	});
	const env = { AWS_REGION: "eu", http_proxy: cloud.url };
	// The fake service stands for a proxy: it takes whole addresses.
	await send(createS3Backend(env), attrs("http://s3.invalid"), cacheOf(small));
	assert.ok(cloud.objects.has(`/builds/blobs/${sha256(small)}`));
	await assert.rejects(
		send(createS3Backend({ ...env, no_proxy: ".invalid" }), attrs("http://s3.invalid"), cacheOf(small)),
		/ENOTFOUND|EAI_AGAIN/,
	);
	await send(
		createS3Backend({ ...env, http_proxy: "http://proxy.invalid" }),
		attrs(cloud.url),
		cacheOf(small),
	);
});

test("s3: upload_parallelism is how many blobs are sent at a time", () => {
	const backend = createS3Backend({});
	const attrs = { bucket: "b", region: "r" };
	assert.equal(backend.target?.({ ...attrs, upload_parallelism: "7" }, session).maxUploads, 7);
	assert.equal(backend.target?.(attrs, session).maxUploads, undefined);
});

test("azblob: without a key or a signature the builder's own login is used, never over plain http", async (t) => {
	const attrs = { account_url: "https://account.blob.invalid" };
	// Nothing but variables of the environment is looked at: no network, no programs.
	const before = process.env["AZURE_TOKEN_CREDENTIALS"];
	process.env["AZURE_TOKEN_CREDENTIALS"] = "EnvironmentCredential";
	t.after(() => {
		delete process.env["AZURE_TOKEN_CREDENTIALS"];
		Object.assign(process.env, before === undefined ? {} : { AZURE_TOKEN_CREDENTIALS: before });
	});
	await assert.rejects(send(createAzureBackend({}), attrs, cacheOf(small)), (error) => {
		assert.match(
			String(error),
			/failed to get properties of cache container buildkit-cache: .*EnvironmentCredential/,
		);
		return hasCode(error, "permission-denied");
	});
	assert.throws(
		() => createAzureBackend({}).target?.({ account_url: "http://account.blob.invalid" }, session),
		/without TLS needs secret_access_key or a shared access signature/,
	);
});

test("options that are wrong are told in BuildKit's words", () => {
	const env = {};
	const cases: readonly [CacheBackend, Readonly<Record<string, string>>, string][] = [
		[createS3Backend(env), {}, "bucket ($AWS_BUCKET) not set for s3 cache"],
		[createS3Backend(env), { bucket: "b" }, "region ($AWS_REGION) not set for s3 cache"],
		[
			createS3Backend(env),
			{ bucket: "b", region: "r", upload_parallelism: "0" },
			"upload_parallelism must be a positive integer",
		],
		[
			createS3Backend(env),
			{ bucket: "b", region: "r", retry_mode: "never" },
			'retry_mode must be "standard" or "adaptive"',
		],
		[createAzureBackend(env), {}, "account_url attribute is required for azblob cache"],
		[createGhaBackend(), {}, "token not set for github actions cache"],
		[createGhaBackend(), { token }, "url not set for github actions cache"],
		[createGhaBackend(), { token, url: "http://x", timeout: "long" }, "failed to parse timeout"],
		[createGhaBackend(), { token: ghaToken(1000), url: "http://x" }, "cache token expired"],
		[createGhaBackend(), { token: "x.y.z", url: "http://x" }, "invalid token"],
	];
	for (const [backend, attrs, message] of cases) {
		assert.throws(
			() => backend.target?.(attrs, session),
			(error: unknown) => (error as Error).message.includes(message),
			message,
		);
	}
});

test("exportCache: an empty result is no error and sends nothing", async () => {
	const target = {
		name: "t",
		form: { compression: "gzip", level: undefined, force: false } as const,
		sendBlob: () => assert.fail(),
		finish: () => assert.fail(),
	};
	assert.deepEqual(await exportCache(target, [[]], { mode: "max", sources: [], context }), {});
});
