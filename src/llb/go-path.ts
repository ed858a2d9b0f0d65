import { posix } from "node:path";

/** Go's `path.Clean`: as posix.normalize, without a trailing slash. */
export function cleanPath(path: string): string {
	const normal = posix.normalize(path);
	return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

/** Go's `path.Join`: empty parts are skipped; nothing but empty parts is empty. */
export function joinPath(...parts: readonly string[]): string {
	const present = parts.filter((part) => part !== "");
	return present.length === 0 ? "" : cleanPath(present.join("/"));
}

/** Go's `path.Base`: `.` for an empty path, `/` for slashes only. */
export function basePath(path: string): string {
	if (path === "") {
		return ".";
	}
	const end = path.replace(/\/+$/, "");
	return end === "" ? "/" : end.slice(end.lastIndexOf("/") + 1);
}
