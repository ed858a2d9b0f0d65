import { lstatSync, readdirSync } from "node:fs";
import { fsPath } from "../sys/byte-names.ts";
import type { SnapshotUsage } from "./snapshot.ts";

/**
 * Disk use of a directory with all that is in it, as `du` counts: allocated blocks, a file with several names once.
 * Undefined if it has more than `maxEntries`. `check` is called for each directory and may throw.
 */
export function measureTree(
	root: string,
	maxEntries: number = Number.POSITIVE_INFINITY,
	check: () => void = () => {},
): SnapshotUsage | undefined {
	const { bytes, inodes, shared } = measureTrees([root], maxEntries, check) ?? {};
	if (bytes === undefined || inodes === undefined || shared === undefined) {
		return undefined;
	}
	let all = bytes;
	for (let at = 1; at < shared.length; at += 2) {
		all += shared[at] ?? 0;
	}
	return { bytes: all, inodes: inodes + shared.length / 2 };
}

export interface TreesUsage extends SnapshotUsage {
	/**
	 * Files that have names outside of the trees too and are not in the sums, since removing the trees does not free them:
	 * inode number and bytes of each, in turn. All trees are of one file system.
	 */
	readonly shared: Float64Array;
}

/** Disk use of several directories together. Undefined if they have more than `maxEntries`. */
export function measureTrees(
	roots: readonly string[],
	maxEntries: number = Number.POSITIVE_INFINITY,
	check: () => void = () => {},
): TreesUsage | undefined {
	const linked = new Map<number, { seen: number; readonly names: number; readonly blocks: number }>();
	let blocks = 0;
	let inodes = 0;
	for (const root of roots) {
		const pending = [Buffer.from(root).toString("latin1")];
		blocks += lstatSync(root).blocks;
		inodes++;
		for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
			check();
			for (const entry of readdirSync(fsPath(dir), { encoding: "latin1" })) {
				const path = `${dir}/${entry}`;
				const stat = lstatSync(fsPath(path));
				if (stat.isDirectory()) {
					pending.push(path);
				} else if (stat.nlink > 1) {
					const known = linked.get(stat.ino);
					if (known !== undefined) {
						known.seen++;
						continue;
					}
					linked.set(stat.ino, { seen: 1, names: stat.nlink, blocks: stat.blocks });
				}
				if (stat.isDirectory() || stat.nlink === 1) {
					blocks += stat.blocks;
				}
				if (++inodes > maxEntries) {
					return undefined;
				}
			}
		}
	}
	const shared: number[] = [];
	for (const [inode, file] of linked) {
		if (file.seen >= file.names) {
			blocks += file.blocks;
		} else {
			inodes--;
			shared.push(inode, file.blocks * 512);
		}
	}
	return { bytes: blocks * 512, inodes, shared: Float64Array.from(shared) };
}
