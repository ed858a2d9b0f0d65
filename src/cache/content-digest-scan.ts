import { readdirSync, readlinkSync } from "node:fs";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath } from "../sys/byte-names.ts";

/**
 * Names of a directory tree as one string, which goes from thread to thread at the price of a copy: for each entry, sorted by
 * the bytes of the names, `f`, `l` or `d`, the name and a NUL; a link's target and a NUL; a directory's entries and `u`.
 */
export type PackedNames = string;

/** Undefined if the directory has more than `maxEntries` below it. `check` is called for each directory and may throw. */
export function scanTree(
	root: ByteString,
	maxEntries: number = Number.POSITIVE_INFINITY,
	check: () => void = () => {},
): PackedNames | undefined {
	const parts: string[] = [];
	let count = 0;
	const scan = (dir: ByteString): boolean => {
		check();
		for (const { name, kind, target } of listDirectory(dir)) {
			if (++count > maxEntries) {
				return false;
			}
			parts.push(kind, name, "\0");
			if (kind === "l") {
				parts.push(target, "\0");
			} else if (kind === "d") {
				if (!scan(`${dir}/${name}`)) {
					return false;
				}
				parts.push("u");
			}
		}
		return true;
	};
	return scan(root) ? parts.join("") : undefined;
}

export interface ScannedEntry {
	readonly name: ByteString;
	readonly kind: "f" | "l" | "d";
	/** Of a link, else empty. */
	readonly target: ByteString;
}

/** Sorted by the bytes of the names. */
export function listDirectory(dir: ByteString): readonly ScannedEntry[] {
	return readdirSync(fsPath(dir), { encoding: "latin1", withFileTypes: true })
		.map((entry): ScannedEntry => {
			const { name } = entry;
			const kind = entry.isDirectory() ? "d" : entry.isSymbolicLink() ? "l" : "f";
			const target = kind === "l" ? readlinkSync(fsPath(`${dir}/${name}`), { encoding: "latin1" }) : "";
			return { name, kind, target };
		})
		.sort((a, b) => (a.name < b.name ? -1 : 1));
}
