import { mkdirSync, mkdtempSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { mount, unmount } from "../sys/mount.ts";
import type { MountSpec } from "../sys/sys.ts";
import type { WorkerServices } from "./worker.ts";

/** A tree at a path of this host, until disposed. */
export interface MountedTree extends Disposable {
	readonly path: string;
}

/** Mounts a tree; one that is a plain directory is used where it lies. */
export function mountTree(
	mounts: readonly MountSpec[],
	services: Pick<WorkerServices, "mountRoot" | "beforeMounts">,
): MountedTree {
	const only = mounts.length === 1 ? mounts[0] : undefined;
	if (only?.type === "bind") {
		return { path: only.source, [Symbol.dispose]: () => {} };
	}
	services.beforeMounts();
	mkdirSync(services.mountRoot, { recursive: true, mode: 0o700 });
	const path = mkdtempSync(join(services.mountRoot, "tree-"));
	let mounted = 0;
	const release = (): void => {
		for (; mounted > 0; mounted--) {
			// An aborted copy in a thread may still be in it: it gets what is its own, nobody waits for it.
			unmount(path, { detach: true });
		}
		rmdirSync(path);
	};
	try {
		for (const spec of mounts) {
			mount(spec, path);
			mounted += 1;
		}
	} catch (error) {
		release();
		throw error;
	}
	let released = false;
	return {
		path,
		[Symbol.dispose]() {
			if (!released) {
				released = true;
				release();
			}
		},
	};
}
