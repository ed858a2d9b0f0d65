import type { TarEntryKind, TarHeader } from "./archive.ts";
import { paddingOf } from "./tar-format.ts";
import { type TarHandler, TarReader } from "./tar-reader.ts";
import { encodeHeader, endOfArchive, tarHeader } from "./tar-writer.ts";

/** Archives for tests, made and read in memory. */

export type Entry = Partial<Omit<TarHeader, "size">> & { readonly name: string; readonly data?: string };

export function makeTar(...entries: readonly Entry[]): Buffer {
	const parts: Uint8Array[] = [];
	for (const { data = "", ...entry } of entries) {
		const content = Buffer.from(data);
		const kind: TarEntryKind = entry.kind ?? "file";
		parts.push(
			encodeHeader(tarHeader({ mode: 0o644, ...entry, kind, size: content.length })),
			content,
			new Uint8Array(paddingOf(content.length)),
		);
	}
	return Buffer.concat([...parts, endOfArchive]);
}

export interface ReadEntry {
	readonly header: TarHeader;
	readonly data: Buffer;
}

/** Everything in the archive, pushed in chunks of the size. */
export function readTar(archive: Uint8Array, chunkBytes: number = 1 << 20): ReadEntry[] {
	const entries: { header: TarHeader; parts: Uint8Array[] }[] = [];
	const add = (bytes: Uint8Array): void => {
		entries.at(-1)?.parts.push(bytes);
	};
	const handler: TarHandler = {
		entry: (header) => entries.push({ header, parts: [] }),
		data: (piece) => add(Buffer.from(piece)),
		hole: (bytes) => add(new Uint8Array(bytes)),
		end() {},
	};
	const reader = new TarReader(handler);
	for (let at = 0; at < archive.length; at += chunkBytes) {
		reader.push(archive.subarray(at, at + chunkBytes));
	}
	reader.end();
	return entries.map(({ header, parts }) => ({ header, data: Buffer.concat(parts) }));
}
