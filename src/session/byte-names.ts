/**
 * File names of a tree as byte strings: one character per byte. Linux names are bytes; decoded text would lose the ones that
 * are not UTF-8, and sorts others differently.
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

/** The path in the form that `fs` and `sys` take. */
export function fsPath(bytes: ByteString): string | Buffer {
	return nonAscii.test(bytes) ? Buffer.from(bytes, "latin1") : bytes;
}

export function joinBytes(directory: ByteString, name: ByteString): ByteString {
	return directory === "" ? name : `${directory}/${name}`;
}

/** The folder (empty for the root) and the name. */
export function splitBytes(path: ByteString): readonly [folder: ByteString, name: ByteString] {
	const slash = path.lastIndexOf("/");
	return slash === -1 ? ["", path] : [path.slice(0, slash), path.slice(slash + 1)];
}
