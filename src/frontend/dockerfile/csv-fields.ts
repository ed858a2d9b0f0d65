import { SlipwayError } from "../../errors/errors.ts";
import { csvFields } from "../../oci/csv-fields.ts";

/** The fields of a flag's value. An empty one is `EOF`, which is what BuildKit says of it. */
export function parseCsvFields(text: string): readonly string[] {
	if (text === "" || text === "\n" || text === "\r\n") {
		throw new SlipwayError("invalid-argument", "EOF");
	}
	return csvFields(text);
}
