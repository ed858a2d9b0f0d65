import type { MountSpec } from "../sys/sys.ts";

declare const snapshotIdBrand: unique symbol;

/** Name of a snapshot's directory: lower-case letters and digits. */
export type SnapshotId = string & { readonly [snapshotIdBrand]: true };

/**
 * Directory trees in layers. A snapshot holds what one layer changed against the layers below it; a root file system
 * is a list of snapshots, lowest first. The snapshotter keeps no records: which snapshots exist, what they stand on
 * and whether they may still change is the cache's knowledge, which passes the list of parents to each call. What has
 * no record is swept at start by `list` and `remove`.
 *
 * Life of a snapshot: `create` makes it empty on top of its parents; it is written through `mounts` or, by those who
 * know layers, in `layer().dir`; from when its owner calls it finished nobody writes to it again, and it may be a parent.
 *
 * With overlayfs a snapshot's directory has the changed files only, with overlayfs's whiteouts; with the native
 * snapshotter it is a whole tree, made as a copy of its topmost parent.
 */
export interface Snapshotter {
	readonly name: "overlayfs" | "native";
	/** The directory that has all of it. */
	readonly root: string;
	/** What extraction of a layer into `layer().dir` must do with deletions. */
	readonly whiteouts: "overlay" | "overlay-user" | "apply";
	/** Absent where snapshots are whole trees, so that a stack in another order must be made by applying layers. */
	readonly stacking?: Stacking;
	create(options: CreateOptions): Promise<void>;
	/** How to mount a snapshot that may still be written to, on top of its parents. Not while it is mounted already. */
	mounts(id: SnapshotId, parents: readonly SnapshotId[]): readonly MountSpec[];
	/** How to mount finished snapshots as one read-only tree. An empty list is an empty tree. */
	view(layers: readonly SnapshotId[]): readonly MountSpec[];
	/** Where a snapshot's own files are and what they mean. */
	layer(id: SnapshotId, parents: readonly SnapshotId[]): SnapshotLayer;
	/** Disk use of a snapshot alone, without its parents. */
	usage(id: SnapshotId, options: { readonly signal: AbortSignal }): Promise<SnapshotUsage>;
	/** Removes a snapshot that is not mounted. One that is not there is no error. */
	remove(id: SnapshotId): Promise<void>;
	/** True if the snapshot's directory is there; one call of the kernel. */
	exists(id: SnapshotId): boolean;
	list(): Promise<readonly SnapshotId[]>;
}

export interface CreateOptions {
	readonly id: SnapshotId;
	readonly parents: readonly SnapshotId[];
	/** It will hold changes to others' trees although it has no parents of its own (a diff). Default false. */
	readonly detached?: boolean;
	readonly signal: AbortSignal;
}

/**
 * Snapshots that mean the same on other parents than they were made on, so that trees can be stacked without a copy. An
 * opaque directory does not: overlayfs makes new directories opaque, and on other parents they would hide what is there.
 */
export interface Stacking {
	/** True if the snapshot can be stacked as it is. Reads all of its directories. */
	isPortable(id: SnapshotId, options: { readonly signal: AbortSignal }): Promise<boolean>;
	/**
	 * Makes `id`, which has the files of `from` (as hard links) and a whiteout for each file of `base` that an opaque
	 * directory hid. `base` is where the parents of `from` are mounted together, undefined if it had none.
	 */
	makePortable(options: PortableOptions): Promise<void>;
}

export interface PortableOptions {
	readonly id: SnapshotId;
	readonly from: SnapshotId;
	readonly base: string | undefined;
	readonly signal: AbortSignal;
}

export type SnapshotLayer =
	/** `dir` holds changes, with overlayfs's whiteouts and opaque marks. */
	| { readonly kind: "changes"; readonly dir: string }
	/** `dir` holds the whole tree; what changed is the difference to the tree `base` (undefined: everything). */
	| { readonly kind: "tree"; readonly dir: string; readonly base: string | undefined };

export interface SnapshotUsage {
	/** Allocated bytes, as `du` counts them, hard links once. */
	readonly bytes: number;
	readonly inodes: number;
}
