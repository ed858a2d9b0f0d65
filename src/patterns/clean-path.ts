/** The shortest equal path, as Go's `path.Clean`: no empty or `.` parts, `..` resolved as far as it goes; `.` for nothing. */
export function cleanPath(path: string): string {
	// Most paths are clean.
	if (!/^$|\/$|\/\/|(^|\/)\.\.?(\/|$)/.test(path)) {
		return path;
	}
	const rooted = path.startsWith("/");
	const parts: string[] = [];
	for (const part of path.split("/")) {
		if (part === "" || part === ".") {
			continue;
		}
		if (part !== "..") {
			parts.push(part);
		} else if (parts.length > 0 && parts.at(-1) !== "..") {
			parts.pop();
		} else if (!rooted) {
			parts.push(part);
		}
	}
	const joined = parts.join("/");
	return rooted ? `/${joined}` : joined === "" ? "." : joined;
}

/** Go's `path.Join`: empty parts are left out, the rest is cleaned; empty for nothing. */
export function joinPath(...parts: readonly string[]): string {
	const joined = parts.filter((part) => part !== "").join("/");
	return joined === "" ? "" : cleanPath(joined);
}
