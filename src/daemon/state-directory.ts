import { accessSync, constants, existsSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Database, openDatabase } from "../database/database.ts";
import { hasCode, SlipwayError, wrap } from "../errors/errors.ts";
import { makeDirectories } from "../sys/make-directories.ts";

/** Everything that a builder keeps lies below one directory, which one process uses at a time. */
export interface StateDirectory extends Disposable {
	readonly root: string;
	/** Held exclusively; its lock is the lock of the whole directory, and the kernel drops it with the process. */
	readonly database: Database;
}

/** Another process has the directory. */
export class StateDirectoryInUse extends SlipwayError {
	constructor(message: string, cause: unknown) {
		super("failed-precondition", message, { cause });
	}
}

/** What the database needs to grow by while the user makes room. */
const reserveBytes = 1 << 20;

/** Throws `StateDirectoryInUse` naming the process that has the directory. */
export function openStateDirectory(root: string): StateDirectory {
	const owner = join(root, "owner");
	try {
		makeDirectories(root, 0o700);
		// SQLite calls a read-only file system an I/O error.
		accessSync(root, constants.W_OK);
	} catch (error) {
		throw wrap(error, `state directory ${root} cannot be made or written; choose another with --root`);
	}
	let database: Database;
	try {
		keepReserve(root);
		database = openDatabase(join(root, "metadata.db"), { exclusive: true });
	} catch (error) {
		if (hasCode(error, "failed-precondition")) {
			throw new StateDirectoryInUse(
				`state directory ${root} is in use by another builder${ownerText(owner)}; wait until it ends ('slipway stop' ends one in the background), or use another directory with --root`,
				error,
			);
		}
		throw wrap(error, `state directory ${root}`);
	}
	try {
		writeFileSync(owner, `${process.pid}\n`);
	} catch (error) {
		database[Symbol.dispose]();
		throw wrap(error, `state directory ${root} cannot be written`);
	}
	return { root, database, [Symbol.dispose]: () => database[Symbol.dispose]() };
}

/**
 * Keeps a file that is there for nothing but to be removed when the disk is full: without room for the database's log nothing could be
 * written, and then `prune` could not make any. It is put back by a start that finds room.
 */
function keepReserve(root: string): void {
	const reserve = join(root, "reserve");
	const { bavail, bsize } = statfsSync(root);
	const isThere = existsSync(reserve);
	if (bavail * bsize < reserveBytes) {
		rmSync(reserve, { force: true });
	} else if (!isThere && bavail * bsize >= 4 * reserveBytes) {
		// Of bytes that no file system leaves out as a hole.
		writeFileSync(reserve, new Uint8Array(reserveBytes).fill(1), { mode: 0o600 });
	}
}

function ownerText(file: string): string {
	try {
		return ` (process ${readFileSync(file, "utf8").trim()})`;
	} catch {
		return "";
	}
}
