import { lstatSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { SlipwayError } from "../errors/errors.ts";
import { changeOwner } from "../sys/owner.ts";
import { resolveInRoot } from "../sys/root-path.ts";

export interface DirectoryOwner {
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
}

/** Makes a directory inside of a root, with its missing parents, all of one mode and owner. One that is there is left as it is. */
export function makeDirectories(root: string, path: string, owner: DirectoryOwner): void {
	const target = resolveInRoot(root, path);
	const missing: string[] = [];
	for (let at = target; lstatSync(at, { throwIfNoEntry: false }) === undefined; at = dirname(at)) {
		missing.push(at);
	}
	for (const directory of missing.reverse()) {
		mkdirSync(directory, { mode: owner.mode });
		changeOwner(directory, owner.uid, owner.gid);
	}
	if (!statSync(target).isDirectory()) {
		throw new SlipwayError("failed-precondition", `working directory ${path} is not a directory`);
	}
}
