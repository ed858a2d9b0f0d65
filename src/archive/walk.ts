import {
	type BigIntStats,
	closeSync,
	constants,
	lstatSync,
	openSync,
	readdirSync,
	readlinkSync,
	readSync,
} from "node:fs";
import { wrap } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath, textOf } from "../sys/byte-names.ts";
import { getXattr } from "../sys/xattr.ts";

/** A file in a tree. `path` begins with a slash and is below the tree's root, which is no entry itself. */
export interface WalkEntry {
	readonly path: ByteString;
	readonly stats: BigIntStats;
}

/**
 * Everything below `root` in Go's filepath.Walk order: names of a folder sorted by bytes, a folder before what is in it.
 * `next(false)` after a folder leaves its content out.
 */
export function* walk(
	root: ByteString,
	folder: ByteString = "",
): Generator<WalkEntry, void, boolean | undefined> {
	for (const name of namesIn(`${root}${folder}`)) {
		const path = `${folder}/${name}`;
		const stats = stat(`${root}${path}`);
		const descend = yield { path, stats };
		if (descend !== false && stats.isDirectory()) {
			yield* walk(root, path);
		}
	}
}

export function namesIn(folder: ByteString): ByteString[] {
	try {
		// `sort` compares 16-bit units, which are bytes in a byte string.
		return readdirSync(fsPath(folder), { encoding: "latin1" }).sort();
	} catch (thrown) {
		throw wrap(thrown, `list ${textOf(folder)}`);
	}
}

/** Not following a link. */
export function stat(path: ByteString): BigIntStats {
	try {
		return lstatSync(fsPath(path), { bigint: true });
	} catch (thrown) {
		throw wrap(thrown, `stat ${textOf(path)}`);
	}
}

/** The same, or `undefined` if there is no such file. */
export function statIfAny(path: ByteString): BigIntStats | undefined {
	try {
		return lstatSync(fsPath(path), { bigint: true, throwIfNoEntry: false });
	} catch (thrown) {
		// A parent is a file.
		if ((thrown as NodeJS.ErrnoException).code === "ENOTDIR") {
			return undefined;
		}
		throw wrap(thrown, `stat ${textOf(path)}`);
	}
}

export function readLink(path: ByteString): ByteString {
	try {
		return readlinkSync(fsPath(path), { encoding: "latin1" });
	} catch (thrown) {
		throw wrap(thrown, `read link ${textOf(path)}`);
	}
}

/** The capabilities of a program: the one attribute that BuildKit puts into layers. */
export function capabilitiesOf(path: ByteString): Uint8Array | undefined {
	return getXattr(fsPath(path), "security.capability");
}

/** A file of an overlay that hides one of the same name below: a character device 0/0. */
export function isWhiteout(stats: BigIntStats): boolean {
	return stats.isCharacterDevice() && stats.rdev === 0n;
}

/**
 * True if a file is the same in both trees, by continuity's rules, which decide what is in a layer: meta data but for
 * sub-second times that an archive may have cut off, and the content where only such times could tell.
 */
export function isSameFile(
	base: ByteString,
	one: BigIntStats,
	upper: ByteString,
	other: BigIntStats,
): boolean {
	if (one.dev === other.dev && one.ino === other.ino) {
		return true;
	}
	if (one.mode !== other.mode || one.uid !== other.uid || one.gid !== other.gid || one.rdev !== other.rdev) {
		return false;
	}
	if (!equalBytes(capabilitiesOf(base), capabilitiesOf(upper))) {
		return false;
	}
	if (one.isDirectory()) {
		return true;
	}
	if (one.size !== other.size || one.mtimeNs !== other.mtimeNs) {
		return false;
	}
	if (one.mtimeNs % 1_000_000_000n !== 0n) {
		return true;
	}
	if (one.isSymbolicLink()) {
		return readLink(base) === readLink(upper);
	}
	return one.size === 0n || equalContent(base, upper);
}

function equalBytes(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
	return Buffer.from(one ?? []).equals(other ?? Buffer.alloc(0));
}

const compareBytes = 256 << 10;
let buffers: readonly [Buffer, Buffer] | undefined;

function equalContent(one: ByteString, other: ByteString): boolean {
	buffers ??= [Buffer.allocUnsafeSlow(compareBytes), Buffer.allocUnsafeSlow(compareBytes)];
	const [left, right] = buffers;
	const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
	const fds: number[] = [];
	try {
		for (const path of [one, other]) {
			fds.push(openSync(fsPath(path), flags));
		}
		const [first = -1, second = -1] = fds;
		for (;;) {
			const got = readFull(first, left);
			if (got !== readFull(second, right) || left.compare(right, 0, got, 0, got) !== 0) {
				return false;
			}
			if (got < compareBytes) {
				return true;
			}
		}
	} catch (thrown) {
		throw wrap(thrown, `compare ${textOf(one)} with ${textOf(other)}`);
	} finally {
		for (const fd of fds) {
			closeSync(fd);
		}
	}
}

function readFull(fd: number, into: Buffer): number {
	let filled = 0;
	while (filled < into.length) {
		const got = readSync(fd, into, filled, into.length - filled, null);
		if (got === 0) {
			break;
		}
		filled += got;
	}
	return filled;
}
