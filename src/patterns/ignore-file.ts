import { cleanPath } from "./clean-path.ts";

/**
 * The patterns of a `.dockerignore` file: a byte order mark is dropped, lines that begin with `#` are comments, blanks around a
 * pattern and a leading slash mean nothing.
 */
export function parseIgnoreFile(data: Uint8Array): readonly string[] {
	const patterns: string[] = [];
	for (const line of new TextDecoder().decode(data).split("\n")) {
		if (line.startsWith("#")) {
			continue;
		}
		const text = line.trim();
		if (text === "") {
			continue;
		}
		const negated = text.startsWith("!");
		const body = negated ? text.slice(1).trim() : text;
		patterns.push((negated ? "!" : "") + (body === "" ? "" : withoutLeadingSlash(cleanPath(body))));
	}
	return patterns;
}

function withoutLeadingSlash(path: string): string {
	return path.length > 1 && path.startsWith("/") ? path.slice(1) : path;
}
