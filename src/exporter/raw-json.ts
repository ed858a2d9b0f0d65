import { SlipwayError } from "../errors/errors.ts";

/**
 * JSON values kept as they are written. A base image's config is patched in a few keys; every other value keeps its digits,
 * escapes and order of keys, as Go's `map[string]json.RawMessage` keeps them, because the digest depends on them.
 */

/**
 * The values of an object by key, each without white space and with `<`, `>`, `&` and U+2028/9 escaped, as Go writes raw
 * values. The text must be an object in valid JSON. The last of equal keys counts.
 */
export function splitObject(text: string): Map<string, string> {
	const compact = compactJson(text);
	const values = new Map<string, string>();
	if (compact[0] !== "{") {
		throw new SlipwayError("invalid-argument", "JSON is not an object");
	}
	for (let at = 1; at < compact.length - 1; ) {
		const keyEnd = stringEnd(compact, at);
		const valueEnd = endOfValue(compact, keyEnd + 1);
		values.set(JSON.parse(compact.slice(at, keyEnd)) as string, compact.slice(keyEnd + 1, valueEnd));
		at = valueEnd + 1;
	}
	return values;
}

const strings = /"(?:[^"\\]|\\.)*"/g;
const escaped = /[<>&\u2028\u2029]/g;

function compactJson(text: string): string {
	let result = "";
	let at = 0;
	for (const { 0: string, index } of text.matchAll(strings)) {
		result += text.slice(at, index).replace(/\s+/g, "");
		result += string.replace(
			escaped,
			(character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
		);
		at = index + string.length;
	}
	return result + text.slice(at).replace(/\s+/g, "");
}

/** Just behind the string that begins at `start`. */
function stringEnd(text: string, start: number): number {
	let at = start + 1;
	while (at < text.length && text[at] !== '"') {
		at += text[at] === "\\" ? 2 : 1;
	}
	return at + 1;
}

function endOfValue(text: string, start: number): number {
	let depth = 0;
	for (let at = start; at < text.length; ) {
		const character = text[at];
		if (character === '"') {
			at = stringEnd(text, at);
			continue;
		}
		if (character === "{" || character === "[") {
			depth++;
		} else if (depth === 0 && (character === "," || character === "}")) {
			return at;
		} else if (character === "}" || character === "]") {
			depth--;
		}
		at++;
	}
	return text.length;
}
