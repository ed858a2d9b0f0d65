import {
	type BigIntStats,
	chmodSync,
	linkSync,
	lstatSync,
	mkdirSync,
	readdirSync,
	readlinkSync,
	symlinkSync,
} from "node:fs";
import { fsPath } from "../sys/byte-names.ts";
import { copyFile } from "../sys/copy.ts";
import { makeNode, setTimes, timestampOf } from "../sys/node.ts";
import { changeOwnOwner } from "../sys/owner.ts";
import { getXattr, listXattrs, setXattr } from "../sys/xattr.ts";

/** `trusted.overlay.` and `user.overlay.` attributes describe a place in an overlay, not the file. */
const overlayAttribute = /^(trusted|user)\.overlay\./;

/**
 * Copies what is in `from` into `to`, an existing directory, which gets the metadata of `from`: contents, links between
 * files, devices, owners, modes, attributes and times to the nanosecond. No file is shared with the original but for
 * blocks that the file system shares by itself. `check` is called for each directory and may throw.
 */
export function copyTree(from: string, to: string, check: () => void = () => {}): void {
	const linked = new Map<string, string>();
	copyDirectory(bytes(from), bytes(to), linked, check);
}

function copyDirectory(from: string, to: string, linked: Map<string, string>, check: () => void): void {
	check();
	for (const name of readdirSync(fsPath(from), { encoding: "latin1" })) {
		const source = `${from}/${name}`;
		const target = `${to}/${name}`;
		const stat = lstatSync(fsPath(source), { bigint: true });
		if (stat.isDirectory()) {
			mkdirSync(fsPath(target), { mode: 0o700 });
			copyDirectory(source, target, linked, check);
			continue;
		}
		if (stat.nlink > 1n) {
			const key = `${stat.dev}:${stat.ino}`;
			const first = linked.get(key);
			if (first !== undefined) {
				linkSync(fsPath(first), fsPath(target));
				continue;
			}
			linked.set(key, target);
		}
		copyEntry(source, target, stat);
		copyMetadata(source, target, stat);
	}
	// Last, because its times change with its entries.
	copyMetadata(from, to, lstatSync(fsPath(from), { bigint: true }));
}

function copyEntry(source: string, target: string, stat: BigIntStats): void {
	if (stat.isFile()) {
		copyFile(fsPath(source), fsPath(target), 0o600);
	} else if (stat.isSymbolicLink()) {
		symlinkSync(readlinkSync(fsPath(source), { encoding: "buffer" }), fsPath(target));
	} else {
		const kind = stat.isCharacterDevice()
			? "character"
			: stat.isBlockDevice()
				? "block"
				: stat.isFIFO()
					? "fifo"
					: "socket";
		makeNode(fsPath(target), kind, 0o600, Number(stat.rdev));
	}
}

/** The owner first: changing it clears setuid bits and capabilities. */
export function copyMetadata(source: string, target: string, stat: BigIntStats): void {
	changeOwnOwner(fsPath(target), Number(stat.uid), Number(stat.gid));
	if (!stat.isSymbolicLink()) {
		chmodSync(fsPath(target), Number(stat.mode) & 0o7777);
	}
	for (const name of listXattrs(fsPath(source))) {
		const value = overlayAttribute.test(name) ? undefined : getXattr(fsPath(source), name);
		if (value !== undefined) {
			setXattr(fsPath(target), name, value);
		}
	}
	setTimes(fsPath(target), timestampOf(stat.atimeNs), timestampOf(stat.mtimeNs));
}

function bytes(path: string): string {
	return Buffer.from(path).toString("latin1");
}
