import type { ByteString } from "./archive.ts";

/**
 * File names as byte strings: one character per byte. Linux names are bytes, tar headers are bytes, and both are sorted by
 * bytes; decoded text would lose names that are not UTF-8 and sort others differently.
 */

const nonAscii = /[^\x00-\x7f]/;

/** UTF-8 of the text. */
export function bytesOf(text: string): ByteString {
	return nonAscii.test(text) ? Buffer.from(text, "utf8").toString("latin1") : text;
}

/** The text, for people; bytes that are not UTF-8 become U+FFFD. */
export function textOf(bytes: ByteString): string {
	return nonAscii.test(bytes) ? Buffer.from(bytes, "latin1").toString("utf8") : bytes;
}

/** The name in the form that `fs` and `sys` take. */
export function fsPath(bytes: ByteString): string | Buffer {
	return nonAscii.test(bytes) ? Buffer.from(bytes, "latin1") : bytes;
}

/** The shortest equal path by text alone, as Go's path.Clean: `a//b/../c/` is `a/c`, empty is `.`, `/..` is `/`. */
export function cleanPath(path: ByteString): ByteString {
	if (!/^$|\/$|\/\/|(^|\/)\.\.?(\/|$)/.test(path)) {
		return path;
	}
	const rooted = path.startsWith("/");
	const parts: string[] = [];
	for (const part of path.split("/")) {
		if (part === "" || part === ".") {
			continue;
		}
		if (part !== ".." || (!rooted && (parts.length === 0 || parts.at(-1) === ".."))) {
			parts.push(part);
		} else {
			parts.pop();
		}
	}
	const joined = parts.join("/");
	return rooted ? `/${joined}` : joined === "" ? "." : joined;
}

/** The folder with its slash, and the name; `a` has the folder ``. */
export function splitPath(path: ByteString): readonly [folder: ByteString, name: ByteString] {
	const slash = path.lastIndexOf("/");
	return [path.slice(0, slash + 1), path.slice(slash + 1)];
}
