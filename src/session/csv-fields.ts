import { SlipwayError } from "../errors/errors.ts";

/**
 * The fields of one line of CSV as Go's encoding/csv reads it: a field in double quotes may have commas, two quotes in
 * it are one. Throws `invalid-argument` for a quote that does not end or that stands in the middle of a field.
 */
export function csvFields(line: string): readonly string[] {
	const fields: string[] = [];
	for (let at = 0; ; ) {
		const [field, end] = line[at] === '"' ? quotedField(line, at + 1) : plainField(line, at);
		fields.push(field);
		if (end >= line.length) {
			return fields;
		}
		if (line[end] !== ",") {
			throw new SlipwayError(
				"invalid-argument",
				`extra text after a quoted field in ${JSON.stringify(line)}`,
			);
		}
		at = end + 1;
	}
}

function plainField(line: string, start: number): readonly [field: string, end: number] {
	const comma = line.indexOf(",", start);
	const end = comma === -1 ? line.length : comma;
	const field = line.slice(start, end);
	if (field.includes('"')) {
		throw new SlipwayError("invalid-argument", `bare quote in ${JSON.stringify(line)}`);
	}
	return [field, end];
}

function quotedField(line: string, start: number): readonly [field: string, end: number] {
	let field = "";
	for (let at = start; ; ) {
		const quote = line.indexOf('"', at);
		if (quote === -1) {
			throw new SlipwayError("invalid-argument", `quote is not closed in ${JSON.stringify(line)}`);
		}
		field += line.slice(at, quote);
		if (line[quote + 1] !== '"') {
			return [field, quote + 1];
		}
		field += '"';
		at = quote + 2;
	}
}
