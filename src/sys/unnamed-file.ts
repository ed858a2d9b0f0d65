import { constants, openSync } from "node:fs";
import { cFunction, check, cPath, showPath } from "./ffi.ts";
import type { SysPath } from "./sys.ts";

/** `__O_TMPFILE` of Linux; Node has no name for it. It is only valid together with O_DIRECTORY. */
const unnamed = 0o20000000 | constants.O_DIRECTORY;
const atCwd = -100;
const followSymlinks = 0x400;

const linkat = cFunction<[number, string, number, string | Uint8Array, number]>("linkat", "int", [
	"int",
	"const char *",
	"int",
	"const char *",
	"int",
]);

/**
 * A new file in a directory that has no name: it is gone with its last descriptor, however the process ends, unless
 * `nameFile` gives it a name. Undefined where the file system cannot do that.
 */
export function openUnnamedFile(directory: string, mode: number): number | undefined {
	try {
		return openSync(directory, constants.O_WRONLY | unnamed, mode);
	} catch (thrown) {
		const { code } = thrown as NodeJS.ErrnoException;
		if (code === "EOPNOTSUPP" || code === "EISDIR" || code === "EINVAL" || code === "ENOENT") {
			return undefined;
		}
		throw thrown;
	}
}

/** Gives a file of `openUnnamedFile` a name that nobody has yet. */
export function nameFile(fd: number, path: SysPath): void {
	check(
		linkat(atCwd, `/proc/self/fd/${fd}`, atCwd, cPath(path), followSymlinks),
		() => `linkat ${showPath(path)}`,
	);
}
