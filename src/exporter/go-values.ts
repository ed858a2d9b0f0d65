import { SlipwayError } from "../errors/errors.ts";
import { quoteGo } from "../oci/go-quote.ts";

/** Option values as Go's strconv reads them, with its messages: clients compare them. */

const trueTexts: ReadonlySet<string> = new Set(["1", "t", "T", "TRUE", "true", "True"]);
const falseTexts: ReadonlySet<string> = new Set(["0", "f", "F", "FALSE", "false", "False"]);

/** `what` stands before Go's message, as in `non-bool value specified for push`. Throws `invalid-argument`. */
export function parseGoBool(text: string, what: string): boolean {
	if (trueTexts.has(text)) {
		return true;
	}
	if (falseTexts.has(text)) {
		return false;
	}
	throw invalid(`${what}: strconv.ParseBool: parsing ${quoteGo(text)}: invalid syntax`);
}

const maxInt64 = 2n ** 63n;

/** A decimal number of 64 bits; one past 2^53 is the nearest that a double holds. `what` gets Go's message. Throws `invalid-argument`. */
export function parseGoInt(text: string, what: (problem: string) => string): number {
	const problem = `strconv.ParseInt: parsing ${quoteGo(text)}`;
	if (!/^[+-]?\d+$/.test(text)) {
		throw invalid(what(`${problem}: invalid syntax`));
	}
	const value = BigInt(text.replace(/^\+/, ""));
	if (value >= maxInt64 || value < -maxInt64) {
		throw invalid(what(`${problem}: value out of range`));
	}
	return Number(value);
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
