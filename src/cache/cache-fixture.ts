import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import { type LocalContentStore, openLocalContentStore } from "../content/local.ts";
import { type Database, openDatabase } from "../database/database.ts";
import type { Digest } from "../oci/digest.ts";
import { openNativeSnapshotter } from "../snapshot/native.ts";
import { openOverlaySnapshotter } from "../snapshot/overlay.ts";
import type { Snapshotter } from "../snapshot/snapshot.ts";
import { mount, unmount } from "../sys/mount.ts";
import type { MountSpec } from "../sys/sys.ts";
import type { CacheManager, ImmutableRef, MutableRef } from "./cache.ts";
import { openCache } from "./manager.ts";

/** A cache in a new directory, for tests. */
export interface CacheFixture extends AsyncDisposable {
	readonly folder: string;
	readonly pool: ThreadPool;
	readonly warnings: string[];
	/** Blobs that others need. */
	readonly keptBlobs: Set<Digest>;
	readonly signal: AbortSignal;
	readonly cache: CacheManager;
	readonly content: LocalContentStore;
	readonly database: Database;
	readonly snapshotter: Snapshotter;
	/** Closes and opens everything; with `kill` without an orderly end, as if the process had died. */
	reopen(options?: { readonly kill?: boolean; readonly bootId?: string }): Promise<void>;
	withMount<T>(specs: readonly MountSpec[], work: (dir: string) => T): T;
	/** A committed ref. */
	make(parent: ImmutableRef | undefined, write: (dir: string) => void): Promise<ImmutableRef>;
	write(ref: MutableRef, write: (dir: string) => void): void;
	/** What `work` makes of the mounted tree. */
	read<T>(ref: ImmutableRef, work: (dir: string) => T): Promise<T>;
}

export async function openFixture(kind: "overlayfs" | "native" = "overlayfs"): Promise<CacheFixture> {
	const folder = mkdtempSync(`${tmpdir()}/slipway-cache-`);
	const pool = createThreadPool({ size: 2 });
	const warnings: string[] = [];
	const keptBlobs = new Set<Digest>();
	const { signal } = new AbortController();
	const open = async (bootId: string) => {
		const database = openDatabase(`${folder}/metadata.db`);
		const content = await openLocalContentStore({ root: `${folder}/content`, signal });
		const root = `${folder}/snapshots`;
		const snapshotter =
			kind === "native" ? openNativeSnapshotter({ root, pool }) : openOverlaySnapshotter({ root, pool });
		const warn = (message: string): void => {
			warnings.push(message);
		};
		const cache = await openCache({
			root: `${folder}/cache`,
			database,
			content,
			snapshotter,
			pool,
			warn,
			keptBlobs: async () => keptBlobs,
			bootId,
		});
		return { database, content, snapshotter, cache };
	};
	let state = await open("boot");
	const killed: CacheManager[] = [];
	const withMount = <T>(specs: readonly MountSpec[], work: (dir: string) => T): T => {
		const dir = mkdtempSync(`${folder}/at-`);
		for (const spec of specs) {
			mount(spec, dir);
		}
		try {
			return work(dir);
		} finally {
			unmount(dir);
		}
	};
	return {
		folder,
		pool,
		warnings,
		keptBlobs,
		signal,
		withMount,
		get cache() {
			return state.cache;
		},
		get content() {
			return state.content;
		},
		get database() {
			return state.database;
		},
		get snapshotter() {
			return state.snapshotter;
		},
		async reopen({ kill = false, bootId = "boot" } = {}) {
			if (kill) {
				killed.push(state.cache);
			} else {
				await state.cache[Symbol.asyncDispose]();
			}
			state.database[Symbol.dispose]();
			state = await open(bootId);
		},
		async make(parent, write) {
			const ref = await state.cache.createMutable({
				description: "made",
				signal,
				...(parent === undefined ? {} : { parent }),
			});
			withMount(ref.mounts(), write);
			return ref.commit();
		},
		write: (ref, write) => withMount(ref.mounts(), write),
		read: async (ref, work) => withMount(await ref.mounts({ signal }), work),
		async [Symbol.asyncDispose]() {
			await state.cache[Symbol.asyncDispose]();
			state.database[Symbol.dispose]();
			await pool[Symbol.asyncDispose]();
			rmSync(folder, { recursive: true, force: true });
		},
	};
}
