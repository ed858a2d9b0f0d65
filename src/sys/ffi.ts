import { createRequire } from "node:module";
import { getSystemErrorMap } from "node:util";
import { type SlipwayError, toError } from "../errors/errors.ts";
import type { SysPath } from "./sys.ts";

/**
 * The door to the C library of this process. The FFI library is loaded by the first call: its import costs 4 to 6 ms,
 * which a start of the command line must not pay.
 */

type Koffi = typeof import("koffi");
type Library = ReturnType<Koffi["load"]>;

let loaded: { readonly koffi: Koffi; readonly libc: Library } | undefined;

export function ffi(): { readonly koffi: Koffi; readonly libc: Library } {
	if (loaded === undefined) {
		const koffi = createRequire(import.meta.url)("koffi") as Koffi;
		// `null` is the program itself, which has its C library in it; a name would differ between glibc and musl.
		loaded = { koffi, libc: koffi.load(null) };
	}
	return loaded;
}

/** C types that our calls take. A path is text or bytes with a closing NUL. */
export type CType = "int" | "uint" | "long" | "size_t" | "const char *" | "void *" | "const char **";

/** A C function, bound at its first call. */
export function cFunction<A extends readonly unknown[]>(
	name: string,
	result: CType,
	parameters: readonly CType[],
): (...args: A) => number {
	let bound: ((...args: A) => number) | undefined;
	return (...args) => {
		bound ??= ffi().libc.func(name, result, [...parameters]) as unknown as (...args: A) => number;
		return bound(...args);
	};
}

/** True if the C library has the function: musl and older glibc lack some. */
export function hasFunction(name: string): boolean {
	try {
		ffi().libc.func(name, "int", []);
		return true;
	} catch {
		return false;
	}
}

/** The errno of the call before, made in this thread. */
export function errno(): number {
	return ffi().koffi.errno();
}

/** The path in the form that C functions take. A NUL inside would silently name another file. */
export function cPath(path: SysPath): string | Uint8Array {
	if (typeof path === "string") {
		if (path.includes("\0")) {
			throw sysError(`path ${JSON.stringify(path)}`, errnoNumber.EINVAL);
		}
		return path;
	}
	if (path.includes(0)) {
		throw sysError(`path ${JSON.stringify(showPath(path))}`, errnoNumber.EINVAL);
	}
	const terminated = new Uint8Array(path.length + 1);
	terminated.set(path);
	return terminated;
}

export function showPath(path: SysPath): string {
	return typeof path === "string" ? path : new TextDecoder().decode(path);
}

/** Linux's numbers for the errors that calls here look at. */
export const errnoNumber = {
	EPERM: 1,
	ENOENT: 2,
	ESRCH: 3,
	EINTR: 4,
	EAGAIN: 11,
	EACCES: 13,
	EXDEV: 18,
	EINVAL: 22,
	ETXTBSY: 26,
	EMFILE: 24,
	ENOTTY: 25,
	ENOSPC: 28,
	ERANGE: 34,
	ENOSYS: 38,
	ENODATA: 61,
	EOPNOTSUPP: 95,
} as const;

/** `what` names call and path, as in `mount overlay on /x`. */
export function sysError(what: string, number: number): SlipwayError {
	const [name, text] = getSystemErrorMap().get(-number) ?? [`E${number}`, `error number ${number}`];
	return toError(Object.assign(new Error(`${what}: ${name}: ${text}`), { code: name }));
}

/** Throws the error of the call just made if it answered with a negative number. */
export function check(result: number, what: () => string): number {
	if (result < 0) {
		const number = errno();
		throw sysError(what(), number);
	}
	return result;
}

const closeCall = cFunction<[number]>("close", "int", ["int"]);

/** Closes a descriptor that a call here made. Node warns of those closed by `fs` in a worker thread, where it counts its own. */
export function closeDescriptor(fd: number): void {
	closeCall(fd);
}
