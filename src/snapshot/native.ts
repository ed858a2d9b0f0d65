import { chmodSync, existsSync, mkdirSync } from "node:fs";
import type { ThreadPool } from "../async/pool.ts";
import { openDirectories } from "./directories.ts";
import type { SnapshotId, Snapshotter } from "./snapshot.ts";
import type { TreeTask } from "./tree.job.ts";

export interface NativeOptions {
	readonly root: string;
	readonly pool: ThreadPool;
}

/**
 * Snapshots as whole trees, `<root>/<id>/fs`, each a full copy of its topmost parent: works on every file system, takes
 * room and time for it where the file system cannot share blocks (btrfs, xfs and bcachefs can).
 */
export function openNativeSnapshotter({ root, pool }: NativeOptions): Snapshotter {
	const directories = openDirectories(root, pool);
	const empty = `${root}/.empty`;
	mkdirSync(empty, { recursive: true });
	chmodSync(empty, 0o755);
	const files = (id: SnapshotId): string => `${directories.path(id)}/fs`;
	return {
		name: "native",
		root,
		whiteouts: "apply",
		create: ({ id, parents, signal }) =>
			directories.create(id, async (dir) => {
				mkdirSync(`${dir}/fs`);
				chmodSync(`${dir}/fs`, 0o755);
				const parent = parents.at(-1);
				if (parent !== undefined) {
					const task: TreeTask = { kind: "copy", from: files(parent), to: `${dir}/fs` };
					await pool.run("snapshot/tree", task, { signal });
				}
			}),
		mounts: (id) => [{ type: "bind", source: files(id), options: ["rbind", "rw"] }],
		view(layers) {
			const top = layers.at(-1);
			return [{ type: "bind", source: top === undefined ? empty : files(top), options: ["rbind", "ro"] }];
		},
		layer(id, parents) {
			const parent = parents.at(-1);
			return { kind: "tree", dir: files(id), base: parent === undefined ? undefined : files(parent) };
		},
		usage: directories.usage,
		remove: directories.remove,
		exists: (id) => existsSync(files(id)),
		list: directories.list,
	};
}
