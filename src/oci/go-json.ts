import { SlipwayError } from "../errors/errors.ts";
import { compareUtf8 } from "./utf8-order.ts";

/**
 * JSON as Go's encoding/json writes it, so that documents (and with them digests) equal BuildKit's byte for byte.
 *
 * - Plain objects are Go structs: keys stay in their order, `undefined` is left out. (JavaScript moves keys that look
 *   like array indexes to the front; use a map where such keys can occur.)
 * - `Map`s are Go maps: keys in byte order. `goMap` makes one from a record.
 * - `Uint8Array` is written as base64, a bigint as a number, `null` as `null` (Go's nil slice or map).
 */
export type GoJson =
	| string
	| number
	| bigint
	| boolean
	| null
	| undefined
	| Uint8Array
	| readonly GoJson[]
	| ReadonlyMap<string, GoJson>
	| object;

export interface GoJsonOptions {
	/** Repeated per level, as `json.MarshalIndent(value, "", indent)`; default: one line. */
	readonly indent?: string;
}

/** Throws `internal` for what JSON cannot say: NaN, infinities, functions, symbols. */
export function goJson(value: GoJson, options: GoJsonOptions = {}): string {
	return write(value, options.indent, "\n");
}

/** A Go map with the entries of the record; undefined and empty stay out, as with Go's `omitempty`. */
export function goMap<T>(
	record: Readonly<Record<string, T>> | undefined,
): ReadonlyMap<string, T> | undefined {
	const entries = Object.entries(record ?? {});
	return entries.length === 0 ? undefined : new Map(entries);
}

/** The keys in the order in which Go writes a map. */
export function sortedKeys(map: Readonly<Record<string, unknown>> | ReadonlyMap<string, unknown>): string[] {
	const keys = map instanceof Map ? [...map.keys()] : Object.keys(map);
	return keys.sort(compareUtf8);
}

/** `newline` is the line break with the indentation of the current level. */
function write(value: unknown, indent: string | undefined, newline: string): string {
	switch (typeof value) {
		case "string":
			return quoteJson(value);
		case "number":
			if (!Number.isFinite(value)) {
				throw new SlipwayError("internal", `json: unsupported value: ${value}`);
			}
			return String(value);
		case "bigint":
		case "boolean":
			return String(value);
		case "undefined":
			return "null";
		case "object":
			break;
		default:
			throw new SlipwayError("internal", `json: unsupported type: ${typeof value}`);
	}
	if (value === null) {
		return "null";
	}
	if (value instanceof Uint8Array) {
		return `"${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64")}"`;
	}
	const inner = indent === undefined ? "" : newline + indent;
	const comma = `,${inner}`;
	const end = indent === undefined ? "" : newline;
	if (Array.isArray(value)) {
		if (value.length === 0) {
			return "[]";
		}
		return `[${inner}${value.map((item) => write(item, indent, inner)).join(comma)}${end}]`;
	}
	const colon = indent === undefined ? ":" : ": ";
	const fields: string[] = [];
	const keys = value instanceof Map ? sortedKeys(value) : Object.keys(value);
	for (const key of keys) {
		const item = value instanceof Map ? value.get(key) : (value as Record<string, unknown>)[key];
		if (item !== undefined) {
			fields.push(quoteJson(key) + colon + write(item, indent, inner));
		}
	}
	return fields.length === 0 ? "{}" : `{${inner}${fields.join(comma)}${end}}`;
}

const needsEscape = /["\\<>&\u0000-\u001f\u2028\u2029\ud800-\udfff]/;
const escaped =
	/["\\<>&\u0000-\u001f\u2028\u2029]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const shortEscapes: Readonly<Record<string, string>> = {
	'"': '\\"',
	"\\": "\\\\",
	"\b": "\\b",
	"\f": "\\f",
	"\n": "\\n",
	"\r": "\\r",
	"\t": "\\t",
};

/** Go escapes what HTML would read as markup and writes U+FFFD where the text is not well-formed. */
function quoteJson(text: string): string {
	if (!needsEscape.test(text)) {
		return `"${text}"`;
	}
	const body = text.replace(escaped, (character) => {
		const code = character.charCodeAt(0);
		if (code >= 0xd800 && code <= 0xdfff) {
			return "\\ufffd";
		}
		return shortEscapes[character] ?? `\\u${code.toString(16).padStart(4, "0")}`;
	});
	return `"${body}"`;
}
