import { readlinkSync } from "node:fs";
import type { PacketStat } from "../api/services/packet.ts";
import { type ByteString, bytesOf, fsPath } from "../sys/byte-names.ts";
import { splitDevice } from "../sys/node.ts";
import { getXattr, listXattrs } from "../sys/xattr.ts";
import { toGoMode } from "./go-mode.ts";
import { fileType, typeMask } from "./tree-state.ts";
import type { SourceEntry } from "./walk-source.ts";

/** An entry as it is announced, with where its content is. */
export interface Announced {
	readonly stat: PacketStat;
	/** Absolute; undefined if it has no content to ask for. */
	readonly source: ByteString | undefined;
}

export interface AnnounceOptions {
	/** Absolute. */
	readonly root: string;
	/** A folder that the entries are put in, with a slash behind, or empty. */
	readonly prefix: ByteString;
	/** Every file has this time, in nanoseconds. Default: its own. */
	readonly modified?: bigint;
	/** True: all belongs to 0:0, whoever owns it here. */
	readonly anonymous: boolean;
}

/** Turns entries of a walk into what fsutil's sender says of them (stat.go, stat_unix.go, hardlinks.go). */
export function createAnnouncer(options: AnnounceOptions): (entry: SourceEntry) => Announced | undefined {
	const { prefix, anonymous, modified } = options;
	const root: ByteString = `${options.root === "/" ? "" : bytesOf(options.root)}/`;
	/** First names of files that have several, by device and inode. */
	const names = new Map<string, ByteString>();
	return ({ path, stats }) => {
		const mode = Number(stats.mode);
		const type = mode & typeMask;
		const source = root + path;
		const wirePath = prefix + path;
		const isFile = type === fileType.file || type === fileType.socket;
		let linkname: ByteString = "";
		let size = type === fileType.directory ? 0 : Number(stats.size);
		if (type === fileType.symlink) {
			try {
				linkname = readlinkSync(fsPath(source), "latin1");
			} catch {
				// It went away: it was never there.
				return undefined;
			}
		} else if (type === fileType.file && stats.nlink > 1n) {
			const key = `${stats.dev}:${stats.ino}`;
			const first = names.get(key);
			if (first === undefined) {
				names.set(key, wirePath);
			} else {
				linkname = first;
				size = 0;
			}
		}
		const isDevice = type === fileType.character || type === fileType.block;
		const device = isDevice ? splitDevice(Number(stats.rdev)) : { major: 0, minor: 0 };
		const xattrs = attributesOf(source);
		return {
			stat: {
				path: wirePath,
				mode: toGoMode(mode),
				uid: anonymous ? 0 : Number(stats.uid),
				gid: anonymous ? 0 : Number(stats.gid),
				size,
				modTime: modified ?? stats.mtimeNs,
				linkname,
				devmajor: device.major,
				devminor: device.minor,
				xattrs,
			},
			source: isFile ? source : undefined,
		};
	};
}

const noAttributes: ReadonlyMap<string, Uint8Array> = new Map();

/** A file that went away, or whose attributes may not be read, has none. */
function attributesOf(path: ByteString): ReadonlyMap<string, Uint8Array> {
	const at = fsPath(path);
	let found: Map<string, Uint8Array> | undefined;
	try {
		for (const name of listXattrs(at)) {
			const value = name.startsWith("com.apple.") ? undefined : getXattr(at, name);
			if (value !== undefined) {
				found ??= new Map();
				found.set(name, value);
			}
		}
	} catch {
		return found ?? noAttributes;
	}
	return found ?? noAttributes;
}
