import assert from "node:assert/strict";
import {
	chmodSync,
	existsSync,
	lstatSync,
	readdirSync,
	rmSync,
	statSync,
	utimesSync as utimes,
	writeFileSync,
} from "node:fs";
import { describe, it } from "node:test";
import { type Entry, makeTar } from "../archive/tar-fixture.ts";
import type { ContentProvider } from "../content/content.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import type { ProgressEvent } from "../progress/progress.ts";
import type { ImageLayer, ImmutableRef } from "./cache.ts";
import { openFixture } from "./cache-fixture.ts";

/** Of the tars that BuildKit writes for the same two layers. */
const expectedDiffIds: readonly string[] = [
	"sha256:dd7e7bfa374d2f460a588d9341a30af8b3599cc6158c20343bdd2ce1be6ea916",
	"sha256:8d5af9248b45507dc36999e77ad16c9cd3fb04d898b8716766f73937832c14e8",
];

interface Registry extends ContentProvider {
	/** Digests in the order in which they were asked for. */
	readonly reads: Digest[];
	readonly blobs: Map<Digest, Uint8Array>;
}

function makeRegistry(): Registry {
	const blobs = new Map<Digest, Uint8Array>();
	const reads: Digest[] = [];
	return {
		blobs,
		reads,
		async *read({ digest }: Descriptor) {
			reads.push(digest);
			const bytes = blobs.get(digest);
			if (bytes === undefined) {
				throw new SlipwayError("not-found", `no blob ${digest}`);
			}
			for (let at = 0; at < bytes.length; at += 1000) {
				yield bytes.subarray(at, at + 1000);
			}
		},
	};
}

function addLayer(registry: Registry, ...entries: readonly Entry[]): ImageLayer {
	const tar = makeTar(...entries);
	const digest = sha256(tar);
	registry.blobs.set(digest, tar);
	return { descriptor: { mediaType: mediaTypes.ociLayer, digest, size: tar.length }, diffId: digest };
}

