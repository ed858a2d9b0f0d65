import type { ByteString } from "../sys/byte-names.ts";

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
