import { SlipwayError } from "../../errors/errors.ts";
import { quoteGo } from "../../oci/go-quote.ts";

/** Go's `strconv.ParseBool`; undefined for what it refuses. */
export function parseGoBool(text: string): boolean | undefined {
	switch (text) {
		case "1":
		case "t":
		case "T":
		case "TRUE":
		case "true":
		case "True":
			return true;
		case "0":
		case "f":
		case "F":
		case "FALSE":
		case "false":
		case "False":
			return false;
		default:
			return undefined;
	}
}

/** The error of `strconv.ParseBool`. */
export function boolSyntaxError(text: string): SlipwayError {
	return new SlipwayError("invalid-argument", `strconv.ParseBool: parsing ${quoteGo(text)}: invalid syntax`);
}

/** Go's `strconv.ParseInt(text, 10, 32)` with its errors. */
export function parseGoInt32(text: string): number {
	const prefix = `strconv.ParseInt: parsing ${quoteGo(text)}`;
	if (!/^[+-]?[0-9]+$/.test(text)) {
		throw new SlipwayError("invalid-argument", `${prefix}: invalid syntax`);
	}
	const value = Number(text);
	if (value > 0x7fffffff || value < -0x80000000) {
		throw new SlipwayError("invalid-argument", `${prefix}: value out of range`);
	}
	return value;
}

/** Go's `strconv.ParseUint(text, base, 32)`; undefined for what it refuses. */
export function parseGoUint32(text: string, base: 8 | 10): number | undefined {
	if (!(base === 8 ? /^[0-7]+$/ : /^[0-9]+$/).test(text)) {
		return undefined;
	}
	const value = Number.parseInt(text, base);
	return value > 0xffffffff ? undefined : value;
}

const binaryUnits = "kmgtp";

/**
 * A size as go-units' `RAMInBytes` reads it: a decimal number, an optional space, an optional suffix of `b` or of
 * k, m, g, t, p (powers of 1024) with `b` or `ib` behind. Undefined for what it refuses and for what exceeds 63 bits.
 */
export function parseRamSize(text: string): number | undefined {
	const match = /^(.*?[0-9.]) ?([^0-9. ]*)$|^(.*[0-9.]) $/s.exec(text);
	const number = parseGoFloat(match?.[1] ?? match?.[3] ?? "");
	const suffix = (match?.[2] ?? "").toLowerCase();
	if (number === undefined || number < 0 || suffix.length > 3) {
		return undefined;
	}
	let value = number;
	if (suffix !== "" && suffix !== "b") {
		const power = binaryUnits.indexOf(suffix.charAt(0));
		if (power < 0 || !["", "b", "ib"].includes(suffix.slice(1))) {
			return undefined;
		}
		value *= 1024 ** (power + 1);
	}
	return value < 2 ** 63 ? Math.trunc(value) : undefined;
}

/** Go's `strconv.ParseFloat` of finite decimal numbers. */
function parseGoFloat(text: string): number | undefined {
	return /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/.test(text) ? Number(text) : undefined;
}
