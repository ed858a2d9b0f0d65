import { chownSync, fchownSync, lchownSync } from "node:fs";
import { idsOfNamespace } from "./namespace.ts";

/**
 * Changes of owner. In a user namespace of a single id every file belongs to that one, whoever it should belong to: builders there
 * lose owners, which they say, but not the build.
 */
type PathLike = Parameters<typeof lchownSync>[0];

let single: boolean | undefined;

function isSingle(): boolean {
	single ??= idsOfNamespace() === "single";
	return single;
}

/** Of what the path names; a symbolic link is followed. */
export function changeOwner(path: PathLike, uid: number, gid: number): void {
	if (!isSingle()) {
		chownSync(path, uid, gid);
	}
}

/** Of the path itself, also if it is a symbolic link. */
export function changeOwnOwner(path: PathLike, uid: number, gid: number): void {
	if (!isSingle()) {
		lchownSync(path, uid, gid);
	}
}

export function changeOpenOwner(fd: number, uid: number, gid: number): void {
	if (!isSingle()) {
		fchownSync(fd, uid, gid);
	}
}
