import assert from "node:assert/strict";
import { test } from "node:test";
import type { CacheManager, FromLayersOptions, ImageLayer, ImmutableRef } from "../cache/cache.ts";
import { type BlobSources, createBlobSources } from "../content/blob-sources.ts";
import { collect } from "../content/bytes.ts";
import type { ContentStore } from "../content/content.ts";
import { createImageStore, type ImageStore } from "../content/image-store.ts";
import { createMemoryContentStore } from "../content/memory.ts";
import { openDatabase } from "../database/database.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import type { Platform } from "../oci/platform.ts";
import type { ProgressEvent } from "../progress/progress.ts";
import { createRegistryClient } from "../registry/client.ts";
import { type FakeRegistry, startFakeRegistry } from "../registry/fake-registry.ts";
import type { Session } from "../session/session.ts";
import { createImageSource } from "./image.ts";
import { createImageResolver } from "./image-resolver.ts";
import { createOciLayoutSource } from "./oci-layout.ts";
import type { ImageResolver, ResolveMode, Source, SourceOptions } from "./source.ts";

const signal = new AbortController().signal;
const amd64: Platform = { os: "linux", architecture: "amd64" };
const arm64: Platform = { os: "linux", architecture: "arm64" };
const vertex = sha256("vertex");
const silent: SourceOptions = { signal, vertex, progress: { write: () => {} } };
const layerBytes = Buffer.from("the bytes of a layer");
const diffIds = [sha256("diff 1"), sha256("diff 2")];

interface World {
	readonly registry: FakeRegistry;
	readonly content: ContentStore;
	readonly images: ImageStore;
	readonly sources: BlobSources;
	readonly images$: Source;
	readonly layouts: Source;
	readonly resolver: ImageResolver;
	readonly made: { layers: readonly ImageLayer[]; options: FromLayersOptions }[];
}

async function withWorld(body: (world: World) => Promise<void>): Promise<void> {
	await using registry = await startFakeRegistry();
	await using client = createRegistryClient({ retry: { delayMs: 0, maxDelayMs: 0 } });
	using database = openDatabase(":memory:");
	const content = createMemoryContentStore();
	const made: World["made"] = [];
	const cache: Pick<CacheManager, "fromLayers"> = {
		fromLayers: async (layers, options) => {
			made.push({ layers, options });
			return layers.length === 0 ? undefined : ({ kind: "immutable" } as ImmutableRef);
		},
	};
	const access = {
		registry: client,
		content,
		images: createImageStore(database),
		sources: createBlobSources(database),
	};
	await body({
		...access,
		registry,
		made,
		images$: createImageSource({ ...access, cache }),
		layouts: createOciLayoutSource({ content, cache }),
		resolver: createImageResolver(access),
	});
}

/** Puts an image of two layers into the registry; the second one of the config's platforms comes from `platform`. */
function addImage(registry: FakeRegistry, tag: string, platform: Platform, layers = 2): Descriptor {
	const config = registry.addBlob(
		Buffer.from(
			JSON.stringify({
				...platform,
				config: { Env: ["A=b"] },
				rootfs: { type: "layers", diff_ids: diffIds.slice(0, layers) },
				history: [
					{ created: "2024-01-02T03:04:05Z", created_by: "one" },
					{ created: "2024-01-02T03:04:05Z", empty_layer: true },
					{ created: "2024-01-02T03:04:06.5Z" },
				],
			}),
		),
	);
	const layer = registry.addBlob(layerBytes);
	const manifest = {
		schemaVersion: 2,
		mediaType: mediaTypes.ociManifest,
		config: { mediaType: mediaTypes.ociConfig, ...config },
		layers: Array.from({ length: layers }, () => ({ mediaType: mediaTypes.ociLayerGzip, ...layer })),
	};
	const added = registry.addManifest("base", tag, mediaTypes.ociManifest, manifest);
	return { mediaType: mediaTypes.ociManifest, digest: added.digest as Digest, size: added.size };
}

