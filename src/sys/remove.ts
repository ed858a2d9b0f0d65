import { closeSync, constants, type Dirent, openSync, readdirSync, rmSync } from "node:fs";
import { cFunction } from "./ffi.ts";
import type { SysPath } from "./sys.ts";

const ioctl = cFunction<[number, number, BigUint64Array]>("ioctl", "int", ["int", "long", "void *"]);
/** linux/fs.h, for 64-bit machines. */
const getFlags = 0x8008_6601;
const setFlags = 0x4008_6602;
const appendOnly = 0x20n;
const immutable = 0x10n;

/**
 * Removes a tree, also one in which a privileged step made files immutable: root may not remove those either before they are
 * changed back. What is not there is no error.
 */
export function removeTree(path: string): void {
	try {
		rmSync(path, { recursive: true, force: true });
	} catch (thrown) {
		const { code } = thrown as NodeJS.ErrnoException;
		if (code !== "EPERM" && code !== "EACCES" && !String(thrown).includes("EPERM")) {
			throw thrown;
		}
		makeChangeable(Buffer.from(path));
		rmSync(path, { recursive: true, force: true });
	}
}

function makeChangeable(path: Buffer): void {
	clearFlags(path);
	let entries: readonly Dirent<Buffer>[];
	try {
		entries = readdirSync(path, { withFileTypes: true, encoding: "buffer" });
	} catch {
		return;
	}
	for (const entry of entries) {
		const child = Buffer.concat([path, Buffer.from("/"), entry.name]);
		if (entry.isDirectory()) {
			makeChangeable(child);
		} else if (entry.isFile()) {
			clearFlags(child);
		}
	}
}

function clearFlags(path: SysPath): void {
	let fd: number;
	try {
		fd = openSync(path as Buffer, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
	} catch {
		return;
	}
	try {
		const flags = new BigUint64Array(1);
		if (ioctl(fd, getFlags, flags) === 0) {
			const [now = 0n] = flags;
			if ((now & (immutable | appendOnly)) !== 0n) {
				flags[0] = now & ~(immutable | appendOnly);
				// A file system without such flags says so, and needs nothing.
				ioctl(fd, setFlags, flags);
			}
		}
	} finally {
		closeSync(fd);
	}
}