for (const kind of ["overlayfs", "native"] as const) {
	describe(`image layers, ${kind}`, () => {
		it("are fetched and unpacked once, when files are asked for", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const registry = makeRegistry();
			const layers = [
				addLayer(
					registry,
					{ name: "etc/", kind: "directory", mode: 0o700, uid: 7, modified: { seconds: 9, nanoseconds: 0 } },
					{ name: "etc/one", data: "1" },
					{ name: "etc/gone", data: "1" },
				),
				addLayer(registry, { name: "etc/deep/two", data: "2" }, { name: "etc/.wh.gone" }),
				addLayer(
					registry,
					{ name: "link", kind: "hardlink", linkName: "etc/one" },
					{ name: "three", data: "3" },
				),
			];
			const events: ProgressEvent[] = [];
			const progress = { write: (event: ProgressEvent) => void events.push(event) };
			const vertex = sha256("vertex");
			const options = { provider: registry, description: "image", signal, progress, vertex };
			const ref = (await cache.fromLayers(layers, options)) as ImmutableRef;
			assert.equal(ref.isReal(), false);
			assert.deepEqual(registry.reads, []);
			const [lazy] = await ref.blobs({ compression: "gzip", force: false, signal });
			assert.deepEqual(lazy?.descriptor, layers[0]?.descriptor);
			assert.deepEqual(registry.reads, []);
			await Promise.all([ref.mounts({ signal }), ref.mounts({ signal })]);
			assert.equal(registry.reads.length, 3);
			assert.ok(ref.isReal());
			await fixture.read(ref, (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["etc", "link", "three"]);
				assert.deepEqual(readdirSync(`${dir}/etc`).sort(), ["deep", "one"]);
				const etc = statSync(`${dir}/etc`);
				assert.deepEqual([etc.mode & 0o7777, etc.uid], [0o700, 7]);
				if (kind === "overlayfs") {
					assert.equal(etc.mtimeMs, 9000);
				}
				assert.equal(lstatSync(`${dir}/link`).ino, lstatSync(`${dir}/etc/one`).ino);
			});
			const names = new Set(events.flatMap((event) => (event.kind === "status" ? event.status.id : [])));
			assert.ok(names.has(layers[0]?.diffId as string) && names.has(`extracting ${layers[2]?.diffId}`));

			// Another image on the same layers shares them, also after a restart, and fetches only what is new.
			await ref.release();
			await fixture.reopen();
			const more = [...layers.slice(0, 2), addLayer(registry, { name: "four", data: "4" })];
			const other = (await fixture.cache.fromLayers(more, { ...options })) as ImmutableRef;
			await fixture.read(other, (dir) => assert.deepEqual(readdirSync(dir).sort(), ["etc", "four"]));
			assert.equal(registry.reads.length, 4);
			assert.deepEqual(
				(await other.layers({ signal })).map((layer) => layer.id).slice(0, 2),
				(await ((await fixture.cache.get(ref.id)) as ImmutableRef).layers({ signal }))
					.map((layer) => layer.id)
					.slice(0, 2),
			);
			assert.equal(await fixture.cache.fromLayers([], options), undefined);
		});

		it("name the layer that is damaged, and keep the others", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const registry = makeRegistry();
			const layers = [
				addLayer(registry, { name: "a", data: "a" }),
				addLayer(registry, { name: "b", data: "b" }),
			];
			const options = { provider: registry, description: "image", signal };
			const wrong = [{ ...(layers[0] as ImageLayer), diffId: sha256("other") }, layers[1] as ImageLayer];
			const ref = (await cache.fromLayers(wrong, options)) as ImmutableRef;
			await assert.rejects(ref.mounts({ signal }), (error: Error) =>
				error.message.startsWith(`failed to extract layer ${layers[0]?.descriptor.digest}`),
			);
			assert.ok(await fixture.content.info(layers[1]?.descriptor.digest as Digest));
		});

		it("that are not what they say are refused, and fetched again", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const registry = makeRegistry();
			const layer = addLayer(registry, { name: "file", data: "1" });
			const { digest } = layer.descriptor;
			const good = registry.blobs.get(digest) as Uint8Array;
			registry.blobs.set(digest, Buffer.from(good).fill("x", 600, 601));
			const options = { provider: registry, description: "image", signal };
			const ref = (await cache.fromLayers([layer], options)) as ImmutableRef;
			await assert.rejects(ref.mounts({ signal }), (error) => hasCode(error, "data-loss"));
			assert.equal(ref.isReal(), false);
			registry.blobs.set(digest, good);
			assert.deepEqual(await fixture.read(ref, (dir) => readdirSync(dir)), ["file"]);

			// A diff id that is not that of the tar.
			const wrong = { ...layer, diffId: sha256("other") };
			const lying = (await cache.fromLayers([wrong], options)) as ImmutableRef;
			await assert.rejects(lying.mounts({ signal }), (error) => hasCode(error, "data-loss"));
			assert.deepEqual((await fixture.snapshotter.list()).length, 1);
		});

		it("whose files are gone are unpacked again", async () => {
			await using fixture = await openFixture(kind);
			const { signal } = fixture;
			const registry = makeRegistry();
			const layer = addLayer(registry, { name: "file", data: "1" });
			const options = { provider: registry, description: "image", signal };
			const ref = (await fixture.cache.fromLayers([layer], options)) as ImmutableRef;
			await ref.mounts({ signal });
			await ref.release();
			rmSync(`${fixture.folder}/snapshots`, { recursive: true });
			await fixture.reopen({ kill: true });
			const again = (await fixture.cache.get(ref.id)) as ImmutableRef;
			assert.deepEqual(await fixture.read(again, (dir) => readdirSync(dir)), ["file"]);
			assert.equal(registry.reads.length, 1);
			assert.equal(fixture.warnings.length, 1);
		});

		it("are not found while nobody provides them", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const registry = makeRegistry();
			const options = { provider: registry, description: "image", signal };
			const ref = (await cache.fromLayers([addLayer(registry, { name: "f" })], options)) as ImmutableRef;
			const clone = ref.clone();
			await ref.release();
			assert.ok(await cache.get(ref.id));
			await clone.release();
			await fixture.reopen();
			assert.equal(await fixture.cache.get(ref.id), undefined);
			assert.deepEqual(fixture.warnings, []);
		});

		it("stop downloading when nobody waits any more", async () => {
			await using fixture = await openFixture(kind);
			const { cache, signal } = fixture;
			const controller = new AbortController();
			let ended = false;
			const provider: ContentProvider = {
				async *read(_descriptor, options) {
					try {
						controller.abort(new SlipwayError("canceled", "context canceled"));
						options.signal.throwIfAborted();
						yield new Uint8Array(1);
						await new Promise((resolve) => options.signal.addEventListener("abort", resolve));
						options.signal.throwIfAborted();
					} finally {
						ended = true;
					}
				},
			};
			const layer = addLayer(makeRegistry(), { name: "f", data: "1" });
			const ref = (await cache.fromLayers([layer], {
				provider,
				description: "image",
				signal,
			})) as ImmutableRef;
			await assert.rejects(ref.mounts({ signal: controller.signal }), (error) => hasCode(error, "canceled"));
			await fixture.reopen();
			assert.ok(ended);
			assert.deepEqual(readdirSync(`${fixture.folder}/content/blobs/sha256`), []);
		});
	});

	describe(`layer blobs, ${kind}`, () => {
		it("are made once from files, found again by an image, and the same in both snapshotters", async () => {
			await using fixture = await openFixture(kind);
			const { signal } = fixture;
			const time = new Date(1_700_000_000_000);
			const base = await fixture.make(undefined, (dir) => {
				writeFileSync(`${dir}/a`, "a".repeat(5000));
				writeFileSync(`${dir}/b`, "b");
				for (const name of ["a", "b"]) {
					chmodSync(`${dir}/${name}`, 0o644);
					utimes(`${dir}/${name}`, time, time);
				}
			});
			const top = await fixture.make(base, (dir) => rmSync(`${dir}/b`));
			const gzip = { compression: "gzip", force: false, signal } as const;
			const [blobs, same] = await Promise.all([top.blobs(gzip), top.blobs(gzip)]);
			assert.deepEqual(
				blobs.map(({ descriptor }) => descriptor),
				same.map(({ descriptor }) => descriptor),
			);
			assert.equal(blobs.length, 2);
			assert.equal(blobs[0]?.descriptor.mediaType, mediaTypes.ociLayerGzip);
			assert.deepEqual(
				blobs.map(({ diffId }) => diffId),
				expectedDiffIds,
			);
			const zstd = await top.blobs({ ...gzip, compression: "zstd" });
			assert.equal(zstd[0]?.descriptor.digest, blobs[0]?.descriptor.digest);
			const forced = await top.blobs({ ...gzip, compression: "zstd", force: true });
			assert.equal(forced[0]?.descriptor.mediaType, mediaTypes.ociLayerZstd);
			assert.equal(forced[0]?.diffId, blobs[0]?.diffId);
			const [first] = forced;
			const parts: Uint8Array[] = [];
			for await (const chunk of first?.provider.read(first.descriptor, { signal }) ?? []) {
				parts.push(chunk);
			}
			assert.equal(sha256(Buffer.concat(parts)), first?.descriptor.digest);

			const layers = blobs.map(({ descriptor, diffId }) => ({ descriptor, diffId }));
			const options = { provider: makeRegistry(), description: "image", signal };
			const image = await fixture.cache.fromLayers(layers, options);
			assert.equal(image?.id, top.id);
		});
	});
}

