import { SlipwayError } from "../../errors/errors.ts";
import { GoDuration, GoEnum, GoNil, GoStruct, GoTime, type GoValue, goJson, goText } from "./go-values.ts";

/** What a template may call: those of Go's text/template that make sense for records, and BuildKit's `json`. */
export const templateFunctions: ReadonlyMap<string, (...args: GoValue[]) => GoValue> = new Map<
	string,
	(...args: GoValue[]) => GoValue
>([
	["json", (value) => goJson(value)],
	["len", (value) => lengthOf(value)],
	["index", (value, ...path) => path.reduce(at, value)],
	["slice", (value, from = 0, to) => sliceOf(value, Number(from), to)],
	["print", (...args) => args.map(goText).join(args.every((each) => typeof each === "string") ? "" : " ")],
	["println", (...args) => `${args.map(goText).join(" ")}\n`],
	["printf", (format, ...args) => goFormat(String(format), args)],
	["not", (value) => !isTrue(value)],
	["eq", (first, ...others) => others.some((each) => compare(first, each) === 0)],
	["ne", (a, b) => compare(a, b) !== 0],
	["lt", (a, b) => compare(a, b) < 0],
	["le", (a, b) => compare(a, b) <= 0],
	["gt", (a, b) => compare(a, b) > 0],
	["ge", (a, b) => compare(a, b) >= 0],
	["urlquery", (...args) => encodeURIComponent(args.map(goText).join("")).replaceAll("%20", "+")],
]);

/** Go's: what is not zero and not empty. */
export function isTrue(value: GoValue): boolean {
	if (Array.isArray(value)) {
		return value.length > 0;
	}
	if (value instanceof GoStruct || value instanceof GoTime) {
		return true;
	}
	if (value instanceof GoNil) {
		return false;
	}
	if (value instanceof GoEnum || value instanceof GoDuration) {
		return scalar(value) !== 0;
	}
	return typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);
}

function scalar(value: GoValue): GoValue {
	if (value instanceof GoEnum) {
		return value.number;
	}
	if (value instanceof GoDuration) {
		return value.nanoseconds;
	}
	return value instanceof GoTime ? value.milliseconds : value;
}

function compare(left: GoValue, right: GoValue): number {
	const [a, b] = [scalar(left), scalar(right)];
	if (a === b) {
		return 0;
	}
	// A text is compared with what has a name by that.
	const [x, y] =
		typeof a === typeof b ? [a as string | number, b as string | number] : [goText(left), goText(right)];
	return x === y ? 0 : x < y ? -1 : 1;
}

function lengthOf(value: GoValue): number {
	if (Array.isArray(value)) {
		return value.length;
	}
	if (typeof value === "string") {
		return Buffer.byteLength(value);
	}
	if (value instanceof GoNil) {
		return 0;
	}
	if (typeof value === "object" && value !== null && !(value instanceof GoStruct)) {
		return Object.keys(value).length;
	}
	throw invalid("error calling len: it is no list, map or text");
}

function at(value: GoValue, key: GoValue): GoValue {
	if (Array.isArray(value)) {
		const index = Number(key);
		if (!(index >= 0 && index < value.length)) {
			throw invalid(`error calling index: index out of range: ${goText(key)}`);
		}
		return value[index];
	}
	if (
		value instanceof GoNil ||
		value === undefined ||
		typeof value !== "object" ||
		value instanceof GoStruct
	) {
		throw invalid(`error calling index: can't index ${goText(value)}`);
	}
	return (value as Readonly<Record<string, GoValue>>)[String(key)] ?? "";
}

function sliceOf(value: GoValue, from: number, to: GoValue): GoValue {
	if (Array.isArray(value) || typeof value === "string") {
		const end = to === undefined ? value.length : Number(to);
		if (!(from >= 0 && from <= end && end <= value.length)) {
			throw invalid("error calling slice: index out of range");
		}
		return value.slice(from, end);
	}
	throw invalid("error calling slice: it is no list or text");
}

/** Go's verbs for what records have. */
function goFormat(format: string, args: readonly GoValue[]): string {
	let next = 0;
	return format.replace(
		/%([-+ 0#]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])/g,
		(_all, flags: string, width: string | undefined, precision: string | undefined, verb: string) => {
			if (verb === "%") {
				return "%";
			}
			if (next >= args.length) {
				return `%!${verb}(MISSING)`;
			}
			const value = args[next++];
			const text = verbText(verb, value, precision === undefined ? undefined : Number(precision));
			if (text === undefined) {
				return `%!${verb}(${goText(value)})`;
			}
			const size = Number(width ?? 0);
			return flags.includes("-")
				? text.padEnd(size)
				: text.padStart(size, flags.includes("0") && verb !== "s" ? "0" : " ");
		},
	);
}

function verbText(verb: string, value: GoValue, precision: number | undefined): string | undefined {
	const number = scalar(value);
	switch (verb) {
		case "v":
		case "s":
			return goText(value).slice(0, verb === "s" ? precision : undefined);
		case "q":
			return JSON.stringify(goText(value));
		case "d":
			return typeof number === "number" ? String(Math.trunc(number)) : undefined;
		case "x":
			return typeof number === "number" ? number.toString(16) : Buffer.from(goText(value)).toString("hex");
		case "f":
			return typeof number === "number" ? number.toFixed(precision ?? 6) : undefined;
		case "g":
			return typeof number === "number" ? String(number) : undefined;
		case "t":
			return typeof value === "boolean" ? String(value) : undefined;
		default:
			return undefined;
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
