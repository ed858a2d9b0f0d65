import { hash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { chunksOf } from "../content/bytes.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { parseBlobForm } from "./attributes.ts";
import { nameOf } from "./cache-name.ts";
import { type GhaOptions, parseGhaOptions } from "./gha-options.ts";
import { createGhaService, type GhaEntry, type GhaProxy, type GhaService } from "./gha-service.ts";
import { lazily, mountsSuffix, type ObjectStore, objectOrigin, objectTarget } from "./objects.ts";
import type { CacheBackend, CacheOptions } from "./remotecache.ts";

const blobPrefix = "buildkit-blob-1-";
/** How long a config that somebody else is writing is waited for. */
const lockedMs = 15_000;
const pauseMs = 2_000;
const canWrite = 2;

/** `type=gha`: entries of GitHub's cache for its runners. */
export function createGhaBackend(proxy: GhaProxy = {}): CacheBackend {
	const storeOf = (attrs: CacheOptions["attrs"], suffix = ""): (() => Promise<ObjectStore>) => {
		const options = parseGhaOptions(attrs, Date.now());
		const scope = options.scope + suffix;
		return lazily(async () => createGhaStore({ ...options, scope }, createGhaService(options, proxy)));
	};
	return {
		type: "gha",
		target: (attrs) =>
			objectTarget("exporting to GitHub Actions Cache", parseBlobForm(attrs), storeOf(attrs)),
		origin: (attrs) => objectOrigin(nameOf({ type: "gha", attrs }), storeOf(attrs)),
		mounts: (attrs) => ({ name: "GitHub Actions Cache", open: storeOf(attrs, mountsSuffix) }),
	};
}

/** Entries are immutable: a config is replaced by one with the next number, and the newest is read. */
export function createGhaStore(
	{ scope, scopes }: Pick<GhaOptions, "scope" | "scopes">,
	service: GhaService,
	pause: (ms: number, signal: AbortSignal) => Promise<void> = (ms, signal) =>
		sleep(ms, undefined, { signal }),
): ObjectStore {
	const indexKey = (branch: string): string => `index-${scope}-1-${hash("sha256", branch).slice(0, 8)}`;
	const entries = new Map<Digest, GhaEntry>();

	const entryOf = async (digest: Digest, signal: AbortSignal): Promise<GhaEntry | undefined> => {
		const known = entries.get(digest);
		if (known !== undefined) {
			return known;
		}
		const found = await service.find(blobPrefix + digest, signal);
		if (found !== undefined) {
			entries.set(digest, found);
		}
		return found;
	};

	async function replace(key: string, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
		let waitedMs = 0;
		for (;;) {
			const last = await service.find(`${key}#`, signal);
			let number = last === undefined ? 0 : Number(last.key.slice(key.length + 1));
			if (!Number.isSafeInteger(number)) {
				throw new SlipwayError(
					"data-loss",
					`github actions cache has an entry of the strange key ${last?.key}`,
				);
			}
			do {
				number++;
				if (await service.save(`${key}#${number}`, bytes.length, () => chunksOf(bytes), signal)) {
					return;
				}
				// Whoever holds the next number may have died: after some time it is skipped.
			} while (waitedMs > lockedMs);
			await pause(pauseMs, signal);
			waitedMs += pauseMs;
		}
	}

	return {
		putBlob: async ({ digest, size }, open, { signal }) => {
			if ((await entryOf(digest, signal)) === undefined) {
				await service.save(blobPrefix + digest, size, open, signal);
			}
		},
		putConfig: async (bytes, { signal }) => {
			const branch = scopes.findLast(({ permission }) => (permission & canWrite) !== 0)?.name ?? "";
			await replace(indexKey(branch), bytes, signal);
			return undefined;
		},
		configs: async ({ signal }) => {
			const found = await Promise.all(scopes.map(({ name }) => service.find(indexKey(name), signal)));
			return found.flatMap((entry) => (entry === undefined ? [] : [service.read(entry, 0, signal)]));
		},
		blobs: {
			read: async function* ({ digest, size }, { offset = 0, length, signal }) {
				const entry = await entryOf(digest, signal);
				if (entry === undefined) {
					throw new SlipwayError("not-found", `blob ${digest} is not in the github actions cache`);
				}
				const wanted = Math.max(0, Math.min(length ?? size, size - offset));
				let left = wanted;
				if (left > 0) {
					for await (const chunk of service.read(entry, offset, signal)) {
						yield chunk.length > left ? chunk.subarray(0, left) : chunk;
						left -= Math.min(left, chunk.length);
						if (left === 0 && length !== undefined) {
							break;
						}
					}
				}
				if (left > 0) {
					entries.delete(digest);
					throw new SlipwayError("data-loss", `entry of blob ${digest} ended ${left} bytes early`);
				}
			},
		},
	};
}
