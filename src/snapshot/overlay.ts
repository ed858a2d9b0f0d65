import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import type { ThreadPool } from "../async/pool.ts";
import { SlipwayError } from "../errors/errors.ts";
import { mount, unmount } from "../sys/mount.ts";
import { inUserNamespace } from "../sys/namespace.ts";
import { changeOwner } from "../sys/owner.ts";
import type { MountSpec } from "../sys/sys.ts";
import { openDirectories } from "./directories.ts";
import type { SnapshotId, Snapshotter } from "./snapshot.ts";
import type { TreeTask } from "./tree.job.ts";

export interface OverlayOptions {
	/** On a file system that can carry overlayfs; its path has no comma, colon or backslash. */
	readonly root: string;
	readonly pool: ThreadPool;
	/** Find out at the first mount what the kernel can do, because it worked before. Default false: at once. */
	readonly lazy?: boolean;
}

/**
 * Snapshots as directories of overlayfs: `<root>/<id>/fs` has the changes, `<root>/<id>/work` is the kernel's. A snapshot
 * without parents is a plain directory, which is bound and has no `work`, so that it can be used without a mount.
 *
 * Throws `failed-precondition` if overlay mounts do not work there.
 */
export function openOverlaySnapshotter({ root, pool, lazy = false }: OverlayOptions): Snapshotter {
	if (/[,:\\]/.test(root)) {
		throw new SlipwayError(
			"invalid-argument",
			`directory ${JSON.stringify(root)} cannot be used with overlayfs because of a comma, colon or backslash in its name`,
		);
	}
	const directories = openDirectories(root, pool);
	const empty = `${root}/.empty`;
	mkdirSync(empty, { recursive: true });
	chmodSync(empty, 0o755);
	const forUser = inUserNamespace();
	let probed: ProbedOptions | undefined;
	const options = (): ProbedOptions => {
		probed ??= probe(root, forUser ? ["userxattr"] : []);
		return probed;
	};
	if (!lazy) {
		options();
	}
	const prefix = forUser ? "user.overlay." : "trusted.overlay.";
	const files = (id: SnapshotId): string => `${directories.path(id)}/fs`;
	const work = (id: SnapshotId): string => `${directories.path(id)}/work`;
	const lower = (layers: readonly SnapshotId[]): string =>
		`lowerdir=${layers.map(files).reverse().join(":")}`;

	/** The uppermost directory gives the merged root its owner and mode. */
	const copyRoot = (parent: SnapshotId | undefined, dir: string): void => {
		if (parent === undefined) {
			chmodSync(dir, 0o755);
			return;
		}
		const { uid, gid, mode } = lstatSync(files(parent));
		changeOwner(dir, uid, gid);
		chmodSync(dir, mode & 0o7777);
	};

	return {
		name: "overlayfs",
		root,
		whiteouts: forUser ? "overlay-user" : "overlay",
		stacking: {
			isPortable: (id, { signal }) =>
				pool.run<TreeTask, boolean>(
					"snapshot/tree",
					{ kind: "is-portable", path: files(id), prefix },
					{ signal },
				),
			makePortable: ({ id, from, base, signal }) =>
				directories.create(id, async (dir) => {
					mkdirSync(`${dir}/fs`);
					mkdirSync(`${dir}/work`, { mode: 0o700 });
					const task: TreeTask = { kind: "link", from: files(from), to: `${dir}/fs`, base, prefix };
					await pool.run("snapshot/tree", task, { signal });
				}),
		},
		create: ({ id, parents, detached }) =>
			directories.create(id, (dir) => {
				mkdirSync(`${dir}/fs`);
				copyRoot(parents.at(-1), `${dir}/fs`);
				if (parents.length > 0 || detached === true) {
					mkdirSync(`${dir}/work`, { mode: 0o700 });
				}
			}),
		mounts(id, parents) {
			if (parents.length === 0) {
				return [{ type: "bind", source: files(id), options: ["rbind", "rw"] }];
			}
			// The kernel's mark of a mount that was not synced; it refuses to mount again while it is there.
			rmSync(`${work(id)}/work/incompat`, { recursive: true, force: true });
			return [
				{
					type: "overlay",
					source: "overlay",
					options: [...options().write, `workdir=${work(id)}`, `upperdir=${files(id)}`, lower(parents)],
				},
			];
		},
		view(layers) {
			const [only, ...more] = layers;
			if (only === undefined) {
				return [{ type: "bind", source: empty, options: ["rbind", "ro"] }];
			}
			if (more.length === 0 && !existsSync(work(only))) {
				return [{ type: "bind", source: files(only), options: ["rbind", "ro"] }];
			}
			// A lone layer of changes needs something below it: overlayfs then hides whiteouts and its own attributes.
			const stack = more.length === 0 ? `${lower(layers)}:${empty}` : lower(layers);
			return [{ type: "overlay", source: "overlay", options: ["ro", ...options().read, stack] }];
		},
		layer: (id) => ({ kind: "changes", dir: files(id) }),
		usage: directories.usage,
		remove: directories.remove,
		exists: (id) => existsSync(files(id)),
		list: directories.list,
	};
}

interface ProbedOptions {
	readonly read: readonly string[];
	readonly write: readonly string[];
}

/**
 * Options that keep a layer's directory exportable and free of what only this mount understands; and `volatile`: no fsync
 * inside a build step reaches the disk, and unmounting does not flush the whole file system. What a layer must survive
 * is the cache's affair, which syncs in the background and knows since when.
 */
const wanted: readonly string[] = ["index=off", "redirect_dir=off", "metacopy=off"];

function probe(root: string, base: readonly string[]): ProbedOptions {
	const dir = `${root}/.new-probe-${randomBytes(6).toString("hex")}`;
	for (const name of ["a", "b", "fs", "work", "at"]) {
		mkdirSync(`${dir}/${name}`, { recursive: true });
	}
	const attempt = (options: readonly string[]): SlipwayError | undefined => {
		const spec: MountSpec = {
			type: "overlay",
			source: "overlay",
			options: [...options, `workdir=${dir}/work`, `upperdir=${dir}/fs`, `lowerdir=${dir}/a:${dir}/b`],
		};
		try {
			mount(spec, `${dir}/at`);
			try {
				// Some file systems take the mount but cannot make what overlayfs needs in the upper directory.
				mkdirSync(`${dir}/at/probe`, { recursive: true });
			} finally {
				unmount(`${dir}/at`, { detach: true });
			}
			return undefined;
		} catch (thrown) {
			return thrown instanceof SlipwayError
				? thrown
				: new SlipwayError("unknown", String(thrown), { cause: thrown });
		} finally {
			rmSync(`${dir}/work`, { recursive: true, force: true });
			mkdirSync(`${dir}/work`);
		}
	};
	try {
		const all = [...base, ...wanted];
		if (attempt([...all, "volatile"]) === undefined) {
			return { read: all, write: [...all, "volatile"] };
		}
		const failed = attempt(base);
		if (failed !== undefined) {
			throw new SlipwayError(
				"failed-precondition",
				`overlayfs does not work in ${root}: ${failed.message}; use the native snapshotter, or a directory on ext4 or xfs`,
				{ cause: failed },
			);
		}
		const read = [...base, ...wanted.filter((option) => attempt([...base, option]) === undefined)];
		return { read, write: attempt([...read, "volatile"]) === undefined ? [...read, "volatile"] : read };
	} finally {
		rmSync(dir, { recursive: true, force: true });
	}
}
