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

/** The text as Go's `%q` prints it, for messages that clients compare. */
export function quoteGo(text: string): string {
	const body = text.replace(special, (character) => {
		const code = character.codePointAt(0) ?? 0;
		const hex = code.toString(16);
		if (code >= 0xd800 && code <= 0xdfff) {
			return "\ufffd";
		}
		if (code < 0x80) {
			return named[character] ?? `\\x${hex.padStart(2, "0")}`;
		}
		return code > 0xffff ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
	});
	return `"${body}"`;
}