function open(
	{ images$, registry }: World,
	name: string,
	attrs: Record<string, string> = {},
	sessions: readonly Session[] = [],
) {
	return images$.open({
		identifier: `docker-image://${registry.host}/${name}`,
		attrs,
		platform: amd64,
		sessions: () => sessions,
	});
}

const resolve = (
	{ resolver, registry }: World,
	name: string,
	mode: ResolveMode = "default",
	platform: Platform = amd64,
	sessions: readonly Session[] = [],
) =>
	resolver.resolve({ ref: `${registry.host}/${name}`, platform, mode, sessions: () => sessions }, { signal });

test("image: keys as BuildKit computes them, then the layers with digests and times, none of them fetched", () =>
	withWorld(async (world) => {
		const { registry, made } = world;
		const root = addImage(registry, "v1", amd64);
		const events: ProgressEvent[] = [];
		const options = { ...silent, progress: { write: (event: ProgressEvent) => events.push(event) } };
		const instance = open(world, "base:v1");
		const text = `{"Digest":"${root.digest}","OS":"linux","Arch":"amd64"}`;
		assert.deepEqual(await instance.cacheKey(0, options), { key: sha256(text), last: false });
		assert.deepEqual(await instance.cacheKey(1, options), {
			key: sha256(`${diffIds[0]} ${diffIds[1]}`),
			last: true,
		});
		assert.equal((await instance.snapshot(options))?.kind, "immutable");
		assert.equal(made[0]?.options.description, `pulled from ${registry.host}/base:v1`);
		assert.deepEqual(
			made[0]?.layers.map(({ diffId, createdAt }) => [diffId, createdAt]),
			[
				[diffIds[0], Date.parse("2024-01-02T03:04:05Z")],
				[diffIds[1], Date.parse("2024-01-02T03:04:06.5Z")],
			],
		);
		assert.equal(registry.log.length, 3, registry.log.join("\n"));
		assert.deepEqual(
			events.map(
				(event) => event.kind === "status" && [event.status.id, event.status.completed !== undefined],
			),
			[
				[`resolve ${registry.host}/base:v1`, false],
				[`resolve ${registry.host}/base:v1`, true],
			],
		);
		const provider = made[0]?.options.provider;
		const layer = made[0]?.layers[0]?.descriptor;
		assert.ok(provider !== undefined && layer !== undefined);
		const read = async () => collect(provider.read(layer, { signal }), { maxBytes: 1000, what: "layer" });
		assert.deepEqual(await read(), layerBytes);
		assert.equal(registry.log.length, 4);
		assert.deepEqual(world.sources.repositories(layer.digest), [`${registry.host}/base`]);
	}));

test("image: a layer of an image that was built here is read from its base's repository", () =>
	withWorld(async (world) => {
		const { registry, images, sources, made } = world;
		const root = addImage(registry, "v1", amd64);
		await resolve(world, "base:v1");
		images.put(`${registry.host}/built:v1`, root);
		const instance = open(world, "built:v1", { "image.resolvemode": "local" });
		await instance.snapshot(silent);
		const layer = made[0]?.layers[0]?.descriptor;
		const provider = made[0]?.options.provider;
		assert.ok(provider !== undefined && layer !== undefined);
		sources.add(layer.digest, "127.0.0.1:1/gone");
		sources.add(layer.digest, `${registry.host}/base`);
		sources.add(layer.digest, "127.0.0.1:1/newer");
		registry.log.length = 0;
		assert.deepEqual(
			await collect(provider.read(layer, { signal }), { maxBytes: 100, what: "layer" }),
			layerBytes,
		);
		assert.deepEqual(registry.log, [`GET /v2/base/blobs/${layer.digest}`]);
	}));

