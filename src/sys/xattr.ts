import { cFunction, check, cPath, errno, errnoNumber, showPath, sysError } from "./ffi.ts";
import type { SysPath } from "./sys.ts";

/** The kernel's limits for one value and for all names together (limits.h: XATTR_SIZE_MAX, XATTR_LIST_MAX). */
const maxBytes = 65_536;

type CPath = string | Uint8Array;

const lgetxattr = cFunction<[CPath, string, Uint8Array, number]>("lgetxattr", "long", [
	"const char *",
	"const char *",
	"void *",
	"size_t",
]);
const lsetxattr = cFunction<[CPath, string, Uint8Array, number, number]>("lsetxattr", "int", [
	"const char *",
	"const char *",
	"void *",
	"size_t",
	"int",
]);
const llistxattr = cFunction<[CPath, Uint8Array, number]>("llistxattr", "long", [
	"const char *",
	"void *",
	"size_t",
]);
const lremovexattr = cFunction<[CPath, string]>("lremovexattr", "int", ["const char *", "const char *"]);

let scratch: Uint8Array | undefined;

function buffer(): Uint8Array {
	scratch ??= new Uint8Array(maxBytes);
	return scratch;
}

/** The value, or `undefined` if the file has none by that name or its file system knows no attributes. */
export function getXattr(path: SysPath, name: string): Uint8Array | undefined {
	const into = buffer();
	const length = lgetxattr(cPath(path), name, into, into.length);
	if (length >= 0) {
		return into.slice(0, length);
	}
	const number = errno();
	if (number === errnoNumber.ENODATA || number === errnoNumber.EOPNOTSUPP) {
		return undefined;
	}
	throw sysError(`lgetxattr ${name} of ${showPath(path)}`, number);
}

export function setXattr(path: SysPath, name: string, value: Uint8Array): void {
	check(lsetxattr(cPath(path), name, value, value.length, 0), () => `lsetxattr ${name} of ${showPath(path)}`);
}

/** All names that this process may see, in the file system's order; none if it knows no attributes. */
export function listXattrs(path: SysPath): string[] {
	const into = buffer();
	const length = llistxattr(cPath(path), into, into.length);
	if (length < 0) {
		const number = errno();
		if (number === errnoNumber.EOPNOTSUPP) {
			return [];
		}
		throw sysError(`llistxattr ${showPath(path)}`, number);
	}
	return length === 0 ? [] : new TextDecoder().decode(into.subarray(0, length - 1)).split("\0");
}

/** False if there was none. */
export function removeXattr(path: SysPath, name: string): boolean {
	if (lremovexattr(cPath(path), name) >= 0) {
		return true;
	}
	const number = errno();
	if (number === errnoNumber.ENODATA || number === errnoNumber.EOPNOTSUPP) {
		return false;
	}
	throw sysError(`lremovexattr ${name} of ${showPath(path)}`, number);
}
