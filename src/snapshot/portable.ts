import { linkSync, lstatSync, mkdirSync, readdirSync } from "node:fs";
import { bytesOf, fsPath } from "../sys/byte-names.ts";
import { makeNode } from "../sys/node.ts";
import { getXattr, setXattr } from "../sys/xattr.ts";
import { copyMetadata } from "./copy-tree.ts";

/**
 * Overlay directories on other parents. overlayfs marks a directory opaque when it replaces a deleted one, and, to save look-ups,
 * also nearly every new one. On the parents it was made on the mark hides exactly what it shall hide; elsewhere it would
 * hide strangers' files.
 *
 * Where nothing is below a directory overlayfs lists it as it is, whiteouts too, unless it has the attribute `origin`
 * (ovl_path_check_origin_xattr in the kernel; an empty value means that its origin is not known).
 */
export interface LinkTask {
	readonly from: string;
	readonly to: string;
	/** Where the parents of `from` are mounted together. */
	readonly base: string | undefined;
	readonly prefix: AttributePrefix;
}

/** overlayfs in a user namespace keeps its attributes under `user.`. */
export type AttributePrefix = "trusted.overlay." | "user.overlay.";

/** True if no directory below `root` is opaque and all that have whiteouts say so. */
export function isPortable(root: string, prefix: AttributePrefix, check: () => void): boolean {
	const pending = [bytesOf(root)];
	for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
		check();
		let whiteouts = false;
		for (const entry of readdirSync(fsPath(dir), { encoding: "latin1", withFileTypes: true })) {
			const path = `${dir}/${entry.name}`;
			if (entry.isDirectory()) {
				if (isOpaque(path, prefix)) {
					return false;
				}
				pending.push(path);
			} else {
				whiteouts ||= entry.isCharacterDevice() && lstatSync(fsPath(path)).rdev === 0;
			}
		}
		if (whiteouts && getXattr(fsPath(dir), `${prefix}origin`) === undefined) {
			return false;
		}
	}
	return true;
}

/** Fills the directory `to` with hard links to the files of `from`, and with whiteouts in place of opaque marks. */
export function linkTree(task: LinkTask, check: () => void): void {
	const linkDirectory = (from: string, to: string, base: string | undefined, hides: boolean): void => {
		check();
		const names = new Set<string>();
		let whiteouts = hides && base !== undefined;
		for (const entry of readdirSync(fsPath(from), { encoding: "latin1", withFileTypes: true })) {
			names.add(entry.name);
			const source = `${from}/${entry.name}`;
			const target = `${to}/${entry.name}`;
			if (entry.isDirectory()) {
				mkdirSync(fsPath(target), { mode: 0o700 });
				const below = base === undefined ? undefined : directoryAt(`${base}/${entry.name}`);
				linkDirectory(source, target, below, hides || isOpaque(source, task.prefix));
			} else {
				linkSync(fsPath(source), fsPath(target));
				whiteouts ||= entry.isCharacterDevice() && lstatSync(fsPath(source)).rdev === 0;
			}
		}
		if (hides && base !== undefined) {
			for (const name of readdirSync(fsPath(base), { encoding: "latin1" })) {
				if (!names.has(name)) {
					makeNode(fsPath(`${to}/${name}`), "character", 0, 0);
				}
			}
		}
		copyMetadata(from, to, lstatSync(fsPath(from), { bigint: true }));
		if (whiteouts) {
			setXattr(fsPath(to), `${task.prefix}origin`, new Uint8Array());
		}
	};
	const base = task.base === undefined ? undefined : bytesOf(task.base);
	linkDirectory(bytesOf(task.from), bytesOf(task.to), base, false);
}

function isOpaque(path: string, prefix: AttributePrefix): boolean {
	const value = getXattr(fsPath(path), `${prefix}opaque`);
	return value?.length === 1 && value[0] === 0x79;
}

/** A file in its place has nothing below that could be hidden. */
function directoryAt(path: string): string | undefined {
	return lstatSync(fsPath(path), { throwIfNoEntry: false })?.isDirectory() === true ? path : undefined;
}
