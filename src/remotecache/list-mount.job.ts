import { lstatSync } from "node:fs";
import { crc32 } from "node:zlib";
import type { Change } from "../archive/archive.ts";
import { walk } from "../archive/walk.ts";
import type { JobContext } from "../async/job.ts";
import { bytesOf } from "../sys/byte-names.ts";
import type { RootAttributes } from "./mounts.ts";

export interface MountListing {
	readonly root: RootAttributes;
	/** The files in groups, and all folders as the last one. */
	readonly groups: readonly (readonly Change[])[];
}

/** A group ends at a name whose check sum says so, once it has this much; or where it has too much. */
const minBytes = 4 << 20;
const maxBytes = 64 << 20;
const oneIn = 512;
/** What an entry costs beside its content. */
const entryBytes = 1024;

export function run(root: string, context: JobContext): MountListing {
	const groups: Change[][] = [];
	const folders: Change[] = [];
	let group: Change[] = [];
	let bytes = 0;
	for (const { path, stats } of walk(bytesOf(root))) {
		context.throwIfAborted();
		if (stats.isDirectory()) {
			folders.push({ kind: "add", path });
			continue;
		}
		if (stats.isSocket()) {
			continue;
		}
		group.push({ kind: "add", path });
		bytes += Number(stats.size) + entryBytes;
		if (bytes >= maxBytes || (bytes >= minBytes && crc32(path) % oneIn === 0)) {
			groups.push(group);
			group = [];
			bytes = 0;
		}
	}
	const { mode, uid, gid } = lstatSync(root);
	return {
		root: { mode: mode & 0o7777, uid, gid },
		groups: [...groups, group, folders].filter(({ length }) => length > 0),
	};
}
