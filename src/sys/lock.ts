import { closeSync, constants, ftruncateSync, openSync, writeSync } from "node:fs";
import { toError } from "../errors/errors.ts";
import { cFunction, errno, errnoNumber, sysError } from "./ffi.ts";
import type { FileLock } from "./sys.ts";

const flock = cFunction<[number, number]>("flock", "int", ["int", "int"]);
const exclusiveNow = 2 | 4;
const unlock = 8;

/** Locks the open file for itself alone, without waiting. False if another open file has the lock, even of this process. */
export function tryLock(fd: number): boolean {
	if (flock(fd, exclusiveNow) >= 0) {
		return true;
	}
	const number = errno();
	if (number === errnoNumber.EAGAIN) {
		return false;
	}
	throw sysError(`flock of descriptor ${fd}`, number);
}

/**
 * Makes the file if needed, locks it and writes this process's id into it. `undefined` if it is locked. The kernel
 * releases the lock with the process, however it ends. The file stays: removing it would let two owners in.
 */
export function lockFile(path: string): FileLock | undefined {
	let fd: number;
	try {
		fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
	} catch (thrown) {
		throw toError(thrown);
	}
	let open = true;
	const close = (): void => {
		if (open) {
			open = false;
			flock(fd, unlock);
			closeSync(fd);
		}
	};
	try {
		if (!tryLock(fd)) {
			close();
			return undefined;
		}
		ftruncateSync(fd, 0);
		writeSync(fd, `${process.pid}\n`, 0);
		return { path, [Symbol.dispose]: close };
	} catch (thrown) {
		close();
		throw toError(thrown);
	}
}
