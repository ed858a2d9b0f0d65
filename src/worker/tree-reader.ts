import {
	closeSync,
	constants,
	fstatSync,
	lstatSync,
	openSync,
	readdirSync,
	readlinkSync,
	readSync,
} from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { FrontendEntry } from "../frontend/frontend.ts";
import { createPatternMatcher } from "../patterns/pattern-matcher.ts";
import type { PatternMatcher } from "../patterns/patterns.ts";
import { resolveInRoot } from "../sys/root-path.ts";
import { getXattr, listXattrs } from "../sys/xattr.ts";

/** As much as one message of BuildKit's API holds. */
const maxFileBytes = 16 * 1024 * 1024;

export interface ReadRange {
	readonly offset?: number;
	readonly maxBytes?: number;
}

/** Reads files of a mounted tree for a frontend; no path leads out of it. Errors name the path as the tree has it. */
export function readTreeFile(root: string, path: string, range: ReadRange = {}): Uint8Array {
	return at("open", path, () => {
		const fd = openSync(
			resolveInRoot(root, path),
			constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW,
		);
		try {
			const stat = fstatSync(fd);
			if (!stat.isFile()) {
				throw new SlipwayError("invalid-argument", `${path} is not a regular file`);
			}
			const { offset = 0, maxBytes = stat.size } = range;
			if (offset < 0) {
				throw new SlipwayError("out-of-range", `readat ${path}: negative offset`);
			}
			// A negative length is none at all, as in BuildKit.
			const size = Math.max(0, Math.min(stat.size - offset, maxBytes < 0 ? stat.size : maxBytes));
			if (size > maxFileBytes) {
				throw new SlipwayError("resource-exhausted", `${path} has ${size} bytes, more than ${maxFileBytes}`);
			}
			const data = new Uint8Array(size);
			const length = readSync(fd, data, 0, size, offset);
			return data.subarray(0, length);
		} finally {
			closeSync(fd);
		}
	});
}

/** The thread is others' too: a large tree is read in slices of this length. */
const sliceMs = 8;

/** With a pattern (of ignore files): entries that match, and directories with something below that does. */
export async function readTreeDirectory(
	root: string,
	path: string,
	{
		includePattern = "",
		signal,
	}: { readonly includePattern?: string | undefined; readonly signal: AbortSignal },
): Promise<readonly FrontendEntry[]> {
	const steps = at("open", path, () => directoryEntries(resolveInRoot(root, path), includePattern));
	const entries: FrontendEntry[] = [];
	let sliceEnd = performance.now() + sliceMs;
	for (;;) {
		const step = at("open", path, () => steps.next());
		if (step.done === true) {
			return entries;
		}
		if (step.value !== undefined) {
			entries.push(step.value);
		}
		if (performance.now() > sliceEnd) {
			await nextTurn();
			signal.throwIfAborted();
			sliceEnd = performance.now() + sliceMs;
		}
	}
}

/** The entries, with `undefined` at places between that it can be left at. */
function* directoryEntries(
	directory: string,
	includePattern: string,
): Generator<FrontendEntry | undefined, void> {
	const matcher = includePattern === "" ? undefined : createPatternMatcher([includePattern]);
	const deep = includePattern.includes("/");
	for (const name of readdirSync(directory).sort()) {
		if (matcher === undefined || (yield* hasMatch(matcher, directory, name, deep))) {
			yield entryOf(`${directory}/${name}`, name);
		}
	}
}

function* hasMatch(
	matcher: PatternMatcher,
	directory: string,
	path: string,
	deep: boolean,
): Generator<undefined, boolean> {
	if (matcher.matches(path)) {
		return true;
	}
	yield undefined;
	const full = `${directory}/${path}`;
	if (!deep || !lstatSync(full).isDirectory()) {
		return false;
	}
	for (const name of readdirSync(full)) {
		if (yield* hasMatch(matcher, directory, `${path}/${name}`, deep)) {
			return true;
		}
	}
	return false;
}

export function statTree(root: string, path: string): FrontendEntry {
	return at("lstat", path, () => {
		const full = resolveInRoot(root, path);
		return entryOf(full, full.slice(full.lastIndexOf("/") + 1));
	});
}

function entryOf(path: string, name: string): FrontendEntry {
	const stat = lstatSync(path, { bigint: true });
	const kind = stat.isFile()
		? "file"
		: stat.isDirectory()
			? "directory"
			: stat.isSymbolicLink()
				? "symlink"
				: "other";
	const device = stat.isBlockDevice() || stat.isCharacterDevice();
	return {
		name,
		kind,
		size: kind === "directory" ? 0 : Number(stat.size),
		modifiedMs: Number(stat.mtimeNs / 1_000_000n),
		modifiedNs: stat.mtimeNs,
		mode: Number(stat.mode),
		uid: Number(stat.uid),
		gid: Number(stat.gid),
		linkTarget: kind === "symlink" ? readlinkSync(path) : "",
		deviceMajor: device ? Number((stat.rdev >> 8n) & 0xfffn) : 0,
		deviceMinor: device ? Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n)) : 0,
		xattrs: xattrsOf(path),
	};
}

function xattrsOf(path: string): ReadonlyMap<string, Uint8Array> {
	const found = new Map<string, Uint8Array>();
	for (const name of listXattrs(path)) {
		const value = getXattr(path, name);
		if (value !== undefined) {
			found.set(name, value);
		}
	}
	return found;
}

function at<T>(call: string, path: string, work: () => T): T {
	try {
		return work();
	} catch (thrown) {
		const error = toError(thrown);
		const text = error.code === "not-found" ? `${call} ${path}: no such file or directory` : error.message;
		throw new SlipwayError(error.code, text, { cause: thrown, details: error.details });
	}
}
