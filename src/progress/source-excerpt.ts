import type { ErrorDetail } from "../errors/errors.ts";

/**
 * The lines around the place of an error, as BuildKit prints them, with a newline at the end; empty if the place is
 * not in the file. Four lines of context go to a single line, two to several.
 */
export function formatSourceExcerpt(detail: Extract<ErrorDetail, { kind: "source" }>): string {
	const { file, ranges } = detail;
	const lines = new TextDecoder().decode(file.data).split("\n");
	const spans = ranges.map(({ start, end }) => ({
		first: start.line,
		last: Math.max(start.line, end.line),
	}));
	const first = spans.reduce((line, span) => Math.min(line, span.first), Number.POSITIVE_INFINITY);
	const last = Math.min(
		spans.reduce((line, span) => Math.max(line, span.last), 0),
		lines.length,
	);
	if (first > lines.length || first < 1) {
		return "";
	}
	const marked = new Set<number>();
	for (const span of spans) {
		for (let line = span.first; line <= Math.min(span.last, lines.length); line++) {
			marked.add(line);
		}
	}
	let start = first;
	let end = last;
	for (let padding = first === last ? 4 : 2; padding > 0; padding--) {
		if (start > 1) {
			start--;
			padding--;
		}
		if (end < lines.length) {
			end++;
			padding--;
		}
	}
	const rule = "--------------------\n";
	let out = `${file.filename}:${first}\n${rule}`;
	for (let line = start; line <= end; line++) {
		const mark = marked.has(line) ? ">>>" : "   ";
		out += ` ${String(line).padStart(3)} | ${mark} ${lines[line - 1] ?? ""}\n`;
	}
	return out + rule;
}
