import { mkdirSync, readdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

/**
 * Makes a directory with its parents. Node's own `recursive` never ends where the kernel says of an entry of an existing directory that
 * there is no such place, as `/proc` does; here that is an error.
 */
export function makeDirectories(path: string, mode = 0o777): void {
	if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
		return;
	}
	const parent = dirname(path);
	if (parent !== path) {
		makeDirectories(parent, mode);
	}
	try {
		mkdirSync(path, { mode });
	} catch (error) {
		const found = statSync(path, { throwIfNoEntry: false });
		if (found === undefined) {
			throw error;
		}
		if (!found.isDirectory()) {
			// ENOTDIR, with the name of what is in the way.
			readdirSync(path);
		}
		// Somebody else was sooner.
	}
}
