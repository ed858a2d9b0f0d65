import { Readable, type Transform } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { SlipwayError } from "../../errors/errors.ts";

const blockSize = 512;
/** An archive that unpacks to more is not looked through: it may be a bomb. */
const maxUnpackedBytes = 4 * 2 ** 30;
/** Extended headers hold names and times; longer ones are hostile. */
const maxExtensionBytes = 2 ** 20;

/**
 * The latest modification of a regular file in a tar, in seconds, from plain tar, gzip or zstd. Undefined for what is no
 * archive, or one without files. Throws `unimplemented` for bzip2 and xz.
 */
export async function latestFileTime(data: Uint8Array): Promise<number | undefined> {
	const scanner = new TarTimes();
	try {
		for await (const chunk of unpack(data)) {
			scanner.push(chunk);
			if (scanner.done) {
				break;
			}
		}
	} catch (error) {
		if (error instanceof SlipwayError) {
			throw error;
		}
		// Broken compression: no archive.
		return undefined;
	}
	return scanner.broken ? undefined : scanner.latest;
}

async function* unpack(data: Uint8Array): AsyncIterable<Uint8Array> {
	const decoder = decoderFor(data);
	if (decoder === undefined) {
		yield data;
		return;
	}
	let total = 0;
	for await (const chunk of Readable.from([data]).pipe(decoder)) {
		const bytes = chunk as Uint8Array;
		total += bytes.length;
		if (total > maxUnpackedBytes) {
			throw new SlipwayError("resource-exhausted", `archive unpacks to more than ${maxUnpackedBytes} bytes`);
		}
		yield bytes;
	}
}

function decoderFor(data: Uint8Array): Transform | undefined {
	const starts = (...magic: readonly number[]): boolean => magic.every((byte, at) => data[at] === byte);
	if (starts(0x1f, 0x8b, 0x08)) {
		return createGunzip();
	}
	if (starts(0x28, 0xb5, 0x2f, 0xfd)) {
		return createZstdDecompress();
	}
	if (starts(0x42, 0x5a, 0x68) || starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) {
		throw new SlipwayError("unimplemented", "times in bzip2 and xz archives can't be read");
	}
	return undefined;
}

/** Reads headers and skips contents. */
class TarTimes {
	latest: number | undefined;
	done = false;
	broken = false;
	#header = new Uint8Array(blockSize);
	#filled = 0;
	#skip = 0;
	/** The body of an extended header, while it is read. */
	#extension: { readonly data: Uint8Array; at: number } | undefined;
	#paxTime: number | undefined;
	#paxSize: number | undefined;

	push(chunk: Uint8Array): void {
		for (let at = 0; at < chunk.length && !this.done; ) {
			if (this.#skip > 0) {
				const length = Math.min(this.#skip, chunk.length - at);
				this.#collect(chunk.subarray(at, at + length));
				this.#skip -= length;
				at += length;
				continue;
			}
			const length = Math.min(blockSize - this.#filled, chunk.length - at);
			this.#header.set(chunk.subarray(at, at + length), this.#filled);
			this.#filled += length;
			at += length;
			if (this.#filled === blockSize) {
				this.#filled = 0;
				this.#readHeader();
			}
		}
	}

	#collect(bytes: Uint8Array): void {
		const extension = this.#extension;
		if (extension === undefined) {
			return;
		}
		const wanted = bytes.subarray(0, extension.data.length - extension.at);
		extension.data.set(wanted, extension.at);
		extension.at += wanted.length;
		if (extension.at === extension.data.length) {
			this.#readExtension(extension.data);
			this.#extension = undefined;
		}
	}

	#readHeader(): void {
		const header = this.#header;
		if (header.every((byte) => byte === 0)) {
			this.done = true;
			return;
		}
		const size = numberField(header.subarray(124, 136));
		const time = numberField(header.subarray(136, 148));
		if (size === undefined || time === undefined || !hasChecksum(header)) {
			this.broken = true;
			this.done = true;
			return;
		}
		const type = String.fromCharCode(header[156] ?? 0);
		if (type === "x") {
			if (size > maxExtensionBytes) {
				this.broken = true;
				this.done = true;
				return;
			}
			this.#extension = { data: new Uint8Array(size), at: 0 };
			this.#skip = padded(size);
			return;
		}
		if (type === "0" || type === "\0" || type === "7") {
			const own = this.#paxTime ?? time;
			this.latest = Math.max(this.latest ?? own, own);
		}
		const isLongName = type === "g" || type === "K" || type === "L";
		this.#skip = padded(isLongName ? size : (this.#paxSize ?? size));
		if (!isLongName) {
			this.#paxTime = undefined;
			this.#paxSize = undefined;
		}
	}

	/** `length key=value\n`, as pax writes it. */
	#readExtension(data: Uint8Array): void {
		const text = new TextDecoder("latin1").decode(data);
		const time = /(?:^|\n)[0-9]+ mtime=(-?[0-9]+)/.exec(text)?.[1];
		const size = /(?:^|\n)[0-9]+ size=([0-9]+)/.exec(text)?.[1];
		this.#paxTime = time === undefined ? undefined : Number(time);
		this.#paxSize = size === undefined ? undefined : Number(size);
	}
}

function padded(size: number): number {
	return Math.ceil(size / blockSize) * blockSize;
}

/** Octal text, or a big-endian number marked by the highest bit. */
function numberField(field: Uint8Array): number | undefined {
	const [first = 0] = field;
	if ((first & 0x80) !== 0) {
		return field.subarray(1).reduce((value, byte) => value * 256 + byte, 0);
	}
	const [, digits] = /^[ \0]*([0-7]*)[ \0]*$/.exec(new TextDecoder("latin1").decode(field)) ?? [];
	return digits === undefined ? undefined : Number.parseInt(digits || "0", 8);
}

function hasChecksum(header: Uint8Array): boolean {
	const wanted = numberField(header.subarray(148, 156));
	let sum = 0;
	for (const [at, byte] of header.entries()) {
		sum += at >= 148 && at < 156 ? 0x20 : byte;
	}
	return sum === wanted;
}
