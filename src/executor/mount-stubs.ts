import { lstatSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { setTimes, timestampOf } from "../sys/node.ts";
import { resolveInRoot } from "../sys/root-path.ts";

/**
 * Remembers which mount points the root file system lacks before a container starts. The runtime makes them; the answer removes
 * again those that are still empty, so that a mount leaves nothing in the layer. Directories keep their times.
 */
export function watchMountStubs(root: string, targets: readonly string[], recursive: boolean): () => void {
	const missing: string[] = [];
	for (const target of targets) {
		let path = resolveInRoot(root, target);
		while (path !== root && lstatSync(path, { throwIfNoEntry: false }) === undefined) {
			missing.push(path);
			if (!recursive) {
				break;
			}
			path = dirname(path);
		}
	}
	return () => {
		for (const path of missing) {
			removeStub(root, path);
		}
	};
}

function removeStub(root: string, path: string): void {
	// The step may have replaced a directory on the way by a symbolic link: then this is no stub of ours any more.
	if (resolveInRoot(root, path.slice(root.length), { followLast: false }) !== path) {
		return;
	}
	const stat = lstatSync(path, { throwIfNoEntry: false });
	if (stat === undefined || stat.isSymbolicLink()) {
		return;
	}
	const empty = stat.isDirectory() ? readdirSync(path).length === 0 : stat.isFile() && stat.size === 0;
	if (!empty) {
		return;
	}
	const parent = dirname(path);
	const before = lstatSync(parent, { bigint: true });
	if (stat.isDirectory()) {
		rmdirSync(path);
	} else {
		unlinkSync(path);
	}
	setTimes(parent, timestampOf(before.atimeNs), timestampOf(before.mtimeNs));
}
