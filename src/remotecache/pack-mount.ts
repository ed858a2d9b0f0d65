import { createReadStream, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Archiver } from "../archive/archive.ts";
import { createLimit } from "../async/limit.ts";
import type { ThreadPool } from "../async/pool.ts";
import { withStatus } from "../exporter/status.ts";
import type { Digest } from "../oci/digest.ts";
import type { StepContext } from "../solver/solver.ts";
import type { MountListing } from "./list-mount.job.ts";
import type { PackedLayer, PackedMount } from "./mounts.ts";
import type { ObjectStore } from "./objects.ts";

export interface MountPacker {
	readonly archiver: Archiver;
	readonly pool: ThreadPool;
	/** For layers that are on their way; swept at the next start. */
	readonly temporaryRoot: string;
}

/** Layers that are written and sent at the same time. */
const atATime = 3;
/** Fast, and small enough: what is in a cache is compressed already as a rule. */
const compression = { kind: "zstd", level: 1 } as const;

/** Sends the directory's files to the store, of which only what it lacks travels. Nobody else writes to the directory meanwhile. */
export async function packMount(
	name: string,
	directory: string,
	store: ObjectStore,
	{ archiver, pool, temporaryRoot }: MountPacker,
	context: StepContext,
): Promise<PackedMount> {
	const { signal } = context;
	const { root, groups } = await pool.run<string, MountListing>("remotecache/list-mount", directory, {
		signal,
	});
	mkdirSync(temporaryRoot, { recursive: true, mode: 0o700 });
	const limit = createLimit(atATime);
	const layers = await Promise.all(
		groups.map(async (changes): Promise<PackedLayer> => {
			using _slot = await limit.acquire({ signal });
			const dest = join(temporaryRoot, crypto.randomUUID());
			try {
				const source = { kind: "changes", root: directory, changes } as const;
				const { digest, size } = await archiver.writeLayer({ source, dest, compression }, { signal });
				const layer = { digest: digest as string as Digest, size };
				await withStatus(context, `writing layer ${digest}`, () =>
					store.putBlob(layer, () => createReadStream(dest), { signal }),
				);
				return layer;
			} finally {
				rmSync(dest, { force: true });
			}
		}),
	);
	return { name, layers, root };
}