test("image: attributes limit layers, check the digest and set the type of records", () =>
	withWorld(async (world) => {
		const root = addImage(world.registry, "v1", amd64);
		const limited = open(world, "base:v1", { "image.layerlimit": "1", "image.recordtype": "frontend" });
		const text = `{"Digest":"${root.digest}","OS":"linux","Arch":"amd64","Limit":1}`;
		assert.equal((await limited.cacheKey(0, silent)).key, sha256(text));
		assert.equal((await limited.cacheKey(1, silent)).key, diffIds[0]);
		await limited.snapshot(silent);
		assert.equal(world.made[0]?.layers.length, 1);
		assert.equal(world.made[0]?.options.recordType, "frontend");
		const over = open(world, "base:v1", { "image.layerlimit": "3" });
		await assert.rejects(
			over.cacheKey(0, silent),
			/layer limit 3 is greater than the number of layers in the image 2/,
		);
		await open(world, "base:v1", { "image.checksum": root.digest }).cacheKey(0, silent);
		const other = open(world, "base:v1", { "image.checksum": sha256("other") });
		await assert.rejects(other.cacheKey(0, silent), /does not match expected checksum/);
		for (const [key, value, message] of [
			["image.layerlimit", "0", "invalid layer limit 0"],
			["image.checksum", "sha256:1", "invalid image checksum sha256:1"],
			["image.recordtype", "odd", "invalid record type odd"],
			["image.resolvemode", "odd", "invalid resolvemode: odd"],
		] as const) {
			assert.throws(
				() => open(world, "base:v1", { [key]: value }),
				new SlipwayError("invalid-argument", message),
			);
		}
		assert.throws(() => open(world, "Base"), /could not parse reference ".*Base": .*must be lowercase/);
	}));

test("image: without layers there is no tree, and one key", () =>
	withWorld(async (world) => {
		const root = addImage(world.registry, "empty", amd64, 0);
		const instance = open(world, "base:empty");
		const key = sha256(`{"Digest":"${root.digest}","OS":"linux","Arch":"amd64"}`);
		assert.deepEqual(await instance.cacheKey(1, silent), { key, last: true });
		assert.equal(await instance.snapshot(silent), undefined);
	}));

test("resolver: the platform's config out of an index, also where the index does not say the platform", () =>
	withWorld(async (world) => {
		const { registry } = world;
		const arm = addImage(registry, "arm", arm64);
		const amd = addImage(registry, "amd", amd64);
		const index = (manifests: readonly Descriptor[]) =>
			registry.addManifest("base", "multi", mediaTypes.ociIndex, {
				schemaVersion: 2,
				mediaType: mediaTypes.ociIndex,
				manifests,
			});
		const architecture = (bytes: Uint8Array): string =>
			JSON.parse(Buffer.from(bytes).toString()).architecture;
		const attestation: Descriptor = { ...arm, platform: { os: "unknown", architecture: "unknown" } };
		const { digest } = index([attestation, { ...arm, platform: arm64 }, { ...amd, platform: amd64 }]);
		const found = await resolve(world, "base:multi");
		assert.equal(found.ref, `${registry.host}/base:multi@${digest}`);
		assert.equal(found.digest, digest);
		assert.equal(architecture(found.config), "amd64");
		assert.equal(architecture((await resolve(world, "base:multi", "default", arm64)).config), "arm64");
		const s390x = { os: "linux", architecture: "s390x" };
		await assert.rejects(
			resolve(world, "base:multi", "default", s390x),
			new SlipwayError("not-found", `no match for platform in manifest ${digest}: not found`),
		);
		index([arm, amd]);
		assert.equal(architecture((await resolve(world, "base:multi")).config), "amd64");
	}));

test("resolver: a pinned digest needs no registry again, and only for the repository it came from", () =>
	withWorld(async (world) => {
		const { registry } = world;
		addImage(registry, "v1", amd64);
		const first = await resolve(world, "base:v1");
		const pinned = first.ref.slice(registry.host.length + 1);
		registry.log.length = 0;
		assert.deepEqual(await resolve(world, pinned), first);
		assert.equal((await open(world, pinned).cacheKey(1, silent)).last, true);
		assert.deepEqual(registry.log, []);
		await assert.rejects(resolve(world, `other@${first.digest}`), (thrown) => hasCode(thrown, "not-found"));
		// What was damaged on disk is had again.
		await world.content.delete(first.digest);
		assert.deepEqual(await resolve(world, pinned), first);
		assert.equal(registry.log.length, 2);
	}));

