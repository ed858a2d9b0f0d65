import type { BigIntStats } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { getXattr } from "../sys/xattr.ts";
import type { Change, LayerSource } from "./archive.ts";
import { isSameFile, isWhiteout, stat, statIfAny, type WalkEntry, walk } from "./walk.ts";

/**
 * What makes a layer: the changes between trees, found in the order in which BuildKit and containerd find them. Removed
 * trees are one change; a folder is a change only if it itself changed.
 */
export interface FoundChange extends Change {
	/** Of the file in the new tree; `undefined` for a deletion. */
	readonly stats: BigIntStats | undefined;
}

/** The tree that holds the files of the changes. */
export function rootOf(source: LayerSource): ByteString {
	switch (source.kind) {
		case "overlay":
			return bytesOf(source.upper);
		case "diff":
			return bytesOf(source.target);
		case "changes":
			return bytesOf(source.root);
	}
}

export function findChanges(source: LayerSource): Iterable<FoundChange> {
	const base = "base" in source && source.base !== undefined ? bytesOf(source.base) : undefined;
	switch (source.kind) {
		case "overlay":
			return overlayChanges(bytesOf(source.upper), base);
		case "diff":
			return treeChanges(base, bytesOf(source.target), { hideWhiteouts: false });
		case "changes":
			return withStats(bytesOf(source.root), source.changes);
	}
}

function* withStats(root: ByteString, changes: readonly Change[]): Generator<FoundChange> {
	for (const change of changes) {
		yield { ...change, stats: change.kind === "delete" ? undefined : stat(`${root}${change.path}`) };
	}
}

/**
 * Reads changes off an overlay's upper directory: only what was touched is looked at. Whiteouts of what the base does not
 * have are dropped, files that were copied up without a change too, and opaque folders are compared with the base.
 */
function* overlayChanges(upper: ByteString, base: ByteString | undefined): Generator<FoundChange> {
	const entries = walk(upper);
	let descend: boolean | undefined;
	for (let step = entries.next(); step.done !== true; step = entries.next(descend)) {
		descend = undefined;
		const { path, stats } = step.value;
		const isFolder = stats.isDirectory();
		if (isFolder && hasRedirect(`${upper}${path}`)) {
			throw new SlipwayError(
				"unimplemented",
				`redirect_dir is used by overlay directory ${textOf(path)}, which a layer cannot be made of`,
			);
		}
		const below = base === undefined ? undefined : statIfAny(`${base}${path}`);
		if (isWhiteout(stats)) {
			if (below !== undefined) {
				yield { kind: "delete", path, stats: undefined };
			}
			continue;
		}
		if (below === undefined || base === undefined) {
			yield { kind: "add", path, stats };
			continue;
		}
		if (!isSameFile(`${base}${path}`, below, `${upper}${path}`, stats)) {
			yield { kind: "modify", path, stats };
		}
		if (isFolder && isOpaque(`${upper}${path}`)) {
			for (const change of treeChanges(`${base}${path}`, `${upper}${path}`, { hideWhiteouts: true })) {
				yield { ...change, path: `${path}${change.path}` };
			}
			descend = false;
		}
	}
}

/** The attribute of a folder that hides everything below it in the layers below; `user.` is that of user namespaces. */
export function isOpaque(folder: ByteString): boolean {
	return ["trusted.overlay.opaque", "user.overlay.opaque"].some((name) => {
		const value = getXattr(fsPath(folder), name);
		return value?.length === 1 && value[0] === 0x79;
	});
}

function hasRedirect(folder: ByteString): boolean {
	return (getXattr(fsPath(folder), "trusted.overlay.redirect")?.length ?? 0) > 0;
}

/**
 * Compares two trees by walking both. `hideWhiteouts` sees an upper directory as an overlay of it alone would show it. A base
 * that is no folder, as below an opaque folder that replaced a file, has nothing in it.
 */
export function* treeChanges(
	base: ByteString | undefined,
	target: ByteString,
	options: { readonly hideWhiteouts: boolean },
): Generator<FoundChange> {
	const olds = base !== undefined && statIfAny(base)?.isDirectory() === true ? walk(base) : emptyWalk();
	const news = walk(target);
	const nextNew = (): WalkEntry | undefined => {
		for (;;) {
			const step = news.next();
			if (step.done === true) {
				return undefined;
			}
			if (!options.hideWhiteouts || !isWhiteout(step.value.stats)) {
				return step.value;
			}
		}
	};
	const nextOld = (): WalkEntry | undefined => olds.next().value ?? undefined;
	let old = nextOld();
	let fresh = nextNew();
	/** Path with a slash of a folder whose end was said already. */
	let removed = "";
	while (old !== undefined || fresh !== undefined) {
		const order = old === undefined ? 1 : fresh === undefined ? -1 : comparePaths(old.path, fresh.path);
		if (order > 0 && fresh !== undefined) {
			removed = "";
			yield { kind: "add", path: fresh.path, stats: fresh.stats };
			fresh = nextNew();
		} else if (order < 0 && old !== undefined) {
			if (removed === "" || !old.path.startsWith(removed)) {
				removed = old.stats.isDirectory() ? `${old.path}/` : "";
				yield { kind: "delete", path: old.path, stats: undefined };
			}
			old = nextOld();
		} else if (old !== undefined && fresh !== undefined) {
			const { path, stats } = fresh;
			const isSame = isSameFile(`${base}${path}`, old.stats, `${target}${path}`, stats);
			removed = old.stats.isDirectory() && !stats.isDirectory() ? `${path}/` : "";
			if (!isSame) {
				yield { kind: "modify", path, stats };
			} else if (!stats.isDirectory() && stats.nlink > 1n) {
				yield { kind: "unmodified", path, stats };
			}
			old = nextOld();
			fresh = nextNew();
		}
	}
}

function* emptyWalk(): Generator<WalkEntry, void, boolean | undefined> {}

/** Order of the walk: a slash sorts before every other byte, so that a folder's content comes right after it. */
function comparePaths(one: ByteString, other: ByteString): number {
	const length = Math.min(one.length, other.length);
	for (let index = 0; index < length; index++) {
		const a = one.charCodeAt(index);
		const b = other.charCodeAt(index);
		if (a !== b) {
			return (a === 0x2f ? 0 : a) < (b === 0x2f ? 0 : b) ? -1 : 1;
		}
	}
	return one.length - other.length;
}
