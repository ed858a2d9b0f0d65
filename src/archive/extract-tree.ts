import { type BigIntStats, chmodSync, rmdirSync, unlinkSync } from "node:fs";
import { wrap } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf, fsPath, textOf } from "../sys/byte-names.ts";
import { setTimes, timestampOf } from "../sys/node.ts";
import { changeOwnOwner } from "../sys/owner.ts";
import type { Timestamp } from "../sys/sys.ts";
import { getXattr, listXattrs, setXattr } from "../sys/xattr.ts";
import { resolveInRoot } from "./root-path.ts";
import { namesIn, stat, statIfAny } from "./walk.ts";

/** Removes a file, or a folder with all in it. A link is removed, not followed. */
export function removeTree(path: ByteString, stats: BigIntStats): void {
	try {
		if (!stats.isDirectory()) {
			unlinkSync(fsPath(path));
			return;
		}
		for (const name of namesIn(path)) {
			const child = `${path}/${name}`;
			removeTree(child, stat(child));
		}
		rmdirSync(fsPath(path));
	} catch (thrown) {
		throw wrap(thrown, `remove ${textOf(path)}`);
	}
}

/** Gives a folder owner, mode, times and attributes of another; answers with the times, to be set again in the end. */
export function copyAttributes(
	from: ByteString,
	stats: BigIntStats,
	to: ByteString,
	withOwner: boolean,
): readonly [accessed: Timestamp, modified: Timestamp] {
	const at = fsPath(to);
	if (withOwner) {
		changeOwnOwner(at, Number(stats.uid), Number(stats.gid));
	}
	for (const name of listXattrs(fsPath(from))) {
		// The overlay's own marks say something about that folder in its layer only.
		const value =
			name.startsWith("trusted.") || name.startsWith("user.overlay.")
				? undefined
				: getXattr(fsPath(from), name);
		if (value !== undefined) {
			setXattr(at, name, value);
		}
	}
	chmodSync(at, Number(stats.mode) & 0o7777);
	const times = [timestampOf(stats.atimeNs), timestampOf(stats.mtimeNs)] as const;
	setTimes(at, ...times);
	return times;
}

/** Gives folders that an archive did not speak of the looks of those in the layers below, uppermost first. */
export function adoptOrphans(root: string, orphans: readonly ByteString[], parents: readonly string[]): void {
	const times: (readonly [path: ByteString, times: ReturnType<typeof copyAttributes>])[] = [];
	for (const orphan of orphans) {
		const path = bytesOf(root) + orphan;
		if (statIfAny(path)?.isDirectory() !== true) {
			continue;
		}
		for (const parent of parents) {
			const below = resolveInRoot(bytesOf(parent), orphan);
			const stats = statIfAny(below);
			if (stats?.isDirectory() === true) {
				times.push([path, copyAttributes(below, stats, path, true)]);
			}
			if (stats !== undefined) {
				break;
			}
		}
	}
	for (const [path, [accessed, modified]] of times) {
		setTimes(fsPath(path), accessed, modified);
	}
}
