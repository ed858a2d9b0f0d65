import type { BigIntStats } from "node:fs";
import type { ByteString } from "../sys/byte-names.ts";
import { splitDevice } from "../sys/node.ts";
import type { TarEntryKind, TarHeader } from "./archive.ts";
import type { FoundChange } from "./changes.ts";
import { splitPath } from "./names.ts";
import type { TarItem } from "./pack.ts";
import { schilyXattr } from "./tar-format.ts";
import { tarHeader } from "./tar-writer.ts";
import { capabilitiesOf, readLink, stat } from "./walk.ts";
import { whiteoutPrefix } from "./whiteouts.ts";

export interface LayerItemsOptions {
	/** The tree with the files. */
	readonly root: ByteString;
	readonly maxModifiedSeconds: number | undefined;
}

/**
 * The entries of a layer for the changes, as containerd's archive.ChangeWriter makes them; layers' digests depend on every
 * choice here. Each change brings the folders above it, once. The first name of a file with several is the file, the others are links;
 * an unmodified name becomes a link only if a later one is written. Sockets are left out.
 */
export function* layerItems(changes: Iterable<FoundChange>, options: LayerItemsOptions): Generator<TarItem> {
	const { root, maxModifiedSeconds } = options;
	const folders = new Set<ByteString>();
	/** By inode: the name under which a file with several names is in the layer. */
	const names = new Map<bigint, ByteString>();
	/** By inode: unmodified names, seen before any other. */
	const waiting = new Map<bigint, ByteString[]>();

	function* withParents(header: TarHeader, content?: TarItem["content"]): Generator<TarItem> {
		const name = header.name.endsWith("/") ? header.name.slice(0, -1) : header.name;
		const parent = splitPath(name)[0].slice(0, -1);
		if (parent !== "" && !folders.has(parent)) {
			folders.add(parent);
			yield* changed({ kind: "modify", path: `/${parent}`, stats: stat(`${root}/${parent}`) });
		}
		if (header.kind === "directory") {
			folders.add(name);
		}
		yield content === undefined ? { header } : { header, content };
	}

	function* changed(change: FoundChange & { readonly stats: BigIntStats }): Generator<TarItem> {
		const { path, stats } = change;
		const kind = kindOf(stats);
		if (kind === undefined) {
			return;
		}
		const source = `${root}${path}`;
		const name = kind === "directory" ? `${path.slice(1)}/` : path.slice(1);
		const hasNames = kind !== "directory" && stats.nlink > 1n;
		const first = hasNames ? names.get(stats.ino) : undefined;
		if (change.kind === "unmodified" && first === undefined) {
			if (hasNames) {
				waiting.set(stats.ino, [...(waiting.get(stats.ino) ?? []), name]);
			}
			return;
		}
		const capabilities = capabilitiesOf(source);
		const device = splitDevice(Number(stats.rdev));
		const header = tarHeader({
			kind,
			name,
			linkName: kind === "symlink" ? readLink(source) : "",
			size: kind === "file" ? Number(stats.size) : 0,
			mode: Number(stats.mode) & 0o7777,
			uid: Number(stats.uid),
			gid: Number(stats.gid),
			modified: {
				seconds: Math.min(secondsOf(stats.mtimeNs), maxModifiedSeconds ?? Number.POSITIVE_INFINITY),
				nanoseconds: 0,
			},
			deviceMajor: device.major,
			deviceMinor: device.minor,
			records:
				capabilities === undefined || capabilities.length === 0
					? new Map()
					: new Map([[`${schilyXattr}security.capability`, Buffer.from(capabilities).toString("latin1")]]),
			format: "pax",
		});
		if (first !== undefined) {
			yield* withParents({ ...header, kind: "hardlink", linkName: first, size: 0 });
			return;
		}
		yield* withParents(header, kind === "file" ? { path: source } : undefined);
		if (hasNames) {
			names.set(stats.ino, name);
			for (const other of waiting.get(stats.ino) ?? []) {
				yield* withParents({ ...header, kind: "hardlink", name: other, linkName: name, size: 0 });
			}
			waiting.delete(stats.ino);
		}
	}

	for (const change of changes) {
		if (change.stats === undefined) {
			const [folder, name] = splitPath(change.path.slice(1));
			yield* withParents(tarHeader({ kind: "file", name: `${folder}${whiteoutPrefix}${name}` }));
		} else {
			yield* changed({ ...change, stats: change.stats });
		}
	}
}

/** `undefined` for a socket, which no archive can hold. */
export function kindOf(stats: BigIntStats): TarEntryKind | undefined {
	if (stats.isFile()) {
		return "file";
	}
	if (stats.isDirectory()) {
		return "directory";
	}
	if (stats.isSymbolicLink()) {
		return "symlink";
	}
	if (stats.isCharacterDevice()) {
		return "character-device";
	}
	if (stats.isBlockDevice()) {
		return "block-device";
	}
	return stats.isFIFO() ? "fifo" : undefined;
}

/** Rounded down, before 1970 too. */
export function secondsOf(nanoseconds: bigint): number {
	const seconds = nanoseconds / 1_000_000_000n;
	return Number(seconds * 1_000_000_000n > nanoseconds ? seconds - 1n : seconds);
}