test("resolver: modes, and the image store where the registry fails", () =>
	withWorld(async (world) => {
		const { registry, images, content } = world;
		const remote = addImage(registry, "v1", amd64);
		const local = addImage(registry, "other", amd64, 1);
		const name = `${registry.host}/base:v1`;
		await resolve(world, "base:other");
		images.put(name, local);
		assert.equal((await resolve(world, "base:v1")).digest, remote.digest);
		assert.equal((await resolve(world, "base:v1", "pull")).digest, remote.digest);
		assert.equal((await resolve(world, "base:v1", "local")).digest, local.digest);
		registry.lie = (_, response) => {
			response.writeHead(404).end();
			return true;
		};
		assert.equal((await resolve(world, "base:v1")).digest, local.digest);
		assert.equal((await resolve(world, `base:v1@${local.digest}`)).digest, local.digest);
		await assert.rejects(
			resolve(world, "base:v1", "pull"),
			new SlipwayError("not-found", `${name}: not found`),
		);
		await assert.rejects(resolve(world, `base:v1@${sha256("x")}`), (thrown) => hasCode(thrown, "not-found"));
		for await (const { digest } of content.list()) {
			await content.delete(digest);
		}
		await assert.rejects(resolve(world, "base:v1"), (thrown) => hasCode(thrown, "not-found"));
	}));

test("resolver: one answer for all who ask at once, errors are not kept, an abort leaves", () =>
	withWorld(async (world) => {
		const { registry } = world;
		await assert.rejects(resolve(world, "base:v1"), /base:v1: not found/);
		addImage(registry, "v1", amd64);
		registry.log.length = 0;
		await Promise.all([resolve(world, "base:v1"), resolve(world, "base:v1"), resolve(world, "base:v1")]);
		assert.equal(registry.log.length, 3);
		registry.lie = () => true;
		const controller = new AbortController();
		const request = {
			ref: `${registry.host}/base:v1`,
			platform: amd64,
			mode: "pull",
			sessions: () => [],
		} as const;
		const hanging = world.resolver.resolve(request, { signal: controller.signal });
		controller.abort(new SlipwayError("canceled", "enough"));
		await assert.rejects(hanging, /enough/);
	}));

function session(id: string, parts: Partial<Session>): Session {
	return {
		id,
		closed: signal,
		auth: { credentials: async () => undefined },
		contentStore: () => undefined,
		...parts,
	} as Session;
}

test("image: logins come from the sessions, the first that has one", () =>
	withWorld(async (world) => {
		const { registry } = world;
		addImage(registry, "v1", amd64);
		const header = `Basic ${Buffer.from("u:p").toString("base64")}`;
		registry.auth = { accepts: (sent) => sent === header, challenge: "Basic" };
		await assert.rejects(resolve(world, "base:v1"), (thrown) => hasCode(thrown, "unauthenticated"));
		const without = session("one", {
			auth: { credentials: () => Promise.reject(new SlipwayError("not-found", "no auth service")) },
		});
		const having = session("two", {
			auth: { credentials: async () => ({ kind: "basic", username: "u", password: "p" }) },
		});
		await assert.rejects(resolve(world, "base:v1", "default", amd64, [without]), /401/);
		await resolve(world, "base:v1", "default", amd64, [without, having]);
		await assert.rejects(resolve(world, "base:v1", "default", amd64, [without]), /401/);
	}));

