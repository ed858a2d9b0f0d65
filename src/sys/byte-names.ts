/**
 * File names as byte strings: one character per byte. Linux names are bytes, tar headers are bytes, and both are sorted by
 * bytes; decoded text would lose names that are not UTF-8, and sorts others differently.
 */

/** One character per byte, each below 256. */
export type ByteString = string;

const nonAscii = /[^\x00-\x7f]/;

/** UTF-8 of the text. */
export function bytesOf(text: string): ByteString {
	return nonAscii.test(text) ? Buffer.from(text, "utf8").toString("latin1") : text;
}

/** The text, for people and patterns; bytes that are not UTF-8 become U+FFFD. */
export function textOf(bytes: ByteString): string {
	return nonAscii.test(bytes) ? Buffer.from(bytes, "latin1").toString("utf8") : bytes;
}

/** The name in the form that `fs` and the calls of this room take. */
export function fsPath(bytes: ByteString): string | Buffer {
	return nonAscii.test(bytes) ? Buffer.from(bytes, "latin1") : bytes;
}
