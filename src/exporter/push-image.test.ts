import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { parseDigest, sha256 } from "../oci/digest.ts";
import { formatPlatform, hostPlatform } from "../oci/platform.ts";
import { type FakeRegistry, startFakeRegistry } from "../registry/fake-registry.ts";
import {
	buildResult,
	createTestServices,
	exportContext,
	fakeRef,
	layerOf,
	layerTar,
	platformResult,
	statusNames,
	type TestServices,
} from "./export.fixture.ts";
import { createImageExporter } from "./image-exporter.ts";

const host = formatPlatform(hostPlatform());
const base = layerOf(layerTar("base", "below"));
const top = layerOf(layerTar("top", "above"));

async function withRegistry(
	body: (registry: FakeRegistry, services: TestServices) => Promise<void>,
): Promise<void> {
	await using services = await createTestServices();
	await using registry = await startFakeRegistry();
	await body(registry, services);
}

function result(layers = [base, top]): ReturnType<typeof buildResult> {
	return buildResult([platformResult(host, fakeRef(layers))]);
}

async function push(
	services: TestServices,
	attrs: Readonly<Record<string, string>>,
	made: ReturnType<typeof result> = result(),
): Promise<{
	readonly digest: string;
	readonly statuses: readonly string[];
	readonly name: string | undefined;
}> {
	const context = exportContext();
	const response = await createImageExporter(services)({ push: "true", ...attrs }).export(made, context);
	return {
		digest: response["containerimage.digest"] ?? "",
		name: response["image.name"],
		statuses: statusNames(context.events).filter((name) => name.startsWith("push")),
	};
}

const putsOf = (registry: FakeRegistry): readonly string[] =>
	registry.log.filter((line) => line.startsWith("PUT") && line.includes("/blobs/"));

test("push: blobs, then the manifest under each name's tag; what is there is not sent again", () =>
	withRegistry(async (registry, services) => {
		const names = [`${registry.host}/a/b:1`, `${registry.host}/a/b`];
		const pushed = await push(services, { name: names.join(",") });
		assert.deepEqual(
			[...registry.manifests.keys()].sort(),
			["a/b:1", "a/b:latest", `a/b@${pushed.digest}`].sort(),
		);
		assert.equal(registry.blobs.size, 3);
		assert.equal(putsOf(registry).length, 3);
		assert.equal(pushed.name, names.join(","));
		assert.deepEqual(pushed.statuses, [
			"pushing layers",
			`pushing manifest for ${registry.host}/a/b:1@${pushed.digest}`,
			`pushing manifest for ${registry.host}/a/b:latest@${pushed.digest}`,
		]);
		const tagged = registry.log.findIndex((line) => line.startsWith("PUT") && line.includes("/manifests/1"));
		assert.ok(registry.log.slice(0, tagged).filter((line) => line.startsWith("PUT")).length === 3);
		registry.log.length = 0;
		await push(services, { name: `${registry.host}/a/b:2` });
		assert.deepEqual(putsOf(registry), []);
	}));

test("push: by digest, without a tag", () =>
	withRegistry(async (registry, services) => {
		const { digest, statuses } = await push(services, {
			name: `${registry.host}/a/b`,
			"push-by-digest": "true",
		});
		assert.deepEqual([...registry.manifests.keys()], [`a/b@${digest}`]);
		assert.equal(statuses[1], `pushing manifest for ${registry.host}/a/b`);
	}));

test("push: an index after the manifests that it names, which have no tag", () =>
	withRegistry(async (registry, services) => {
		const made = buildResult(
			[platformResult("linux/amd64", fakeRef([base])), platformResult("linux/arm64", fakeRef([base, top]))],
			{ multiPlatform: true },
		);
		const { digest } = await push(services, { name: `${registry.host}/multi:1` }, made);
		const index = JSON.parse(Buffer.from(registry.manifests.get("multi:1")?.bytes ?? []).toString());
		assert.equal(index.manifests.length, 2);
		assert.equal(registry.manifests.size, 4);
		const last = registry.log.findLast((line) => line.startsWith("PUT"));
		assert.equal(last, "PUT /v2/multi/manifests/1");
		for (const { digest: child } of index.manifests) {
			assert.ok(registry.manifests.has(`multi@${child}`));
		}
		assert.ok(registry.manifests.has(`multi@${digest}`));
	}));

