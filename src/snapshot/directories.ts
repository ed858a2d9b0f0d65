import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import type { ThreadPool } from "../async/pool.ts";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import { removeTree } from "../sys/remove.ts";
import { measureTree } from "./measure.ts";
import type { SnapshotId, SnapshotUsage } from "./snapshot.ts";

/**
 * What both snapshotters do with directories: `<root>/<id>` appears whole by a rename and goes by a rename, so that a killed
 * process leaves only names with a dot in front, which `open` sweeps.
 */
export interface SnapshotDirectories {
	readonly root: string;
	path(id: SnapshotId): string;
	/** `fill` makes the contents under a temporary name. */
	create(id: SnapshotId, fill: (dir: string) => Promise<void> | void): Promise<void>;
	remove(id: SnapshotId): Promise<void>;
	usage(id: SnapshotId, options: { readonly signal: AbortSignal }): Promise<SnapshotUsage>;
	exists(id: SnapshotId): boolean;
	list(): Promise<readonly SnapshotId[]>;
}

/** A tree up to this size is walked at once: a trip to a thread costs as much. */
const smallTree = 200;

/** What only this process knows can't be interrupted: removal must not be left half done because a build was. */
const never = new AbortController().signal;

export function openDirectories(root: string, pool: ThreadPool): SnapshotDirectories {
	try {
		mkdirSync(root, { recursive: true, mode: 0o700 });
		for (const name of readdirSync(root)) {
			if (name.startsWith(".gone-") || name.startsWith(".new-")) {
				removeTree(`${root}/${name}`);
			}
		}
	} catch (thrown) {
		throw wrap(thrown, `snapshots ${root}`);
	}
	const path = (id: SnapshotId): string => `${root}/${checked(id)}`;
	const discard = async (dir: string): Promise<void> => {
		const gone = `${root}/.gone-${randomBytes(8).toString("hex")}`;
		renameSync(dir, gone);
		if (measureTree(gone, smallTree) === undefined) {
			await pool.run("snapshot/tree", { kind: "remove", path: gone }, { signal: never });
		} else {
			removeTree(gone);
		}
	};
	return {
		root,
		path,
		async create(id, fill) {
			const target = path(id);
			const temporary = `${root}/.new-${id}`;
			if (existsSync(target)) {
				throw new SlipwayError("already-exists", `snapshot ${id} exists already`);
			}
			try {
				mkdirSync(temporary, { mode: 0o700 });
				await fill(temporary);
				renameSync(temporary, target);
			} catch (thrown) {
				if (existsSync(temporary)) {
					await discard(temporary);
				}
				throw wrap(thrown, `creating snapshot ${id}`);
			}
		},
		async remove(id) {
			try {
				await discard(path(id));
			} catch (thrown) {
				const error = toError(thrown);
				if (error.code !== "not-found") {
					throw wrap(error, `removing snapshot ${id}`);
				}
			}
		},
		async usage(id, { signal }) {
			const small = measureTree(path(id), smallTree);
			return small ?? pool.run("snapshot/tree", { kind: "measure", path: path(id) }, { signal });
		},
		exists: (id) => existsSync(path(id)),
		async list() {
			return readdirSync(root).filter(isSnapshotId);
		},
	};
}

export function isSnapshotId(name: string): name is SnapshotId {
	return /^[a-z0-9]+$/.test(name);
}

/** An id becomes a part of paths and of mount options. */
function checked(id: SnapshotId): SnapshotId {
	if (!isSnapshotId(id)) {
		throw new SlipwayError("invalid-argument", `invalid snapshot id ${JSON.stringify(id)}`);
	}
	return id;
}