test("image: manifests that lie are refused", () =>
	withWorld(async (world) => {
		const { registry } = world;
		const root = addImage(registry, "v1", amd64);
		const stored = registry.manifests.get(`base@${root.digest}`);
		const text = Buffer.from(stored?.bytes ?? []).toString();
		const manifest = JSON.parse(text);
		const variant = async (change: object, message: RegExp): Promise<void> => {
			registry.addManifest("base", "odd", mediaTypes.ociManifest, { ...manifest, ...change });
			await assert.rejects(open(world, "base:odd").cacheKey(0, silent), message);
		};
		await variant({ layers: manifest.layers.slice(1) }, /has 1 layers but 2 diff ids/);
		await variant(
			{ layers: manifest.layers.map((l: object) => ({ ...l, mediaType: "x/y" })) },
			/unsupported media type "x\/y"/,
		);
		await variant(
			{ config: { ...manifest.config, size: 3 } },
			/document .* of .* has \d+ bytes instead of 3/,
		);
		const rubbish = { mediaType: mediaTypes.ociConfig, ...registry.addBlob(Buffer.from("[]")) };
		await variant({ config: { ...rubbish, size: 9 << 20 } }, /document sha256:.* has 9437184 bytes/);
		await variant({ config: { ...rubbish, size: 3 } }, /registry has 2 bytes instead of 3/);
		await variant({ config: rubbish }, /failed to parse image config of .*base:odd/);
		let inner = { mediaType: mediaTypes.ociIndex as string, digest: root.digest as string, size: root.size };
		for (let i = 0; i < 6; i++) {
			const document = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [inner] };
			inner = {
				mediaType: mediaTypes.ociIndex,
				...registry.addManifest("base", "deep", mediaTypes.ociIndex, document),
			};
		}
		await assert.rejects(open(world, "base:deep").cacheKey(0, silent), /nested deeper than 4 levels/);
	}));

test("oci-layout: read from the client's store, verified, by digest only", () =>
	withWorld(async (world) => {
		const { registry, layouts, made, resolver } = world;
		const root = addImage(registry, "v1", amd64);
		const client = createMemoryContentStore();
		const put = (bytes: Uint8Array) =>
			client.write(
				(async function* () {
					yield bytes;
				})(),
				{ signal },
			);
		await put(registry.manifests.get("base:v1")?.bytes ?? new Uint8Array());
		for (const bytes of registry.blobs.values()) {
			await put(bytes);
		}
		const owner = session("owner", { contentStore: (id) => (id === "store" ? client : undefined) });
		const openLayout = (name: string, attrs: Record<string, string>, sessions: readonly Session[]) =>
			layouts.open({ identifier: `oci-layout://${name}`, attrs, platform: amd64, sessions: () => sessions });
		const name = `store:latest@${root.digest}`;
		const attrs = { "oci.store": "store" };
		assert.throws(() => openLayout("store:latest", attrs, []), /reference "store:latest" must have digest/);
		await assert.rejects(openLayout(name, attrs, []).cacheKey(0, silent), /no active session to read/);
		const stranger = openLayout(name, { ...attrs, "oci.session": "gone" }, [owner]);
		await assert.rejects(stranger.cacheKey(0, silent), /no active session for gone/);
		await assert.rejects(
			openLayout(name, { "oci.store": "x" }, [owner]).cacheKey(0, silent),
			/the client has no OCI layout "x"/,
		);
		const instance = openLayout(name, attrs, [session("other", {}), owner]);
		assert.equal((await instance.cacheKey(1, silent)).key, sha256(`${diffIds[0]} ${diffIds[1]}`));
		await instance.snapshot(silent);
		const layer = made[0]?.layers[0]?.descriptor;
		const provider = made[0]?.options.provider;
		assert.ok(provider !== undefined && layer !== undefined);
		assert.deepEqual(
			await collect(provider.read(layer, { signal }), { maxBytes: 100, what: "layer" }),
			layerBytes,
		);
		const resolved = await resolver.resolve(
			{
				ref: `docker.io/library/name@${root.digest}`,
				platform: amd64,
				mode: "default",
				sessions: () => [owner],
				store: { sessionId: undefined, storeId: "store" },
			},
			{ signal },
		);
		assert.equal(resolved.digest, root.digest);
		const other = `store@${sha256("missing")}`;
		await assert.rejects(
			openLayout(other, attrs, [owner]).cacheKey(0, silent),
			/not found in the client's OCI layout/,
		);
		assert.equal(registry.log.length, 0);
	}));
