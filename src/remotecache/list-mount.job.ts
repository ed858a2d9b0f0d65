import { createHash, type Hash } from "node:crypto";
import { lstatSync } from "node:fs";
import { crc32 } from "node:zlib";
import type { Change } from "../archive/archive.ts";
import { type WalkEntry, walk } from "../archive/walk.ts";
import type { JobContext } from "../async/job.ts";
import { bytesOf } from "../sys/byte-names.ts";
import type { RootAttributes } from "./mounts.ts";

export interface MountListing {
	readonly root: RootAttributes;
	/** The files in groups, and all folders as the last one. */
	readonly groups: readonly MountGroup[];
}

export interface MountGroup {
	readonly changes: readonly Change[];
	/** The same where the files have the same names, on whatever machine. */
	readonly names: string;
	/** The same where the files are those that were there, untouched since: by their attributes, the time of their last change among them. */
	readonly state: string;
}

/** A group ends at a name whose check sum says so, once it has this much; or where it has too much. */
const minBytes = 4 << 20;
const maxBytes = 64 << 20;
const oneIn = 512;
/** What an entry costs beside its content. */
const entryBytes = 1024;

export function run(root: string, context: JobContext): MountListing {
	const groups: OpenGroup[] = [];
	const folders = new OpenGroup();
	let group = new OpenGroup();
	for (const entry of walk(bytesOf(root))) {
		context.throwIfAborted();
		const { path, stats } = entry;
		if (stats.isDirectory()) {
			folders.add(entry);
			continue;
		}
		if (stats.isSocket()) {
			continue;
		}
		group.add(entry);
		if (group.bytes >= maxBytes || (group.bytes >= minBytes && crc32(path) % oneIn === 0)) {
			groups.push(group);
			group = new OpenGroup();
		}
	}
	const { mode, uid, gid } = lstatSync(root);
	return {
		root: { mode: mode & 0o7777, uid, gid },
		groups: [...groups, group, folders]
			.filter(({ changes }) => changes.length > 0)
			.map((each) => each.close()),
	};
}

class OpenGroup {
	readonly changes: Change[] = [];
	bytes = 0;
	readonly #names: Hash = createHash("sha256");
	readonly #state: Hash = createHash("sha256");

	add({ path, stats }: WalkEntry): void {
		this.changes.push({ kind: "add", path });
		this.bytes += Number(stats.size) + entryBytes;
		const { mode, uid, gid, rdev, size, mtimeNs, ctimeNs } = stats;
		this.#names.update(path, "latin1").update("\0");
		this.#state.update(path, "latin1").update(`\0${[mode, uid, gid, rdev, size, mtimeNs, ctimeNs].join()}\0`);
	}

	close(): MountGroup {
		return { changes: this.changes, names: this.#names.digest("hex"), state: this.#state.digest("hex") };
	}
}
