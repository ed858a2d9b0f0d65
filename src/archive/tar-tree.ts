import { cleanPath } from "../patterns/clean-path.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf, fsPath } from "../sys/byte-names.ts";
import { splitDevice } from "../sys/node.ts";
import { getXattr, listXattrs } from "../sys/xattr.ts";
import type { TarHeader, TarPart } from "./archive.ts";
import { kindOf, secondsOf } from "./layer-items.ts";
import type { TarItem } from "./pack.ts";
import { schilyXattr } from "./tar-format.ts";
import { tarHeader } from "./tar-writer.ts";
import { readLink, walk } from "./walk.ts";

/** The entries of the `tar` exporter: trees as fsutil.WriteTar writes them, and files made here, such as attestations. */
export function* tarItems(parts: readonly TarPart[]): Generator<TarItem> {
	for (const part of parts) {
		switch (part.kind) {
			case "tree":
				yield* treeItems(bytesOf(part.root), bytesOf(part.prefix ?? ""), part.modifiedSeconds);
				break;
			case "file":
				yield {
					header: tarHeader({
						kind: "file",
						name: bytesOf(part.name),
						size: part.data.length,
						mode: part.mode,
						modified: { seconds: part.modifiedSeconds, nanoseconds: 0 },
					}),
					content: { bytes: part.data },
				};
				break;
			case "directory":
				yield {
					header: tarHeader({
						kind: "directory",
						name: `${bytesOf(part.name).replace(/\/+$/, "")}/`,
						mode: part.mode,
						modified: { seconds: part.modifiedSeconds, nanoseconds: 0 },
					}),
				};
		}
	}
}

/** All of a tree: every attribute, later names of a file as links to the first, sockets as empty files. */
function* treeItems(
	root: ByteString,
	prefix: ByteString,
	modifiedSeconds: number | undefined,
): Generator<TarItem> {
	const inFolder = (name: ByteString): ByteString => (prefix === "" ? name : `${prefix}/${name}`);
	const names = new Map<bigint, ByteString>();
	for (const { path, stats } of walk(root)) {
		const source = `${root}${path}`;
		const kind = kindOf(stats) ?? "file";
		const name = inFolder(path.slice(1));
		const first = kind !== "directory" && stats.nlink > 1n ? names.get(stats.ino) : undefined;
		if (kind !== "directory" && first === undefined) {
			names.set(stats.ino, name);
		}
		const device = kind === "directory" ? { major: 0, minor: 0 } : splitDevice(Number(stats.rdev));
		const seconds = secondsOf(stats.mtimeNs);
		const header: TarHeader = tarHeader({
			kind,
			name: kind === "directory" ? `${name}/` : name,
			linkName: kind === "symlink" ? linkIn(prefix, readLink(source)) : "",
			size: kind === "file" ? Number(stats.size) : 0,
			mode: Number(stats.mode) & 0o7777,
			uid: Number(stats.uid),
			gid: Number(stats.gid),
			modified:
				modifiedSeconds === undefined
					? { seconds, nanoseconds: Number(stats.mtimeNs - BigInt(seconds) * 1_000_000_000n) }
					: { seconds: modifiedSeconds, nanoseconds: 0 },
			deviceMajor: device.major,
			deviceMinor: device.minor,
			records: xattrRecords(source),
		});
		if (first !== undefined && kind !== "symlink") {
			yield { header: { ...header, kind: "hardlink", linkName: first, size: 0 } };
		} else {
			yield kind === "file" ? { header, content: { path: source } } : { header };
		}
	}
}

/** An absolute link leads into the folder that the tree is put in. */
function linkIn(prefix: ByteString, target: ByteString): ByteString {
	return prefix !== "" && target.startsWith("/") ? cleanPath(`/${prefix}/${target}`) : target;
}

function xattrRecords(path: ByteString): ReadonlyMap<ByteString, ByteString> {
	const at = fsPath(path);
	const records = new Map<ByteString, ByteString>();
	for (const name of listXattrs(at)) {
		// What an overlay keeps for itself is no part of the file.
		if (
			name.startsWith("trusted.overlay.") ||
			name.startsWith("user.overlay.") ||
			name.startsWith("com.apple.")
		) {
			continue;
		}
		const value = getXattr(at, name);
		if (value !== undefined) {
			records.set(`${schilyXattr}${bytesOf(name)}`, Buffer.from(value).toString("latin1"));
		}
	}
	return records;
}
