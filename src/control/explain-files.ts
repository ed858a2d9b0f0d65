import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats } from "node:fs";
import type { CopyAction, FileOp } from "../llb/op.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { FileChange } from "./explain.ts";

/** Differences that are listed; all are counted. */
const maxListed = 1000;

export interface TreeDifference {
	readonly files: readonly FileChange[];
	readonly total: number;
}

/** What files two directories differ in, by type, mode, owner, link and content; times mean nothing. */
export function differences(beforeDir: string, afterDir: string): TreeDifference {
	const [before, after] = [beforeDir, afterDir].map((dir) => Buffer.from(dir).toString("latin1")) as [
		string,
		string,
	];
	const files: FileChange[] = [];
	let total = 0;
	const note = (path: string, change: FileChange["change"]): void => {
		total++;
		if (files.length < maxListed) {
			files.push({ path: Buffer.from(path, "latin1").toString("utf8"), change });
		}
	};
	const all = (root: string, path: string, change: FileChange["change"]): void => {
		const stat = statOf(root, path);
		if (stat?.isDirectory() === true) {
			for (const name of namesIn(root, path)) {
				all(root, `${path}/${name}`, change);
			}
		} else {
			note(path, change);
		}
	};
	const compare = (path: string): void => {
		const names = new Set([...namesIn(before, path), ...namesIn(after, path)]);
		for (const name of [...names].sort()) {
			const at = `${path}/${name}`;
			const old = statOf(before, at);
			const now = statOf(after, at);
			if (old === undefined || now === undefined) {
				all(old === undefined ? after : before, at, old === undefined ? "added" : "removed");
			} else if (old.isDirectory() && now.isDirectory()) {
				if (!hasSameAttributes(old, now)) {
					note(at, "changed");
				}
				compare(at);
			} else if (
				!isSame(old, now) &&
				!(hasSameAttributes(old, now) && hasSameContent(before, after, at, now))
			) {
				note(at, "changed");
			}
		}
	};
	compare("");
	return { files, total };
}

/** Directories with more files have no listing. */
const maxInListing = 5000;

/** Type, mode, size and time of each file of a directory. Undefined if there are too many. */
export function listingOf(directory: string): Readonly<Record<string, string>> | undefined {
	const root = Buffer.from(directory).toString("latin1");
	const listing: Record<string, string> = {};
	let count = 0;
	const pending = [""];
	for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
		for (const name of namesIn(root, path)) {
			const at = `${path}/${name}`;
			const stat = statOf(root, at);
			if (stat?.isDirectory() === true) {
				pending.push(at);
			} else if (stat !== undefined) {
				listing[Buffer.from(at, "latin1").toString("utf8")] = `${stat.mode} ${stat.size} ${stat.mtimeMs}`;
				count++;
			}
			if (count > maxInListing) {
				return undefined;
			}
		}
	}
	return listing;
}

/** What two listings differ in, at a path and below it. */
export function listingDifferences(
	before: Readonly<Record<string, string>>,
	after: Readonly<Record<string, string>>,
	below: string,
): TreeDifference {
	const prefix = below === "/" ? "/" : `${below}/`;
	const changed = [...new Set([...Object.keys(before), ...Object.keys(after)])]
		.filter((path) => (path === below || path.startsWith(prefix)) && before[path] !== after[path])
		.sort()
		.map((path): FileChange => {
			const change = before[path] === undefined ? "added" : after[path] === undefined ? "removed" : "changed";
			return { path: path.slice(1), change };
		});
	return { files: changed.slice(0, maxListed), total: changed.length };
}

function isSame(a: Stats, b: Stats): boolean {
	return a.dev === b.dev && a.ino === b.ino;
}

function hasSameAttributes(a: Stats, b: Stats): boolean {
	return (
		a.mode === b.mode &&
		a.uid === b.uid &&
		a.gid === b.gid &&
		a.rdev === b.rdev &&
		(a.isDirectory() || a.size === b.size)
	);
}

function hasSameContent(before: string, after: string, path: string, stat: Stats): boolean {
	const [a, b] = [bytesOf(before + path), bytesOf(after + path)];
	if (stat.isSymbolicLink()) {
		return readlinkSync(a, "latin1") === readlinkSync(b, "latin1");
	}
	if (!stat.isFile()) {
		return true;
	}
	const left = openSync(a, "r");
	try {
		const right = openSync(b, "r");
		try {
			const one = Buffer.allocUnsafe(64 << 10);
			const other = Buffer.allocUnsafe(64 << 10);
			for (;;) {
				const size = readSync(left, one);
				if (size !== readSync(right, other) || !one.subarray(0, size).equals(other.subarray(0, size))) {
					return false;
				}
				if (size === 0) {
					return true;
				}
			}
		} finally {
			closeSync(right);
		}
	} finally {
		closeSync(left);
	}
}

function statOf(root: string, path: string): Stats | undefined {
	return lstatSync(bytesOf(root + path), { throwIfNoEntry: false });
}

function namesIn(root: string, path: string): readonly string[] {
	const stat = statOf(root, path);
	return stat?.isDirectory() === true ? readdirSync(bytesOf(root + path), { encoding: "latin1" }) : [];
}

/** File names are bytes: each is a character here. */
function bytesOf(path: string): Buffer {
	return Buffer.from(path, "latin1");
}

/** Where a path of the result was copied from, as far as the instruction says it. */
export function sourcePath(op: FileOp, path: string): string {
	const copies = op.actions.filter((action): action is CopyAction => action.kind === "copy");
	const found = copies.map((copy) => placeIn(copy, path));
	const best = found.find((place) => place?.isFile) ?? found.find((place) => place !== undefined);
	return best?.path ?? path.replace(/^\//, "");
}

/** `isFile`: the source itself went there, and not something in it. */
function placeIn(
	{ src, dest }: CopyAction,
	path: string,
): { readonly path: string; readonly isFile: boolean } | undefined {
	const target = cleanPath(`/${dest}`);
	const source = cleanPath(`/${src}`).slice(1);
	if (path === target) {
		return { path: source || path.slice(1), isFile: true };
	}
	const prefix = target === "/" ? "/" : `${target}/`;
	if (!path.startsWith(prefix)) {
		return undefined;
	}
	const rest = path.slice(prefix.length);
	if (/[*?[]/.test(source)) {
		return { path: source.slice(0, source.lastIndexOf("/") + 1) + rest, isFile: false };
	}
	if (source === rest || source.endsWith(`/${rest}`)) {
		return { path: source, isFile: true };
	}
	return { path: source === "" ? rest : `${source}/${rest}`, isFile: false };
}