describe("disk use", () => {
	it("is what the disk says, and what prune frees", async () => {
		await using fixture = await openFixture();
		const { cache, signal } = fixture;
		const base = await fixture.make(undefined, (dir) => writeFileSync(`${dir}/a`, "a".repeat(300_000)));
		const top = await fixture.make(base, (dir) => writeFileSync(`${dir}/b`, "b".repeat(100_000)));
		await top.blobs({ compression: "uncompressed", force: false, signal });
		const kept = await cache.createMutable({
			retain: true,
			recordType: "exec.cachemount",
			description: "mount",
			signal,
		});
		await kept.release();
		const internal = await cache.createMutable({ recordType: "internal", description: "x", signal });
		await (await internal.commit()).release();
		const disk = (): number =>
			usedBytes(`${fixture.folder}/snapshots`) + usedBytes(`${fixture.folder}/content/blobs/sha256`);
		const sum = async (): Promise<number> =>
			(await fixture.cache.usage({ signal })).reduce((bytes, record) => bytes + record.bytes, 0);
		assert.equal(await sum(), disk());
		const records = await cache.usage({ signal });
		assert.deepEqual(
			records.map(({ inUse, mutable, recordType }) => [inUse, mutable, recordType]).sort(),
			[
				[false, false, "internal"],
				[false, true, "exec.cachemount"],
				[true, false, "regular"],
				[true, false, "regular"],
			].sort(),
		);
		const top1 = records.find(({ id }) => id === top.id);
		assert.deepEqual(top1?.parents, [base.id]);
		const prune = async (options: object): Promise<number> => {
			let bytes = 0;
			for await (const record of cache.prune({ all: false, signal, ...options })) {
				bytes += record.bytes;
			}
			return bytes;
		};
		await base.release();
		assert.equal(await prune({ matches: () => false }), 0);
		assert.equal(await prune({ keepDurationMs: 3_600_000 }), 0);
		assert.equal(await prune({ keepBytes: disk() }), 0);
		let before = disk();
		assert.equal(await prune({}), before - disk());
		assert.ok(cache.has(internal.id) && cache.has(top.id) && cache.has(base.id));
		await top.release();
		before = disk();
		assert.equal(await prune({ keepBytes: before - 100_000 }), before - disk());
		assert.ok(!cache.has(top.id) && cache.has(base.id));
		before = disk();
		assert.equal(await prune({ all: true }), before - disk());
		assert.equal(disk(), 0);
		assert.equal(await sum(), 0);
	});
});

/** Bytes of everything in a directory but for itself and what is always there. */
function usedBytes(dir: string): number {
	if (!existsSync(dir)) {
		return 0;
	}
	return readdirSync(dir)
		.filter((name) => !name.startsWith("."))
		.reduce((sum, name) => sum + treeBytes(`${dir}/${name}`), 0);
}

function treeBytes(path: string): number {
	const stat = lstatSync(path);
	const below = stat.isDirectory() ? readdirSync(path).map((name) => treeBytes(`${path}/${name}`)) : [];
	return below.reduce((sum, bytes) => sum + bytes, stat.blocks * 512);
}
