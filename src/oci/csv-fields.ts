import { SlipwayError } from "../errors/errors.ts";
import { byteLength } from "./byte-text.ts";

/**
 * The fields of one line of CSV, with the rules and errors of Go's `encoding/csv`: a field is quoted only if its first
 * character is a quote, `""` inside is one quote, and a quote anywhere else is an error (`invalid-argument`). An empty line is one
 * empty field; Go's reader calls it the end of the file.
 */
export function csvFields(text: string): readonly string[] {
	let line = text;
	if (line.endsWith("\n")) {
		line = line.slice(0, line.endsWith("\r\n") ? -2 : -1);
	}
	const fields: string[] = [];
	let at = 0;
	for (;;) {
		if (line[at] !== '"') {
			const comma = line.indexOf(",", at);
			const end = comma < 0 ? line.length : comma;
			const field = line.slice(at, end);
			const bare = field.indexOf('"');
			if (bare >= 0) {
				throw csvError(line, at + bare, 'bare " in non-quoted-field');
			}
			fields.push(field);
			if (comma < 0) {
				return fields;
			}
			at = comma + 1;
			continue;
		}
		at++;
		let field = "";
		for (;;) {
			const quote = line.indexOf('"', at);
			if (quote < 0) {
				throw csvError(line, at, 'extraneous or missing " in quoted-field');
			}
			field += line.slice(at, quote);
			at = quote + 1;
			if (line[at] !== '"') {
				break;
			}
			field += '"';
			at++;
		}
		fields.push(field);
		if (at === line.length) {
			return fields;
		}
		if (line[at] !== ",") {
			throw csvError(line, at - 1, 'extraneous or missing " in quoted-field');
		}
		at++;
	}
}

function csvError(line: string, at: number, reason: string): SlipwayError {
	const column = byteLength(line.slice(0, at)) + 1;
	return new SlipwayError("invalid-argument", `parse error on line 1, column ${column}: ${reason}`);
}
