import { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { textOf } from "../sys/byte-names.ts";
import type { TarEntryKind, TarHeader } from "./archive.ts";
import { blockBytes, gnuSparsePrefix, maxSpecialBytes, paddingOf } from "./tar-format.ts";
import { parseHeader, parseNumber, parseRecords, type RawHeader, withRecords } from "./tar-header.ts";
import {
	readSparseRecords,
	type SparseMap,
	SparseText,
	sparseExtension,
	validateSparse,
} from "./tar-sparse.ts";
import { tarHeader } from "./tar-writer.ts";

/**
 * Called in order: one `entry`, then its content in pieces, then `end`. A piece is a view of the chunk that was pushed and is
 * good only until the call returns. A hole is a run of zeros that a sparse file does not store.
 */
export interface TarHandler {
	entry(header: TarHeader): void;
	data(piece: Uint8Array): void;
	hole(bytes: number): void;
	end(): void;
}

type State =
	/** Gathering a block that is a header. */
	| { readonly kind: "header" }
	/** Gathering the content of a PAX header or a long name. */
	| { readonly kind: "special"; readonly raw: RawHeader; readonly content: Buffer; filled: number }
	/** Gathering blocks of a sparse map behind an old GNU header. */
	| {
			readonly kind: "sparse-extension";
			readonly header: TarHeader;
			readonly stored: number;
			readonly map: SparseMap;
	  }
	/** Gathering blocks of a sparse map at the start of the content (PAX sparse 1.0). */
	| { readonly kind: "sparse-text"; readonly header: TarHeader; stored: number; readonly text: SparseText }
	/** Passing content on. */
	| { readonly kind: "content"; left: number; padding: number; sparse: SparseRun | undefined }
	| { readonly kind: "padding"; left: number }
	/** One empty block was seen: the next must be empty too. */
	| { readonly kind: "ending" }
	/** Whatever follows the end of the archive is not looked at. */
	| { readonly kind: "ended" };

/** Where a sparse file's content has got to. */
interface SparseRun {
	readonly map: SparseMap;
	index: number;
	/** Position in the file as it will be. */
	at: number;
	readonly size: number;
}

/** Meta data gathered for the next entry. */
interface Pending {
	records: ReadonlyMap<ByteString, ByteString> | undefined;
	longName: ByteString | undefined;
	longLink: ByteString | undefined;
	/** Formats of the meta entries, which the entry's own can only narrow. */
	formats: RawHeader["formats"];
}

const allFormats = 7;

const kinds: Readonly<Record<string, TarEntryKind>> = {
	"0": "file",
	"\0": "file",
	"1": "hardlink",
	"2": "symlink",
	"3": "character-device",
	"4": "block-device",
	"5": "directory",
	"6": "fifo",
	S: "file",
};

/**
 * A tar archive in pieces of any size: v7, ustar, PAX, GNU and star, as Go's archive/tar reads them, with its limits. Throws
 * `data-loss` for what is broken or cut off and `invalid-argument` for kinds of entries that no layer may have. Where an
 * error is thrown the reader is of no further use.
 */
export class TarReader {
	readonly #handler: TarHandler;
	readonly #block: Buffer = Buffer.alloc(blockBytes);
	#filled = 0;
	#state: State = { kind: "header" };
	#pending: Pending = nothingPending();
	/** Of the last entry, for messages. */
	#name: ByteString = "";
	#position = 0;

	constructor(handler: TarHandler) {
		this.#handler = handler;
	}

	/** True once both closing blocks were seen. */
	get ended(): boolean {
		return this.#state.kind === "ended";
	}

	push(bytes: Uint8Array): void {
		const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
		let at = 0;
		while (at < chunk.length) {
			const taken = this.#take(chunk, at);
			at += taken;
			this.#position += taken;
		}
	}

	/** The input is over. Go takes an archive without its closing blocks, and without the last padding, as whole. */
	end(): void {
		const { kind } = this.#state;
		if (kind === "ended" || kind === "ending" || kind === "padding") {
			return;
		}
		if (kind !== "header" || this.#filled > 0) {
			throw this.#broken("unexpected EOF");
		}
	}

	/** Consumes some bytes from `at` on, at least one. */
	#take(chunk: Buffer, at: number): number {
		const state = this.#state;
		const available = chunk.length - at;
		switch (state.kind) {
			case "content":
				return this.#takeContent(state, chunk, at);
			case "padding": {
				const taken = Math.min(state.left, available);
				state.left -= taken;
				if (state.left === 0) {
					this.#state = { kind: "header" };
				}
				return taken;
			}
			case "special": {
				const taken = Math.min(state.content.length - state.filled, available);
				chunk.copy(state.content, state.filled, at, at + taken);
				state.filled += taken;
				if (state.filled === state.content.length) {
					this.#special(state.raw, state.content);
				}
				return taken;
			}
			case "ended":
				return available;
			case "header":
			case "ending":
			case "sparse-extension":
			case "sparse-text": {
				if (this.#filled === 0 && available >= blockBytes) {
					this.#gotBlock(state, chunk.subarray(at, at + blockBytes));
					return blockBytes;
				}
				const taken = Math.min(blockBytes - this.#filled, available);
				chunk.copy(this.#block, this.#filled, at, at + taken);
				this.#filled += taken;
				if (this.#filled === blockBytes) {
					this.#filled = 0;
					this.#gotBlock(state, this.#block);
				}
				return taken;
			}
		}
	}

	#gotBlock(
		state: Extract<State, { kind: "header" | "ending" | "sparse-extension" | "sparse-text" }>,
		block: Buffer,
	): void {
		switch (state.kind) {
			case "header":
				if (isEmpty(block)) {
					this.#state = { kind: "ending" };
				} else {
					this.#header(block);
				}
				return;
			case "ending":
				if (!isEmpty(block)) {
					throw this.#broken("an empty block is followed by one that is not");
				}
				this.#state = { kind: "ended" };
				return;
			case "sparse-extension":
				if (!sparseExtension(block, state.map, this.#fail)) {
					this.#begin(state.header, state.stored, state.map);
				}
				return;
			case "sparse-text": {
				state.stored -= blockBytes;
				const map = state.text.add(block, this.#fail);
				if (map !== undefined) {
					this.#begin(state.header, state.stored, map);
				} else if (state.stored < blockBytes) {
					throw this.#broken("sparse map is cut off");
				}
			}
		}
	}

	#header(block: Buffer): void {
		const raw = parseHeader(block, this.#fail);
		this.#name = raw.header.name;
		this.#pending.formats &= raw.formats;
		const { size } = raw.header;
		switch (raw.typeFlag) {
			case "x":
			case "g":
			case "L":
			case "K":
				if (size > maxSpecialBytes) {
					throw this.#broken(`header of ${size} bytes, limit is ${maxSpecialBytes}`);
				}
				this.#state = { kind: "special", raw, content: Buffer.alloc(size), filled: 0 };
				if (size === 0) {
					this.#special(raw, Buffer.alloc(0));
				}
				return;
			default:
				this.#entry(raw, block);
		}
	}

	#special(raw: RawHeader, content: Buffer): void {
		const pending = this.#pending;
		this.#state = paddingState(content.length);
		switch (raw.typeFlag) {
			case "L":
				pending.formats &= 4;
				pending.longName = cString(content);
				return;
			case "K":
				pending.formats &= 4;
				pending.longLink = cString(content);
				return;
			case "g": {
				// As in Go, global records are an entry of their own and are not applied to later ones.
				this.#pending = nothingPending();
				const records = parseRecords(content, this.#fail);
				const name = records.get("path") || raw.header.name;
				this.#handler.entry(tarHeader({ kind: "global", name, records, format: "pax" }));
				this.#handler.end();
				return;
			}
			default:
				pending.formats &= 2;
				pending.records = parseRecords(content, this.#fail);
		}
	}

	#entry(raw: RawHeader, block: Buffer): void {
		const { records, longName, longLink, formats } = this.#pending;
		this.#pending = nothingPending();
		const kind = kinds[raw.typeFlag];
		if (kind === undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`tar entry ${JSON.stringify(textOf(raw.header.name))}: unhandled tar header type ${raw.typeFlag.charCodeAt(0)}`,
			);
		}
		const merged = withRecords(raw.header, records, this.#fail);
		const name = longName !== undefined && longName !== "" ? longName : merged.name;
		let header: TarHeader = {
			...merged,
			name,
			linkName: longLink !== undefined && longLink !== "" ? longLink : merged.linkName,
			// Archives from before there was a flag for directories mark them by a slash.
			kind: raw.typeFlag === "\0" && name.endsWith("/") ? "directory" : kind,
			format: formats & 1 ? "ustar" : formats & 2 ? "pax" : formats & 4 ? "gnu" : "unknown",
		};
		this.#name = header.name;
		const hasContent = header.kind === "file";
		const stored = hasContent ? header.size : 0;
		if (!hasContent) {
			header = { ...header, size: 0 };
		}
		if (raw.typeFlag === "S") {
			const map: SparseMap = [];
			if (!raw.isGnu) {
				throw this.#broken("sparse header is not GNU's");
			}
			const size = parseNumber(block, [483, 12], this.#fail);
			const sparse = { ...header, size };
			if (sparseExtension(block, map, this.#fail, 386, 4)) {
				this.#state = { kind: "sparse-extension", header: sparse, stored, map };
			} else {
				this.#begin(sparse, stored, map);
			}
			return;
		}
		const sparse = records?.keys().some((key) => key.startsWith(gnuSparsePrefix))
			? readSparseRecords(header, this.#fail)
			: undefined;
		if (sparse === undefined) {
			this.#begin(header, stored, undefined);
		} else if (!hasContent) {
			throw this.#broken("sparse file without content");
		} else if (sparse.map === undefined) {
			if (stored < blockBytes) {
				throw this.#broken("sparse map is cut off");
			}
			this.#name = sparse.header.name;
			this.#state = { kind: "sparse-text", header: sparse.header, stored, text: new SparseText() };
		} else {
			this.#begin(sparse.header, stored, sparse.map);
		}
	}

	/** Hands the entry on and expects `stored` bytes of it. */
	#begin(header: TarHeader, stored: number, map: SparseMap | undefined): void {
		if (map !== undefined) {
			validateSparse(map, header.size, stored, this.#fail);
		}
		this.#name = header.name;
		this.#handler.entry(header);
		const sparse = map === undefined ? undefined : { map, index: 0, at: 0, size: header.size };
		const padding = paddingOf(stored);
		if (stored > 0) {
			this.#state = { kind: "content", left: stored, padding, sparse };
			return;
		}
		if (sparse !== undefined) {
			this.#finishSparse(sparse);
		}
		this.#handler.end();
		this.#state = { kind: "header" };
	}

	#takeContent(state: Extract<State, { kind: "content" }>, chunk: Buffer, at: number): number {
		let taken = Math.min(state.left, chunk.length - at);
		if (state.sparse === undefined) {
			this.#handler.data(chunk.subarray(at, at + taken));
		} else {
			taken = this.#sparseContent(state.sparse, chunk, at, taken);
		}
		state.left -= taken;
		if (state.left === 0) {
			if (state.sparse !== undefined) {
				this.#finishSparse(state.sparse);
			}
			this.#handler.end();
			this.#state = state.padding === 0 ? { kind: "header" } : { kind: "padding", left: state.padding };
		}
		return taken;
	}

	/** Passes on at most the rest of one piece of data, after the hole before it. */
	#sparseContent(run: SparseRun, chunk: Buffer, at: number, available: number): number {
		let piece = run.map[run.index];
		while (piece !== undefined && run.at >= piece.offset + piece.length) {
			piece = run.map[++run.index];
		}
		if (piece === undefined) {
			// Bytes that the map does not speak of.
			return available;
		}
		if (run.at < piece.offset) {
			this.#handler.hole(piece.offset - run.at);
			run.at = piece.offset;
		}
		const taken = Math.min(available, piece.offset + piece.length - run.at);
		this.#handler.data(chunk.subarray(at, at + taken));
		run.at += taken;
		return taken;
	}

	#finishSparse(run: SparseRun): void {
		if (run.at < run.size) {
			this.#handler.hole(run.size - run.at);
			run.at = run.size;
		}
	}

	readonly #fail = (text: string): SlipwayError => this.#broken(text);

	#broken(text: string): SlipwayError {
		const where = this.#name === "" ? "" : ` in or after ${JSON.stringify(textOf(this.#name))}`;
		return new SlipwayError(
			"data-loss",
			`archive/tar: invalid tar header at byte ${this.#position}${where}: ${text}`,
		);
	}
}

function nothingPending(): Pending {
	return { records: undefined, longName: undefined, longLink: undefined, formats: allFormats };
}

function paddingState(bytes: number): State {
	const padding = paddingOf(bytes);
	return padding === 0 ? { kind: "header" } : { kind: "padding", left: padding };
}

function isEmpty(block: Buffer): boolean {
	return block[0] === 0 && block.equals(emptyBlock);
}

const emptyBlock = Buffer.alloc(blockBytes);

function cString(bytes: Buffer): ByteString {
	const end = bytes.indexOf(0);
	return bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
}
