import { fromByteString, invalidByte, isAscii, toByteString } from "../../oci/byte-text.ts";
import { isSpace, trimSpace } from "./go-text.ts";
import type { EscapeToken } from "./parser.ts";

export interface SplitCommand {
	readonly keyword: string;
	readonly flags: readonly string[];
	/** What follows the flags, trimmed. */
	readonly rest: string;
}

/** Splits a logical line into its instruction word, its leading `--` flags and the rest. */
export function splitCommand(line: string, escapeToken: EscapeToken): SplitCommand {
	const trimmed = trimSpace(line);
	const keywordEnd = trimmed.search(/[\t\v\f\r ]/);
	if (keywordEnd < 0) {
		return { keyword: trimmed, flags: [], rest: "" };
	}
	let at = keywordEnd;
	while (isSeparator(trimmed.charCodeAt(at))) {
		at++;
	}
	const keyword = trimmed.slice(0, keywordEnd);
	const rest = trimmed.slice(at);
	if (!rest.startsWith("--") && invalidByte(rest.charCodeAt(0)) === undefined) {
		return { keyword, flags: [], rest: trimSpace(rest) };
	}
	if (isAscii(rest)) {
		const split = splitFlags(rest, escapeToken);
		return { keyword, flags: split.flags, rest: trimSpace(split.rest) };
	}
	const split = splitFlags(toByteString(rest), escapeToken);
	return { keyword, flags: split.flags, rest: trimSpace(fromByteString(split.rest)) };
}

/** The blanks that separate words: fewer than Go's spaces. */
export function isSeparator(code: number): boolean {
	return code === 0x20 || code === 0x09 || (code >= 0x0b && code <= 0x0d);
}

/**
 * Reads `--flag` words until one is none, or is `--` alone. Quotes group and are removed, the escape token takes the
 * next character as it is. BuildKit does this byte by byte, so the text here is one byte per character, and the bytes
 * 0x85 and 0xA0 of a longer character are blanks.
 */
function splitFlags(
	line: string,
	escapeToken: EscapeToken,
): { readonly flags: string[]; readonly rest: string } {
	const flags: string[] = [];
	let at = 0;
	for (;;) {
		while (at < line.length && isSpace(line.charCodeAt(at))) {
			at++;
		}
		if (!line.startsWith("--", at)) {
			return { flags, rest: line.slice(at) };
		}
		let word = "";
		let quote = "";
		for (; at < line.length; at++) {
			const char = line[at] ?? "";
			if (quote === "" && isSpace(char.charCodeAt(0))) {
				break;
			}
			if (quote === "" ? char === "'" || char === '"' : char === quote) {
				quote = quote === "" ? char : "";
			} else if (char === escapeToken) {
				at++;
				word += line[at] ?? "";
			} else {
				word += char;
			}
		}
		if (word === "--") {
			return { flags, rest: line.slice(at) };
		}
		flags.push(word);
	}
}
