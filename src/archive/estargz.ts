import { createHash, type Hash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { promisify } from "node:util";
import { crc32, deflateRaw } from "node:zlib";
import { SlipwayError } from "../errors/errors.ts";
import { type GoJson, goJson } from "../oci/go-json.ts";
import { formatGoTime } from "../oci/go-time.ts";
import { type ByteString, textOf } from "../sys/byte-names.ts";
import type { Sha256, TarEntryKind, TarHeader } from "./archive.ts";
import { gzipHeader } from "./gzip.ts";
import { paddingOf, schilyXattr } from "./tar-format.ts";
import { type TarHandler, TarReader } from "./tar-reader.ts";
import { encodeHeader, endOfArchive, tarHeader } from "./tar-writer.ts";

/**
 * eStargz (stargz-snapshotter, docs/estargz.md): a layer in gzip whose files can be read one by one. Every file's content begins a
 * gzip member of its own, long ones every 4 MiB. A last entry of the tar, `stargz.index.json`, says where each begins and what
 * its digest is, and a footer of 51 bytes says where that entry begins. To whoever does not know, it is a gzip stream like others.
 *
 * The entry belongs to the uncompressed bytes, so that the diff ID is another than that of the same tar in other compressions.
 */

const tocName = "stargz.index.json";
/** A long file's pieces. */
const chunkBytes = 4 << 20;
/** Headers without content between them: a member ends here too, so that it fits in memory. */
const maxMemberBytes = 8 << 20;
const footerBytes = 51;
/** Members that are being deflated at once. */
const inFlight = 6;

const deflateMember = promisify<Uint8Array, import("node:zlib").ZlibOptions, Buffer>(deflateRaw);

/** One entry of the table of contents; `offset` follows when its member is written. */
interface TocEntry {
	readonly name: string;
	readonly type: string;
	readonly header: TarHeader | undefined;
	readonly userName: string;
	readonly groupName: string;
	offset: number;
	digest: string;
	readonly chunkOffset: number;
	readonly chunkSize: number;
	chunkDigest: string;
}

export interface EstargzOptions {
	readonly level: number;
	readonly sink: (bytes: Uint8Array) => void;
	/** Called when a block's bytes are needed no more. */
	readonly release: (block: Uint8Array) => void;
}

export interface EstargzTrailer {
	/** What the table of contents adds to the uncompressed bytes. */
	readonly tar: Uint8Array;
	readonly tocDigest: Sha256;
}

/** Compresses a tar that comes in blocks. Throws `invalid-argument` for what the format cannot hold. */
export async function writeEstargz(
	blocks: AsyncIterable<Uint8Array>,
	{ level, sink, release }: EstargzOptions,
): Promise<EstargzTrailer> {
	const index = new TocBuilder();
	const reader = new TarReader(index);
	const pending: { readonly member: Promise<Uint8Array>; readonly starts: readonly TocEntry[] }[] = [];
	let written = 0;
	const finishFirst = async (): Promise<void> => {
		const first = pending.shift();
		if (first !== undefined) {
			const member = await first.member;
			for (const entry of first.starts) {
				entry.offset = written;
			}
			sink(member);
			written += member.length;
		}
	};
	let parts: Uint8Array[] = [];
	let held = 0;
	let starts: TocEntry[] = [];
	const closeMember = async (): Promise<void> => {
		if (held > 0) {
			const member = gzipMember(Buffer.concat(parts), level);
			member.catch(() => {});
			pending.push({ member, starts });
			parts = [];
			held = 0;
			starts = [];
			if (pending.length >= inFlight) {
				await finishFirst();
			}
		}
	};
	const add = (bytes: Uint8Array): void => {
		if (bytes.length > 0) {
			parts.push(Uint8Array.prototype.slice.call(bytes));
			held += bytes.length;
		}
	};
	let position = 0;
	try {
		for await (const block of blocks) {
			index.block(block, position);
			reader.push(block);
			let from = 0;
			for (;;) {
				const cut = index.nextCut(position + block.length);
				if (cut === undefined) {
					break;
				}
				add(block.subarray(from, cut.at - position));
				await closeMember();
				starts.push(cut.entry);
				from = cut.at - position;
			}
			add(block.subarray(from));
			position += block.length;
			release(block);
			if (held >= maxMemberBytes) {
				await closeMember();
			}
		}
		reader.end();
		await closeMember();
		while (pending.length > 0) {
			await finishFirst();
		}
	} finally {
		await Promise.allSettled(pending.map(({ member }) => member));
	}
	const json = Buffer.from(goJson(index.document(), { indent: "\t" }));
	const tar = Buffer.concat([
		encodeHeader(tarHeader({ kind: "file", name: tocName, size: json.length })),
		json,
		Buffer.alloc(paddingOf(json.length)),
		endOfArchive,
	]);
	sink(await gzipMember(tar, level));
	sink(footer(written));
	return { tar, tocDigest: `sha256:${createHash("sha256").update(json).digest("hex")}` };
}

async function gzipMember(bytes: Uint8Array, level: number): Promise<Uint8Array> {
	const deflated = await deflateMember(bytes, {
		level,
		chunkSize: Math.max(1024, bytes.length + (bytes.length >> 8) + 64),
	});
	const trailer = Buffer.alloc(8);
	trailer.writeUInt32LE(crc32(bytes), 0);
	trailer.writeUInt32LE(bytes.length % 2 ** 32, 4);
	return Buffer.concat([gzipHeader, deflated, trailer]);
}

/** An empty gzip member whose extra field names the offset of the table of contents (RFC 1952, section 2.3.1.1). */
function footer(tocOffset: number): Uint8Array {
	const field = Buffer.from(`${tocOffset.toString(16).padStart(16, "0")}STARGZ`);
	const head = Buffer.from([
		0x1f,
		0x8b,
		8,
		4,
		0,
		0,
		0,
		0,
		0,
		0xff,
		field.length + 4,
		0,
		0x53,
		0x47,
		field.length,
		0,
	]);
	// One stored block without bytes, and the check words of nothing.
	const tail = Buffer.from([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
	return Buffer.concat([head, field, tail]);
}

/** How many bytes of a blob are the layer itself, without table of contents and footer; undefined for other blobs. */
export function estargzPayload(path: string): number | undefined {
	const fd = openSync(path, "r");
	try {
		const { size } = fstatSync(fd);
		if (size < footerBytes) {
			return undefined;
		}
		const end = Buffer.alloc(footerBytes);
		readSync(fd, end, 0, footerBytes, size - footerBytes);
		const offset = Number.parseInt(end.toString("latin1", 16, 32), 16);
		return offset > 0 && offset < size && end.equals(footer(offset)) ? offset : undefined;
	} finally {
		closeSync(fd);
	}
}

const types: Readonly<Record<TarEntryKind, string | undefined>> = {
	file: "reg",
	hardlink: "hardlink",
	symlink: "symlink",
	"character-device": "char",
	"block-device": "block",
	directory: "dir",
	fifo: "fifo",
	global: undefined,
};

/** Gathers the table while the tar passes, and finds where members must begin. */
class TocBuilder implements TarHandler {
	readonly #entries: TocEntry[] = [];
	/** Places in the tar where a member begins, in order, not yet given. */
	readonly #cuts: { readonly at: number; readonly entry: TocEntry }[] = [];
	readonly #users = new Map<number, ByteString>();
	readonly #groups = new Map<number, ByteString>();
	#block: Uint8Array = new Uint8Array();
	#blockStart = 0;
	#header: TarHeader | undefined;
	#first: TocEntry | undefined;
	#chunk: TocEntry | undefined;
	#whole: Hash | undefined;
	#part: Hash | undefined;
	/** Bytes of the present file that have passed. */
	#at = 0;

	/** To be called before the block is given to the reader, whose pieces are views of it. */
	block(block: Uint8Array, start: number): void {
		this.#block = block;
		this.#blockStart = start;
	}

	/** The first cut before `end`. */
	nextCut(end: number): { readonly at: number; readonly entry: TocEntry } | undefined {
		const [first] = this.#cuts;
		return first !== undefined && first.at < end ? this.#cuts.shift() : undefined;
	}

	entry(header: TarHeader): void {
		const type = types[header.kind];
		const name = textOf(header.name);
		if (type === undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`eStargz cannot hold global headers (${JSON.stringify(name)})`,
			);
		}
		if (/^(?:\.?\/)*stargz\.index\.json$/.test(name)) {
			throw new SlipwayError(
				"invalid-argument",
				`a layer with a file ${JSON.stringify(name)} cannot be compressed as eStargz, which needs that name itself`,
			);
		}
		const isSplit = header.kind === "file" && header.size >= chunkBytes;
		const entry: TocEntry = {
			name,
			type,
			header,
			userName: ifChanged(this.#users, header.uid, header.userName),
			groupName: ifChanged(this.#groups, header.gid, header.groupName),
			offset: 0,
			digest: "",
			chunkOffset: 0,
			chunkSize: isSplit ? chunkBytes : 0,
			chunkDigest: "",
		};
		this.#entries.push(entry);
		this.#header = header;
		this.#first = header.kind === "file" ? entry : undefined;
		this.#chunk = entry;
		this.#whole = this.#first === undefined ? undefined : createHash("sha256");
		this.#part = undefined;
		this.#at = 0;
	}

	data(piece: Uint8Array): void {
		const start = this.#blockStart + piece.byteOffset - this.#block.byteOffset;
		this.#whole?.update(piece);
		for (let at = 0; at < piece.length; ) {
			if (this.#at % chunkBytes === 0) {
				this.#beginChunk(start + at);
			}
			const taken = Math.min(piece.length - at, chunkBytes - (this.#at % chunkBytes));
			this.#part?.update(piece.subarray(at, at + taken));
			at += taken;
			this.#at += taken;
		}
	}

	hole(): void {
		throw new SlipwayError(
			"invalid-argument",
			`a layer with a sparse file (${JSON.stringify(this.#first?.name ?? "")}) cannot be compressed as eStargz`,
		);
	}

	end(): void {
		this.#endChunk();
		if (this.#first !== undefined && this.#whole !== undefined) {
			this.#first.digest = `sha256:${this.#whole.digest("hex")}`;
		}
	}

	document(): GoJson {
		return { version: 1, entries: this.#entries.map(entryJson) };
	}

	#beginChunk(at: number): void {
		const size = this.#header?.size ?? 0;
		if (this.#at > 0) {
			this.#endChunk();
			const entry: TocEntry = {
				name: this.#first?.name ?? "",
				type: "chunk",
				header: undefined,
				userName: "",
				groupName: "",
				offset: 0,
				digest: "",
				chunkOffset: this.#at,
				chunkSize: size - this.#at >= chunkBytes ? chunkBytes : 0,
				chunkDigest: "",
			};
			this.#entries.push(entry);
			this.#chunk = entry;
		}
		this.#part = createHash("sha256");
		if (this.#chunk !== undefined) {
			this.#cuts.push({ at, entry: this.#chunk });
		}
	}

	#endChunk(): void {
		if (this.#part !== undefined && this.#chunk !== undefined) {
			this.#chunk.chunkDigest = `sha256:${this.#part.digest("hex")}`;
			this.#part = undefined;
		}
	}
}

/** A name is told once for each ID. */
function ifChanged(known: Map<number, ByteString>, id: number, name: ByteString): string {
	if (name === "" || known.get(id) === name) {
		return "";
	}
	known.set(id, name);
	return textOf(name);
}

/** As Go writes the struct: fields in its order, empty ones left out. */
function entryJson({ header, ...entry }: TocEntry): GoJson {
	const { name, type, offset, digest, chunkOffset, chunkSize, chunkDigest } = entry;
	const text = (value: string | undefined): string | undefined => value || undefined;
	const number = (value: number | undefined): number | undefined => value || undefined;
	const isDevice = type === "char" || type === "block";
	return {
		name,
		type,
		size: type === "reg" ? number(header?.size) : undefined,
		modtime: modifiedText(header),
		linkName: type === "symlink" || type === "hardlink" ? text(textOf(header?.linkName ?? "")) : undefined,
		mode: number(header?.mode),
		uid: number(header?.uid),
		gid: number(header?.gid),
		userName: text(entry.userName),
		groupName: text(entry.groupName),
		offset: number(offset),
		devMajor: isDevice ? number(header?.deviceMajor) : undefined,
		devMinor: isDevice ? number(header?.deviceMinor) : undefined,
		xattrs: xattrsOf(header),
		digest: text(digest),
		chunkOffset: number(chunkOffset),
		chunkSize: number(chunkSize),
		chunkDigest: text(chunkDigest),
	};
}

/** Rounded to seconds; none for 1970's first. */
function modifiedText(header: TarHeader | undefined): string | undefined {
	const { seconds, nanoseconds } = header?.modified ?? { seconds: 0, nanoseconds: 0 };
	return seconds === 0
		? undefined
		: formatGoTime({ seconds: seconds + (nanoseconds >= 5e8 ? 1 : 0), nanos: 0 });
}

function xattrsOf(header: TarHeader | undefined): GoJson {
	const entries = [...(header?.records ?? [])]
		.filter(([key]) => key.startsWith(schilyXattr))
		.map(
			([key, value]) =>
				[textOf(key.slice(schilyXattr.length)), Buffer.from(value, "latin1").toString("base64")] as const,
		);
	return entries.length === 0 ? undefined : new Map(entries);
}