test("push: a layer that another repository has is mounted, and never fetched", () =>
	withRegistry(async (registry, services) => {
		registry.addBlob(base.bytes ?? new Uint8Array());
		registry.lie = (request, response) => {
			if (request.method === "HEAD" && request.url?.includes(base.digest) === true) {
				response.writeHead(404).end();
				return true;
			}
			return false;
		};
		services.sources.add(base.digest, `${registry.host}/library/base`);
		services.sources.add(base.digest, "docker.io/library/base");
		const { bytes: _, ...lazy } = base;
		await push(services, { name: `${registry.host}/app:1` }, result([lazy, top]));
		const mounts = registry.log.filter((line) => line.includes("mount="));
		assert.deepEqual(mounts, [
			`POST /v2/app/blobs/uploads/?mount=${encodeURIComponent(base.digest)}&from=library%2Fbase`,
		]);
		assert.ok(registry.manifests.has("app:1"));
		assert.equal(await services.content.info(base.digest), undefined);
		assert.ok(services.sources.has(base.digest, `${registry.host}/app`));
		assert.ok(services.stored.has(`${registry.host}/app:1`));
	}));

test("push: a layer that is lent by others stays where it is", () =>
	withRegistry(async (registry, services) => {
		const foreign = {
			...base,
			mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
			urls: ["https://example.com/layer"],
		};
		const name = `${registry.host}/windows:1`;
		await push(services, { name, "prefer-nondist-layers": "true" }, result([foreign, top]));
		assert.equal(registry.blobs.has(base.digest), false);
		await push(services, { name }, result([foreign, top]));
		assert.equal(registry.blobs.has(base.digest), true);
	}));

test("push: a refusal names image, repository and what to do, and nothing is tagged", () =>
	withRegistry(async (registry, services) => {
		let uploads = 0;
		registry.lie = (request, response) => {
			if (request.method !== "POST" || ++uploads < 2) {
				return false;
			}
			response.writeHead(403).end();
			return true;
		};
		await assert.rejects(push(services, { name: `${registry.host}/a/b:1` }), (thrown) => {
			assert.match(
				String(thrown),
				/failed to push 127\.0\.0\.1:\d+\/a\/b:1: .*403 Forbidden: registry .* does not let this login push repository a\/b/,
			);
			return hasCode(thrown, "permission-denied");
		});
		assert.equal(registry.manifests.size, 0);
	}));

test("push: a blob that was damaged on disk is removed and named", () =>
	withRegistry(async (registry, services) => {
		const bytes = Buffer.from(top.bytes ?? []);
		await services.content.write(
			(async function* () {
				yield bytes;
			})(),
			{ signal: new AbortController().signal },
		);
		writeFileSync(services.content.path(parseDigest(top.digest)), Buffer.alloc(bytes.length));
		const ref = fakeRef([top]);
		const damaged: typeof ref = {
			...ref,
			blobs: async (options) =>
				(await ref.blobs(options)).map((blob) => ({
					...blob,
					provider: { read: (d, o) => services.content.read(d.digest, o) },
				})),
		};
		const made = buildResult([platformResult(host, damaged)]);
		await assert.rejects(push(services, { name: `${registry.host}/a:1` }, made), (thrown) => {
			assert.match(String(thrown), new RegExp(`blob ${top.digest} was damaged in the content store`));
			return hasCode(thrown, "data-loss");
		});
		assert.equal(await services.content.info(parseDigest(top.digest)), undefined);
		assert.equal(registry.blobs.has(sha256(Buffer.alloc(bytes.length))), false);
	}));

test("push: bytes that come from elsewhere and are not the layer's are known as such when the registry refuses them", () =>
	withRegistry(async (registry, services) => {
		const ref = fakeRef([top]);
		const wrong: typeof ref = {
			...ref,
			blobs: async (options) =>
				(await ref.blobs(options)).map((blob) => ({
					...blob,
					provider: {
						read: async function* () {
							yield Buffer.alloc(blob.descriptor.size);
						},
					},
				})),
		};
		const made = buildResult([platformResult(host, wrong)]);
		await assert.rejects(push(services, { name: `${registry.host}/a:1` }, made), (thrown) => {
			assert.match(
				String(thrown),
				/failed to push .*: layer sha256:\w+ to push has other bytes where it comes from/,
			);
			return hasCode(thrown, "data-loss");
		});
	}));
