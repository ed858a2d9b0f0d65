import { type BigIntStats, lstatSync, readdirSync } from "node:fs";
import { toError, wrap } from "../errors/errors.ts";
import type { FilterState, PathFilter } from "../patterns/path-filter.ts";
import { type ByteString, bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { joinBytes } from "./byte-paths.ts";

export interface SourceEntry {
	/** Relative, `/` between names. */
	readonly path: ByteString;
	readonly stats: BigIntStats;
}

/**
 * The entries of a directory that the filter shows, in the order of fsutil's walk: names of one directory by bytes, a directory before
 * what is in it. A directory that is only on the way to something shown comes with it. What goes away meanwhile was never there.
 */
export function* walkSource(
	root: string,
	filter: PathFilter | undefined,
): Generator<SourceEntry, void, undefined> {
	const prefix: ByteString = `${root === "/" ? "" : bytesOf(root)}/`;
	yield* walkDirectory({ prefix, filter }, { path: "", parent: undefined, shown: true, stats: undefined });
}

interface Walk {
	readonly prefix: ByteString;
	readonly filter: PathFilter | undefined;
}

interface Directory {
	readonly path: ByteString;
	readonly parent: Directory | undefined;
	readonly shown: boolean;
	/** Undefined: it was given already, or is the root. */
	stats: BigIntStats | undefined;
	readonly state?: FilterState | undefined;
}

function* walkDirectory(walk: Walk, directory: Directory): Generator<SourceEntry, void, undefined> {
	for (const name of list(walk, directory)) {
		const path = joinBytes(directory.path, name);
		const state = walk.filter?.visit(textOf(path), true, directory.state);
		if (state !== undefined && !state.shown && !state.descend) {
			continue;
		}
		const shown = state?.shown ?? true;
		const stats = look(walk, path);
		if (stats === undefined) {
			continue;
		}
		if (stats.isDirectory()) {
			const below: Directory = { path, parent: directory, shown, stats, state };
			if (shown) {
				yield* pending(below);
			}
			yield* walkDirectory(walk, below);
		} else if (shown) {
			yield* pending(directory);
			yield { path, stats };
		}
	}
}

/** The directory and those around it, as far as they were not given yet. */
function* pending(directory: Directory): Generator<SourceEntry, void, undefined> {
	const { stats, path } = directory;
	if (stats === undefined) {
		return;
	}
	if (directory.parent !== undefined) {
		yield* pending(directory.parent);
	}
	directory.stats = undefined;
	yield { path, stats };
}

function list({ prefix }: Walk, { path, shown }: Directory): readonly ByteString[] {
	try {
		const names = readdirSync(fsPath(prefix + path), "latin1");
		for (let at = 1; at < names.length; at++) {
			if ((names[at - 1] ?? "") > (names[at] ?? "")) {
				return names.sort((a, b) => (a < b ? -1 : 1));
			}
		}
		return names;
	} catch (thrown) {
		const error = toError(thrown);
		if (error.code === "not-found" || (error.code === "permission-denied" && !shown)) {
			return [];
		}
		throw wrap(error, `could not read directory ${JSON.stringify(textOf(path) || ".")}`);
	}
}

function look({ prefix }: Walk, path: ByteString): BigIntStats | undefined {
	try {
		return lstatSync(fsPath(prefix + path), { bigint: true, throwIfNoEntry: false });
	} catch (thrown) {
		const error = toError(thrown);
		if (error.code === "not-found") {
			return undefined;
		}
		throw wrap(error, `could not look at ${JSON.stringify(textOf(path))}`);
	}
}
