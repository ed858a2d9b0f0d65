/**
 * Bytes as text without loss. A Dockerfile is UTF-8 by agreement only: BuildKit passes whatever bytes a heredoc holds
 * into the image. A byte that is not part of valid UTF-8 becomes the lone surrogate U+DC00 + byte, which valid UTF-8
 * can never give; `encodeText` turns it back into the byte. Whoever encodes such a text with `TextEncoder` instead
 * gets U+FFFD per byte, which is what BuildKit does wherever it looks at characters.
 */

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

const firstEscape = 0xdc80;
const lastEscape = 0xdcff;

export function decodeText(bytes: Uint8Array): string {
	try {
		return strict.decode(bytes);
	} catch {
		return decodeLossless(bytes);
	}
}

export function encodeText(text: string): Uint8Array {
	if (text.isWellFormed()) {
		return encoder.encode(text);
	}
	const out = new Uint8Array(text.length * 3);
	let length = 0;
	for (let at = 0; at < text.length; ) {
		const code = text.charCodeAt(at);
		if (code >= firstEscape && code <= lastEscape) {
			out[length++] = code - 0xdc00;
			at++;
			continue;
		}
		const width = (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
		length += encoder.encodeInto(text.slice(at, at + width), out.subarray(length)).written;
		at += width;
	}
	return out.slice(0, length);
}

/** The byte that a code point of decoded text stands for, or undefined if it is a character. */
export function invalidByte(codePoint: number): number | undefined {
	return codePoint >= firstEscape && codePoint <= lastEscape ? codePoint - 0xdc00 : undefined;
}

/** Each byte of the text's encoding as one character U+0000..U+00FF, for the places where BuildKit works on bytes. */
export function toByteString(text: string): string {
	const bytes = encodeText(text);
	return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

export function fromByteString(text: string): string {
	return decodeText(Buffer.from(text, "latin1"));
}

export function isAscii(text: string): boolean {
	return !/[^\0-\x7f]/.test(text);
}

/** Length of the text's encoding. */
export function byteLength(text: string): number {
	return isAscii(text) ? text.length : encodeText(text).length;
}

function decodeLossless(bytes: Uint8Array): string {
	const parts: string[] = [];
	let valid = 0;
	for (let at = 0; at < bytes.length; ) {
		const width = validWidth(bytes, at);
		if (width > 0) {
			at += width;
			continue;
		}
		if (at > valid) {
			parts.push(strict.decode(bytes.subarray(valid, at)));
		}
		parts.push(String.fromCharCode(0xdc00 + (bytes[at] ?? 0)));
		at++;
		valid = at;
	}
	parts.push(strict.decode(bytes.subarray(valid)));
	return parts.join("");
}

/** Width of the valid UTF-8 sequence at the position, 0 if there is none (Unicode 16, table 3-7). */
function validWidth(bytes: Uint8Array, at: number): number {
	const first = bytes[at] ?? 0;
	if (first < 0x80) {
		return 1;
	}
	const second = bytes[at + 1] ?? 0;
	if (first >= 0xc2 && first <= 0xdf) {
		return isContinuation(second) ? 2 : 0;
	}
	if (first >= 0xe0 && first <= 0xef) {
		const low = first === 0xe0 ? 0xa0 : 0x80;
		const high = first === 0xed ? 0x9f : 0xbf;
		return second >= low && second <= high && isContinuation(bytes[at + 2]) ? 3 : 0;
	}
	if (first >= 0xf0 && first <= 0xf4) {
		const low = first === 0xf0 ? 0x90 : 0x80;
		const high = first === 0xf4 ? 0x8f : 0xbf;
		const rest = isContinuation(bytes[at + 2]) && isContinuation(bytes[at + 3]);
		return second >= low && second <= high && rest ? 4 : 0;
	}
	return 0;
}

function isContinuation(byte: number | undefined): boolean {
	return byte !== undefined && byte >= 0x80 && byte <= 0xbf;
}
