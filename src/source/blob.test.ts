import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { type CacheFixture, openFixture } from "../cache/cache-fixture.ts";
import { chunksOf } from "../content/bytes.ts";
import type { ContentStore } from "../content/content.ts";
import { createMemoryContentStore } from "../content/memory.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { createRegistryClient } from "../registry/client.ts";
import { type FakeRegistry, startFakeRegistry } from "../registry/fake-registry.ts";
import { createBlobSource } from "./blob.ts";
import type { Source } from "./source.ts";
import { fakeSession, recordingOptions } from "./source-fixture.ts";

const bytes = Buffer.from("the bytes of a blob");
const digest = sha256(bytes);
const hex = digest.slice("sha256:".length);
const missing = `sha256:${"1".repeat(64)}`;

interface World {
	readonly fixture: CacheFixture;
	readonly registry: FakeRegistry;
	readonly source: Source;
	/** What the session lends as `shop`. */
	readonly lent: ContentStore;
}

async function withWorld(body: (world: World) => Promise<void>): Promise<void> {
	await using fixture = await openFixture("native");
	await using registry = await startFakeRegistry();
	await using client = createRegistryClient({ retry: { delayMs: 0, maxDelayMs: 0 } });
	const source = createBlobSource({ registry: client, cache: fixture.cache });
	await body({ fixture, registry, source, lent: createMemoryContentStore() });
}

async function fetchBlob(
	{ source, fixture, lent }: World,
	identifier: string,
	attrs: Record<string, string> = {},
): Promise<{ readonly key: string; readonly tree: string[] }> {
	const session = { ...fakeSession({}), contentStore: (id: string) => (id === "shop" ? lent : undefined) };
	const auth = { credentials: async () => undefined };
	const instance = source.open({
		identifier,
		attrs,
		platform: undefined,
		sessions: () => [{ ...session, auth }],
	});
	const options = recordingOptions();
	const { key, last } = await instance.cacheKey(0, options);
	assert.equal(last, true);
	await using ref = await instance.snapshot(options);
	assert.ok(ref !== undefined);
	const tree = await fixture.read(ref, (dir) =>
		readdirSync(dir).map((name) => {
			const path = `${dir}/${name}`;
			const { mode, uid, gid, mtimeMs } = statSync(path);
			return `${name} ${(mode & 0o7777).toString(8)} ${uid}:${gid} ${mtimeMs / 1000} ${readFileSync(path)}`;
		}),
	);
	return { key, tree };
}

async function rejects(work: Promise<unknown>, code: string, message: RegExp | string): Promise<void> {
	await assert.rejects(work, (thrown) => {
		assert.ok(thrown instanceof SlipwayError, String(thrown));
		if (typeof message === "string") {
			assert.equal(thrown.message, message);
		} else {
			assert.match(thrown.message, message);
		}
		assert.equal(thrown.code, code);
		return true;
	});
}

test("blob: of a registry, with BuildKit's key, name, mode, owner and time", async () => {
	await withWorld(async (world) => {
		world.registry.addBlob(bytes);
		const name = `docker-image+blob://${world.registry.host}/shop/base@${digest}`;
		const plain = await fetchBlob(world, name);
		assert.deepEqual(plain.tree, [`${hex} 600 0:0 0 ${bytes}`]);
		assert.equal(plain.key, sha256(`{"Digest":"${digest}","Filename":"","Perm":0,"UID":0,"GID":0}`));
		const dressed = await fetchBlob(world, name, {
			"http.filename": "../a/run.sh",
			"http.perm": "0755",
			"http.uid": "12",
			"http.gid": "34",
		});
		assert.deepEqual(dressed.tree, [`run.sh 755 12:34 0 ${bytes}`]);
		assert.equal(
			dressed.key,
			sha256(`{"Digest":"${digest}","Filename":"run.sh","Perm":493,"UID":12,"GID":34}`),
		);
	});
});

test("blob: its key is known without asking, its absence and damage are found when it is wanted", async () => {
	await withWorld(async (world) => {
		const { registry, source } = world;
		const identifier = `docker-image+blob://${registry.host}/shop/base@${missing}`;
		const instance = source.open({ identifier, attrs: {}, platform: undefined, sessions: () => [] });
		await instance.cacheKey(0, recordingOptions());
		assert.deepEqual(registry.log, []);
		await rejects(
			fetchBlob(world, identifier),
			"not-found",
			`${registry.host}/shop/base@${missing}: not found`,
		);
		registry.blobs.set(missing, bytes);
		await rejects(fetchBlob(world, identifier), "failed-precondition", /digest mismatch sha256:/);
	});
});

test("blob: of a client's OCI layout", async () => {
	await withWorld(async (world) => {
		await world.lent.write(chunksOf(bytes), { signal: new AbortController().signal });
		const identifier = `oci-layout+blob://shop@${digest}`;
		const { tree } = await fetchBlob(world, identifier, { "oci.store": "shop", "http.filename": "x" });
		assert.deepEqual(tree, [`x 600 0:0 0 ${bytes}`]);
		await rejects(
			fetchBlob(world, identifier, { "oci.store": "other" }),
			"not-found",
			/no OCI layout "other"/,
		);
		await rejects(
			fetchBlob(world, identifier, { "oci.store": "shop", "oci.session": "gone" }),
			"not-found",
			/no active session for gone/,
		);
		const unknown: Digest = `sha256:${"1".repeat(64)}` as Digest;
		await rejects(
			fetchBlob(world, `oci-layout+blob://shop@${unknown}`, { "oci.store": "shop" }),
			"not-found",
			`content ${unknown}: not found`,
		);
	});
});

test("blob: bad names and attributes are refused", async () => {
	await withWorld(async (world) => {
		const cases: readonly (readonly [string, Record<string, string>, RegExp])[] = [
			["docker-image+blob://shop/base", {}, /^object required$/],
			["docker-image+blob://shop/base:1", {}, /^invalid reference digest: invalid checksum digest format$/],
			[`docker-image+blob://shop/base:1@${digest}`, {}, /^invalid image blob reference shop\/base:1@/],
			["docker-image+blob://", {}, /^invalid reference format$/],
			[`docker-image+blob://a@${digest}`, { "http.perm": "rw" }, /^invalid http.perm "rw"/],
			[`docker-image+blob://a@${digest}`, { "image.recordtype": "odd" }, /^invalid record type odd$/],
			[`oci-layout+blob://a@${digest}`, {}, /^oci-layout blob source requires store id$/],
		];
		for (const [identifier, attrs, message] of cases) {
			await rejects((async () => fetchBlob(world, identifier, attrs))(), "invalid-argument", message);
		}
	});
});
