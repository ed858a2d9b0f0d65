import { SlipwayError } from "../errors/errors.ts";

/** A JSON object that came from outside; `where` names it and the place in it, for messages. */
export interface JsonObject {
	readonly where: string;
	readonly fields: Readonly<Record<string, unknown>>;
}

export interface JsonDocumentOptions {
	/** Names the document in messages: `image config`. */
	readonly what: string;
	readonly maxBytes: number;
}

/** Documents of images are a few levels deep; far deeper ones only want to exhaust the stack. */
const maxDepth = 200;

/** Reads a document that must be one JSON object. Throws `invalid-argument`. */
export function parseJsonObject(bytes: Uint8Array, { what, maxBytes }: JsonDocumentOptions): JsonObject {
	if (bytes.length > maxBytes) {
		throw new SlipwayError("invalid-argument", `${what} has ${bytes.length} bytes, more than ${maxBytes}`);
	}
	if (depthExceeds(bytes, maxDepth)) {
		throw new SlipwayError("invalid-argument", `${what} is nested deeper than ${maxDepth} levels`);
	}
	let value: unknown;
	try {
		// A byte order mark is no JSON; the decoder must not hide it.
		value = JSON.parse(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
	} catch (error) {
		throw new SlipwayError("invalid-argument", `${what} is not JSON: ${(error as Error).message}`, {
			cause: error,
		});
	}
	return asObject(value, what);
}

function depthExceeds(bytes: Uint8Array, limit: number): boolean {
	let depth = 0;
	let inString = false;
	for (let i = 0; i < bytes.length; i++) {
		const byte = bytes[i];
		if (inString) {
			if (byte === 0x5c) {
				i++;
			} else if (byte === 0x22) {
				inString = false;
			}
		} else if (byte === 0x22) {
			inString = true;
		} else if (byte === 0x7b || byte === 0x5b) {
			if (++depth > limit) {
				return true;
			}
		} else if (byte === 0x7d || byte === 0x5d) {
			depth--;
		}
	}
	return false;
}

function asObject(value: unknown, where: string): JsonObject {
	if (typeof value !== "object" || value === null || Array.isArray(value)) {
		throw mismatch(where, "an object", value);
	}
	return { where, fields: value as Record<string, unknown> };
}

function mismatch(where: string, wanted: string, value: unknown): SlipwayError {
	const kind = value === null ? "null" : Array.isArray(value) ? "an array" : `of type ${typeof value}`;
	return new SlipwayError("invalid-argument", `${where} must be ${wanted} but is ${kind}`);
}

/** The value of a key; `null` counts as absent, as it does for Go. */
function get({ fields }: JsonObject, key: string): unknown {
	return Object.hasOwn(fields, key) ? (fields[key] ?? undefined) : undefined;
}

export function placeOf(object: JsonObject, key: string): string {
	return `${object.where}: ${key}`;
}

export function objectField(object: JsonObject, key: string): JsonObject | undefined {
	const value = get(object, key);
	return value === undefined ? undefined : asObject(value, placeOf(object, key));
}

export function stringField(object: JsonObject, key: string): string | undefined {
	const value = get(object, key);
	if (value !== undefined && typeof value !== "string") {
		throw mismatch(placeOf(object, key), "a string", value);
	}
	return value;
}

export function booleanField(object: JsonObject, key: string): boolean | undefined {
	const value = get(object, key);
	if (value !== undefined && typeof value !== "boolean") {
		throw mismatch(placeOf(object, key), "true or false", value);
	}
	return value;
}

/** A whole number; past 2^53 it is the nearest that a double holds. */
export function integerField(object: JsonObject, key: string): number | undefined {
	const value = get(object, key);
	if (value !== undefined && !Number.isInteger(value)) {
		throw typeof value === "number"
			? new SlipwayError("invalid-argument", `${placeOf(object, key)} must be a whole number but is ${value}`)
			: mismatch(placeOf(object, key), "a whole number", value);
	}
	return value as number | undefined;
}

export function arrayField(
	object: JsonObject,
	key: string,
	maxLength: number,
): readonly unknown[] | undefined {
	const value = get(object, key);
	if (value === undefined) {
		return undefined;
	}
	if (!Array.isArray(value)) {
		throw mismatch(placeOf(object, key), "an array", value);
	}
	if (value.length > maxLength) {
		throw new SlipwayError(
			"invalid-argument",
			`${placeOf(object, key)} has ${value.length} entries, more than ${maxLength}`,
		);
	}
	return value;
}

export function stringsField(
	object: JsonObject,
	key: string,
	maxLength: number,
): readonly string[] | undefined {
	const values = arrayField(object, key, maxLength);
	const other = values?.findIndex((value) => typeof value !== "string") ?? -1;
	if (other !== -1) {
		throw mismatch(`${placeOf(object, key)}[${other}]`, "a string", values?.[other]);
	}
	return values as readonly string[] | undefined;
}

export function objectsField(
	object: JsonObject,
	key: string,
	maxLength: number,
): readonly JsonObject[] | undefined {
	return arrayField(object, key, maxLength)?.map((value, i) =>
		asObject(value, `${placeOf(object, key)}[${i}]`),
	);
}

/** An object whose values are all strings; `null` values count as empty, as they do for Go. */
export function stringMapField(
	object: JsonObject,
	key: string,
): Readonly<Record<string, string>> | undefined {
	const map = objectField(object, key);
	if (map === undefined) {
		return undefined;
	}
	const entries = Object.keys(map.fields).map((name) => [name, stringField(map, name) ?? ""] as const);
	return Object.fromEntries(entries);
}

/** An object used as a set: Go's `map[string]struct{}`. */
export function setField(
	object: JsonObject,
	key: string,
): Readonly<Record<string, Record<string, never>>> | undefined {
	const set = objectField(object, key);
	if (set === undefined) {
		return undefined;
	}
	for (const name of Object.keys(set.fields)) {
		objectField(set, name);
	}
	return Object.fromEntries(Object.keys(set.fields).map((name) => [name, {}] as const));
}

/**
 * The object with the given fields put over its own: what was checked or converted replaces what came, what is
 * undefined goes, every other key stays as it came and where it stood.
 */
export function replaceFields(
	object: JsonObject,
	fields: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
	const merged = { ...object.fields, ...fields };
	return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined));
}
