import { invalidByte } from "../../oci/byte-text.ts";

/** Go's `%q` of a string (`strconv.Quote`): double quotes, escapes for what is not printable, `\xNN` for invalid bytes. */
export function goQuote(text: string): string {
	if (/^[ !#-[\]-~]*$/.test(text)) {
		return `"${text}"`;
	}
	const parts: string[] = ['"'];
	for (const char of text) {
		parts.push(quoteCharacter(char));
	}
	parts.push('"');
	return parts.join("");
}

const shortEscapes: Readonly<Record<string, string>> = {
	'"': '\\"',
	"\\": "\\\\",
	"\x07": "\\a",
	"\b": "\\b",
	"\f": "\\f",
	"\n": "\\n",
	"\r": "\\r",
	"\t": "\\t",
	"\v": "\\v",
};

function quoteCharacter(char: string): string {
	const short = shortEscapes[char];
	if (short !== undefined) {
		return short;
	}
	const code = char.codePointAt(0) ?? 0;
	const byte = invalidByte(code);
	if (byte !== undefined) {
		return `\\x${hex(byte, 2)}`;
	}
	if (code === 0x20 || /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(char)) {
		return char;
	}
	if (code < 0x20 || code === 0x7f) {
		return `\\x${hex(code, 2)}`;
	}
	return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

function hex(value: number, width: number): string {
	return value.toString(16).padStart(width, "0");
}
