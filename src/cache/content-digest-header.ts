import { sortUtf8 } from "../oci/utf8-order.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf } from "../sys/byte-names.ts";

/** What of a file's metadata its content digest depends on: no name and no time. */
export interface DigestedStat {
	readonly kind: "file" | "directory" | "symlink" | "character-device" | "block-device" | "fifo" | "socket";
	/** Permissions with setuid, setgid and sticky: 12 bits. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	/** Bytes of a regular file. */
	readonly size: number;
	/** Of a symbolic link. */
	readonly target: ByteString;
	/** Of a device that a client sent; a device on disk counts as 0, 0, in BuildKit as well. */
	readonly deviceMajor: number;
	readonly deviceMinor: number;
	readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

/** Tar's type flags; a socket, which tar has not, counts as an empty file. */
const typeFlags: Readonly<Record<DigestedStat["kind"], string>> = {
	file: "0",
	symlink: "2",
	"character-device": "3",
	"block-device": "4",
	directory: "5",
	fifo: "6",
	socket: "0",
};

/**
 * The bytes in front of a file's data in its content digest: Docker's tarsum, version 1, with an empty name. The digest of a
 * file is the SHA-256 of this and its data; that of anything else of this alone.
 */
export function digestHeader(stat: DigestedStat): Uint8Array {
	const mode = stat.kind === "symlink" ? stat.mode | 0o777 : stat.mode;
	const size = stat.kind === "file" ? stat.size : 0;
	const target = stat.kind === "symlink" ? stat.target : "";
	let text =
		`namemode${mode}uid${stat.uid}gid${stat.gid}size${size}typeflag${typeFlags[stat.kind]}` +
		`linkname${target}unamegnamedevmajor${stat.deviceMajor}devminor${stat.deviceMinor}`;
	for (const name of sortUtf8(stat.xattrs.keys())) {
		if (isDigestedXattr(name)) {
			text += bytesOf(name) + Buffer.from(stat.xattrs.get(name) ?? []).toString("latin1");
		}
	}
	return Buffer.from(text, "latin1");
}

/** The machine's own labels (SELinux and the like) say nothing about content; capabilities do. */
export function isDigestedXattr(name: string): boolean {
	return name === "security.capability" || !/^(security|system)\./.test(name);
}
