import { statfsSync } from "node:fs";
import { toError } from "../errors/errors.ts";
import { cFunction, check, cPath, showPath } from "./ffi.ts";
import type { RenameMode, Space, SysPath, Timestamp } from "./sys.ts";

type CPath = string | Uint8Array;

const atCwd = -100;
const noFollow = 0x100;

/** `mknod` is no function of glibc before 2.33, so the system call is made by number. */
const mknodat = cFunction<[number, number, CPath, number, number]>("syscall", "long", [
	"long",
	"long",
	"const char *",
	"long",
	"long",
]);
const mknodatNumber = process.arch === "arm64" ? 33 : 259;

export type NodeKind = "character" | "block" | "fifo" | "socket";

const typeBits: Readonly<Record<NodeKind, number>> = {
	character: 0o020000,
	block: 0o060000,
	fifo: 0o010000,
	socket: 0o140000,
};

/** Makes a special file. `mode` is permissions, less the process's umask; `device` is from `makeDevice`. */
export function makeNode(path: SysPath, kind: NodeKind, mode: number, device = 0): void {
	check(
		mknodat(mknodatNumber, atCwd, cPath(path), typeBits[kind] | (mode & 0o7777), device),
		() => `mknod ${showPath(path)}`,
	);
}

/** Device numbers as the kernel packs them: 12 bits of major and 20 of minor in the low word. */
export function makeDevice(major: number, minor: number): number {
	return (minor & 0xff) + ((major & 0xfff) << 8) + (minor & 0xfff00) * 0x1000;
}

export function splitDevice(device: number): { readonly major: number; readonly minor: number } {
	const high = Math.floor(device / 2 ** 32);
	const low = device % 2 ** 32;
	return {
		major: ((low >>> 8) & 0xfff) + (high & 0xfffff000),
		minor: (low & 0xff) + ((low >>> 12) & 0xfff00) + (high % 2 ** 12) * 2 ** 20,
	};
}

const utimensat = cFunction<[number, CPath, BigInt64Array, number]>("utimensat", "int", [
	"int",
	"const char *",
	"void *",
	"int",
]);
const keepTime = (1n << 30n) - 2n;
const timespecs = new BigInt64Array(4);

/** Sets times to the nanosecond, of a symbolic link itself. `undefined` leaves that time as it is. */
export function setTimes(
	path: SysPath,
	accessed: Timestamp | undefined,
	modified: Timestamp | undefined,
): void {
	timespecs[0] = accessed === undefined ? 0n : BigInt(accessed.seconds);
	timespecs[1] = accessed === undefined ? keepTime : BigInt(accessed.nanoseconds);
	timespecs[2] = modified === undefined ? 0n : BigInt(modified.seconds);
	timespecs[3] = modified === undefined ? keepTime : BigInt(modified.nanoseconds);
	check(utimensat(atCwd, cPath(path), timespecs, noFollow), () => `utimensat ${showPath(path)}`);
}

const renameat2 = cFunction<[number, CPath, number, CPath, number]>("renameat2", "int", [
	"int",
	"const char *",
	"int",
	"const char *",
	"uint",
]);
const renameFlags: Readonly<Record<RenameMode, number>> = { "no-replace": 1, exchange: 2 };

/** Renames in one step: swaps two names, or fails with `already-exists` instead of replacing. */
export function renameWith(from: SysPath, to: SysPath, mode: RenameMode): void {
	check(
		renameat2(atCwd, cPath(from), atCwd, cPath(to), renameFlags[mode]),
		() => `renameat2 ${showPath(from)} to ${showPath(to)}`,
	);
}

export function freeSpace(path: string): Space {
	try {
		const { bsize, blocks, bfree, bavail } = statfsSync(path);
		return { total: blocks * bsize, free: bfree * bsize, available: bavail * bsize };
	} catch (thrown) {
		throw toError(thrown);
	}
}

const syncfs = cFunction<[number]>("syncfs", "int", ["int"]);

/** Writes all of the file system that holds the open file to its disk: one barrier for many files. */
export function syncFileSystem(fd: number): void {
	check(syncfs(fd), () => `syncfs of descriptor ${fd}`);
}

const nanosPerSecond = 1_000_000_000n;

/** A time in nanoseconds since 1970, as file status has it; times before 1970 count forward from an earlier second. */
export function timestampOf(nanos: bigint): Timestamp {
	const rest = ((nanos % nanosPerSecond) + nanosPerSecond) % nanosPerSecond;
	return { seconds: Number((nanos - rest) / nanosPerSecond), nanoseconds: Number(rest) };
}
