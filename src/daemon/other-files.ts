import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { hasCode, toError } from "../errors/errors.ts";
import { measureTree } from "../snapshot/measure.ts";
import type { SnapshotUsage } from "../snapshot/snapshot.ts";

/** Disk use of what is in a state directory besides blobs and snapshots: databases, logs, what is under way. */
export function otherFiles(root: string): SnapshotUsage {
	let bytes = 0;
	let inodes = 0;
	const add = (usage: SnapshotUsage | undefined): void => {
		bytes += usage?.bytes ?? 0;
		inodes += usage?.inodes ?? 0;
	};
	// Of these the directories alone: what is in them is counted elsewhere.
	const counted = new Set(
		["content", "content/blobs", "content/blobs/sha256", "snapshots", ""].map((path) => join(root, path)),
	);
	for (const directory of counted) {
		add(orGone(() => ({ bytes: lstatSync(directory).blocks * 512, inodes: 1 })));
		for (const name of orGone(() => readdirSync(directory)) ?? []) {
			const path = join(directory, name);
			if (!counted.has(path) && !isCountedElsewhere(root, directory)) {
				add(orGone(() => measure(path)));
			}
		}
	}
	return { bytes, inodes };
}

function isCountedElsewhere(root: string, directory: string): boolean {
	return directory === join(root, "snapshots") || directory === join(root, "content/blobs/sha256");
}

function measure(path: string): SnapshotUsage | undefined {
	const stat = lstatSync(path);
	return stat.isDirectory() ? measureTree(path) : { bytes: stat.blocks * 512, inodes: 1 };
}

/** Files come and go while builds run. */
function orGone<T>(look: () => T): T | undefined {
	try {
		return look();
	} catch (thrown) {
		const error = toError(thrown);
		if (hasCode(error, "not-found")) {
			return undefined;
		}
		throw error;
	}
}
