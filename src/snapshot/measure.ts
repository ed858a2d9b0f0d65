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
	const seen = new Set<string>();
	const pending = [Buffer.from(root).toString("latin1")];
	let blocks = lstatSync(root).blocks;
	let inodes = 1;
	for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
		check();
		for (const entry of readdirSync(fsPath(dir), { encoding: "latin1" })) {
			const path = `${dir}/${entry}`;
			const stat = lstatSync(fsPath(path));
			if (stat.isDirectory()) {
				pending.push(path);
			} else if (stat.nlink > 1) {
				const key = `${stat.dev}:${stat.ino}`;
				if (seen.has(key)) {
					continue;
				}
				seen.add(key);
			}
			blocks += stat.blocks;
			if (++inodes > maxEntries) {
				return undefined;
			}
		}
	}
	return { bytes: blocks * 512, inodes };
}
