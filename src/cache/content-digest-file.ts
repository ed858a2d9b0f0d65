import { createHash, hash } from "node:crypto";
import { closeSync, lstatSync, openSync, readlinkSync, readSync, type Stats } from "node:fs";
import { wrap } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath } from "../sys/byte-names.ts";
import { getXattr, listXattrs } from "../sys/xattr.ts";
import { type DigestedStat, digestHeader, isDigestedXattr } from "./content-digest-header.ts";

/** Header and data of a file up to about this size are hashed in one call. */
const bufferBytes = 1 << 20;
let buffer: Buffer | undefined;

/** The content digest of one file, link, device or directory header on disk, in hex. Undefined for a file above `maxBytes`. */
export function digestFile(
	path: ByteString,
	maxBytes: number = Number.POSITIVE_INFINITY,
): string | undefined {
	try {
		const stat = lstatSync(fsPath(path));
		const kind = kindOf(stat);
		if (kind === "file" && stat.size > maxBytes) {
			return undefined;
		}
		const header = digestHeader({
			kind,
			mode: stat.mode & 0o7777,
			uid: stat.uid,
			gid: stat.gid,
			size: stat.size,
			target: kind === "symlink" ? readlinkSync(fsPath(path), { encoding: "latin1" }) : "",
			deviceMajor: 0,
			deviceMinor: 0,
			xattrs: readXattrs(path),
		});
		return kind === "file" && stat.size > 0 ? digestData(header, path) : hash("sha256", header);
	} catch (thrown) {
		throw wrap(thrown, "content digest");
	}
}

function digestData(header: Uint8Array, path: ByteString): string {
	buffer ??= Buffer.allocUnsafeSlow(bufferBytes);
	const fd = openSync(fsPath(path), "r");
	try {
		buffer.set(header);
		let length = header.length;
		for (;;) {
			const got = readSync(fd, buffer, length, buffer.length - length, null);
			length += got;
			if (got === 0) {
				return hash("sha256", buffer.subarray(0, length));
			}
			if (length === buffer.length) {
				break;
			}
		}
		const digest = createHash("sha256").update(buffer);
		for (let got = readSync(fd, buffer); got > 0; got = readSync(fd, buffer)) {
			digest.update(buffer.subarray(0, got));
		}
		return digest.digest("hex");
	} finally {
		closeSync(fd);
	}
}

function readXattrs(path: ByteString): ReadonlyMap<string, Uint8Array> {
	const names = listXattrs(fsPath(path));
	if (names.length === 0) {
		return noXattrs;
	}
	const xattrs = new Map<string, Uint8Array>();
	for (const name of names) {
		const value = isDigestedXattr(name) ? getXattr(fsPath(path), name) : undefined;
		if (value !== undefined) {
			xattrs.set(name, value);
		}
	}
	return xattrs;
}

const noXattrs: ReadonlyMap<string, Uint8Array> = new Map();

function kindOf(stat: Stats): DigestedStat["kind"] {
	if (stat.isFile()) {
		return "file";
	}
	if (stat.isDirectory()) {
		return "directory";
	}
	if (stat.isSymbolicLink()) {
		return "symlink";
	}
	if (stat.isCharacterDevice()) {
		return "character-device";
	}
	if (stat.isBlockDevice()) {
		return "block-device";
	}
	return stat.isFIFO() ? "fifo" : "socket";
}
