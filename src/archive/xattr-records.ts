import { textOf } from "../sys/byte-names.ts";
import type { TarHeader } from "./archive.ts";
import { libarchiveXattr, schilyXattr } from "./tar-format.ts";

/**
 * Extended attributes in PAX records: star's `SCHILY.xattr.<name>` with the raw value, and libarchive's
 * `LIBARCHIVE.xattr.<percent-encoded name>` with the value in base64, where star's is not there.
 */
export function xattrsOf(header: TarHeader): Map<string, Uint8Array> {
	const attributes = new Map<string, Uint8Array>();
	for (const [key, value] of header.records) {
		if (key.startsWith(libarchiveXattr)) {
			const name = percentDecoded(key.slice(libarchiveXattr.length));
			attributes.set(name, Buffer.from(value, "base64"));
		}
	}
	for (const [key, value] of header.records) {
		if (key.startsWith(schilyXattr)) {
			attributes.set(textOf(key.slice(schilyXattr.length)), Buffer.from(value, "latin1"));
		}
	}
	return attributes;
}

function percentDecoded(text: string): string {
	return textOf(
		text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
	);
}
