import {
	chmodSync,
	lstatSync,
	mkdirSync,
	readdirSync,
	rmSync,
	statSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { findDetail, SlipwayError, toError } from "../errors/errors.ts";
import { cleanPath, joinPath } from "../patterns/clean-path.ts";
import { compileGlob, hasWildcard } from "../patterns/glob.ts";
import { setTimes } from "../sys/node.ts";
import { changeOwnOwner } from "../sys/owner.ts";
import { resolveInRoot } from "../sys/root-path.ts";
import type { Timestamp } from "../sys/sys.ts";
import { copyTree } from "./copy-tree.ts";

/**
 * What file actions do to a mounted tree, one function each; synchronous, for the calling thread or a worker thread. `root` is
 * the tree that is changed; no path of an action leads out of it. Messages name paths as the tree's user sees them.
 */
export interface FileOwner {
	readonly uid: number;
	readonly gid: number;
}

export interface CopyRequest {
	readonly sourceRoot: string;
	readonly root: string;
	/** Cleaned and rooted. */
	readonly source: string;
	/** Rooted; a trailing slash or `/.` means a directory. */
	readonly dest: string;
	readonly owner?: FileOwner;
	readonly mode?: number;
	readonly modeText: string;
	readonly time?: Timestamp;
	readonly followSymlink: boolean;
	readonly contentsOnly: boolean;
	readonly includePatterns: readonly string[];
	readonly excludePatterns: readonly string[];
	readonly replaceExisting: boolean;
	/** See `CopyTreeOptions`. */
	readonly mayLink: boolean;
}

const defaultDirectoryMode = 0o755;

export function makeDirectory(
	root: string,
	path: string,
	options: {
		readonly mode: number;
		readonly makeParents: boolean;
		readonly owner: FileOwner | undefined;
		readonly time: Timestamp | undefined;
	},
): void {
	changing(root, path, "mkdir", () => {
		const target = resolveInRoot(root, path);
		if (options.makeParents) {
			makeAll(target, options);
			return;
		}
		if (lstatSync(target, { throwIfNoEntry: false }) === undefined) {
			mkdirSync(target);
			setAttributes(target, options);
		}
	});
}

export function makeFile(
	root: string,
	path: string,
	options: {
		readonly mode: number;
		readonly data: Uint8Array;
		readonly owner: FileOwner | undefined;
		readonly time: Timestamp | undefined;
	},
): void {
	changing(root, path, "open", () => {
		const target = resolveInRoot(root, path);
		const isNew = lstatSync(target, { throwIfNoEntry: false }) === undefined;
		writeFileSync(target, options.data);
		setAttributes(target, { ...options, mode: isNew ? options.mode : statSync(target).mode & 0o777 });
	});
}

export function makeSymlink(
	root: string,
	target: string,
	path: string,
	options: { readonly owner: FileOwner | undefined; readonly time: Timestamp | undefined },
): void {
	changing(root, path, `symlink ${target}`, () => {
		const link = resolveInRoot(root, path);
		symlinkSync(target, link);
		setAttributes(link, options);
	});
}

export function removePath(
	root: string,
	path: string,
	options: { readonly allowNotFound: boolean; readonly allowWildcard: boolean },
): void {
	const paths = options.allowWildcard
		? findMatches(root, cleanPath(`/${path}`), false)
		: [cleanPath(`/${path}`)];
	for (const each of paths) {
		if (each === "/") {
			throw new SlipwayError("invalid-argument", "cannot remove the root directory");
		}
		changing(root, each, "stat", () => {
			const target = `${resolveInRoot(root, dirname(each))}/${basename(each)}`;
			if (!options.allowNotFound) {
				statSync(target);
			}
			rmSync(target, { recursive: true, force: true });
		});
	}
}

/**
 * The paths in a tree that a copy or removal means: those that match where the path has wildcards (which stand for names in one
 * directory, never for a slash), else the path itself whether it is there or not.
 */
export function findMatches(root: string, path: string, followLinks: boolean): readonly string[] {
	const parts = path.split("/").filter((part) => part !== "");
	const first = parts.findIndex(hasWildcard);
	if (first === -1) {
		return [path];
	}
	const base = `/${parts.slice(0, first).join("/")}`;
	let directories = [{ path: base, real: followLinks ? resolveInRoot(root, base) : withoutLast(root, base) }];
	for (const part of parts.slice(first)) {
		const glob = compileGlob(part, { doubleStar: false });
		directories = directories.flatMap((directory) =>
			namesIn(directory.real)
				.filter((name) => glob.matches(name))
				.map((name) => ({ path: joinPath(directory.path, name), real: `${directory.real}/${name}` })),
		);
	}
	return directories.map((directory) => directory.path);
}

/** Copies one path; what `source` means was settled by `findMatches`. */
export function copyPath(request: CopyRequest, check: () => void): void {
	const { root, sourceRoot, dest } = request;
	const source = changing(sourceRoot, request.source, "lstat", () => sourceFor(request));
	const isDirectory = changing(sourceRoot, request.source, "lstat", () => lstatSync(source).isDirectory());
	inRoot(root, dest, () =>
		inRoot(sourceRoot, request.source, () => {
			const options = {
				mode: request.mode ?? defaultDirectoryMode,
				owner: request.owner,
				time: request.time,
			};
			const made = [...makeAll(resolveInRoot(root, directoryPart(dest)), options)];
			let target = resolveInRoot(root, cleanPath(dest));
			const found = statSync(target, { throwIfNoEntry: false });
			if (
				(isDirectory && !request.contentsOnly && found !== undefined) ||
				(!isDirectory && found?.isDirectory() === true)
			) {
				target = `${target}/${basename(request.source)}`;
			}
			const parent = isDirectory && request.contentsOnly && found === undefined ? target : dirname(target);
			made.push(...makeAll(parent, options));
			copyTree(source, target, {
				...(request.owner === undefined ? {} : { owner: request.owner }),
				...(request.mode === undefined ? {} : { mode: request.mode }),
				...(request.time === undefined ? {} : { time: request.time }),
				modeText: request.modeText,
				includePatterns: request.includePatterns,
				excludePatterns: request.excludePatterns,
				replaceExisting: request.replaceExisting,
				mayLink: request.mayLink,
				check,
			});
			for (const directory of made.reverse()) {
				if (request.time !== undefined) {
					setTimes(directory, request.time, request.time);
				}
			}
		}),
	);
}

/** Makes a directory and the missing ones above it, all alike; gives those that it made, topmost first. */
export function makeAll(
	path: string,
	options: {
		readonly mode: number;
		readonly owner: FileOwner | undefined;
		readonly time: Timestamp | undefined;
	},
): readonly string[] {
	const missing: string[] = [];
	for (let at = path; statSync(at, { throwIfNoEntry: false }) === undefined; at = dirname(at)) {
		missing.push(at);
	}
	const lowest = missing.at(-1);
	if (!statSync(lowest === undefined ? path : dirname(lowest)).isDirectory()) {
		throw new SlipwayError("failed-precondition", `mkdir ${path}: not a directory`, {
			details: [{ kind: "errno", errno: "ENOTDIR" }],
		});
	}
	for (const directory of missing.reverse()) {
		mkdirSync(directory);
		setAttributes(directory, options);
	}
	return missing;
}

function setAttributes(
	path: string,
	options: {
		readonly mode?: number;
		readonly owner: FileOwner | undefined;
		readonly time: Timestamp | undefined;
	},
): void {
	if (options.owner !== undefined) {
		changeOwnOwner(path, options.owner.uid, options.owner.gid);
	}
	if (options.mode !== undefined) {
		chmodSync(path, options.mode & 0o7777);
	}
	if (options.time !== undefined) {
		setTimes(path, options.time, options.time);
	}
}

function sourceFor(request: CopyRequest): string {
	const { sourceRoot, source } = request;
	return request.followSymlink ? resolveInRoot(sourceRoot, source) : withoutLast(sourceRoot, source);
}

/** Resolved but for its last part, which may be a link. */
function withoutLast(root: string, path: string): string {
	return path === "/" ? root : `${resolveInRoot(root, dirname(path))}/${basename(path)}`;
}

/** `/a/b/` and `/a/b/.` are directories of that name; `/a/b` lies in `/a`. */
function directoryPart(dest: string): string {
	return dest.endsWith("/.") ? dest : dest.slice(0, dest.lastIndexOf("/") + 1);
}

function namesIn(directory: string): readonly string[] {
	if (lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
		return [];
	}
	return readdirSync(directory).sort();
}

/** Errors in terms of the tree: where it is mounted is nobody's business. */
function inRoot<T>(root: string, path: string, work: () => T): T {
	try {
		return work();
	} catch (thrown) {
		const error = toError(thrown);
		const message = error.message.includes(root)
			? error.message.replaceAll(`${root}/`, "/").replaceAll(root, "/")
			: error.message;
		const text =
			error.code === "not-found" && message.includes("ENOENT")
				? `${JSON.stringify(path)}: not found`
				: message;
		throw new SlipwayError(error.code, text, { cause: thrown, details: error.details });
	}
}

/** As Go says it, which is what people find when they look for the message. */
function changing<T>(root: string, path: string, call: string, work: () => T): T {
	try {
		return work();
	} catch (thrown) {
		const error = toError(thrown);
		const errno = findDetail(error, "errno")?.errno ?? "";
		const why = errnoWords[errno];
		if (why === undefined) {
			inRoot(root, path, () => {
				throw error;
			});
		}
		throw new SlipwayError(error.code, `${call} ${path}: ${why}`, { cause: thrown, details: error.details });
	}
}

const errnoWords: Readonly<Record<string, string>> = {
	EACCES: "permission denied",
	EEXIST: "file exists",
	EISDIR: "is a directory",
	ELOOP: "too many levels of symbolic links",
	ENAMETOOLONG: "file name too long",
	ENOENT: "no such file or directory",
	ENOSPC: "no space left on device",
	ENOTDIR: "not a directory",
};
