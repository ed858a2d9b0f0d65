import { invalidByte } from "./byte-text.ts";

const named: Readonly<Record<string, string>> = {
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

/** Quotation mark, backslash, and what Go does not count as printable: controls, formats, all spaces but U+0020. */
const special = /["\\]|[^\P{C}]|(?! )\p{Z}/gu;

/**
 * The text as Go's `%q` (`strconv.Quote`) prints it, for messages that clients compare. A byte that was no UTF-8 (see
 * `byte-text.ts`) is `\xNN`, any other half of a surrogate pair U+FFFD.
 */
export function quoteGo(text: string): string {
	const body = text.replace(special, (character) => {
		const code = character.codePointAt(0) ?? 0;
		const byte = invalidByte(code);
		if (byte !== undefined) {
			return `\\x${hex(byte, 2)}`;
		}
		if (code >= 0xd800 && code <= 0xdfff) {
			return "\ufffd";
		}
		if (code < 0x80) {
			return named[character] ?? `\\x${hex(code, 2)}`;
		}
		return code > 0xffff ? `\\U${hex(code, 8)}` : `\\u${hex(code, 4)}`;
	});
	return `"${body}"`;
}

function hex(value: number, width: number): string {
	return value.toString(16).padStart(width, "0");
}
