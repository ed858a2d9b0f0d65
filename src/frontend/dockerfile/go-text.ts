/**
 * How Go's `unicode` and `strings` packages see text. JavaScript's `trim`, `\s` and `toLowerCase` differ in U+0085,
 * U+FEFF and in letters whose other case has several characters.
 */

/** `unicode.IsSpace` for a UTF-16 code unit; no space lies outside the basic plane. */
export function isSpace(code: number): boolean {
	if (code < 0x80) {
		return code === 0x20 || (code >= 0x09 && code <= 0x0d);
	}
	return (
		code === 0x85 ||
		code === 0xa0 ||
		code === 0x1680 ||
		(code >= 0x2000 && code <= 0x200a) ||
		code === 0x2028 ||
		code === 0x2029 ||
		code === 0x202f ||
		code === 0x205f ||
		code === 0x3000
	);
}

export function trimSpaceLeft(text: string): string {
	let start = 0;
	while (start < text.length && isSpace(text.charCodeAt(start))) {
		start++;
	}
	return start === 0 ? text : text.slice(start);
}

export function trimSpace(text: string): string {
	let end = text.length;
	while (end > 0 && isSpace(text.charCodeAt(end - 1))) {
		end--;
	}
	return trimSpaceLeft(text.slice(0, end));
}

/** `unicode.IsLetter`. */
export function isLetter(codePoint: number): boolean {
	if (codePoint < 0x80) {
		const lower = codePoint | 0x20;
		return lower >= 0x61 && lower <= 0x7a;
	}
	return /^\p{L}$/u.test(String.fromCodePoint(codePoint));
}

/** `unicode.IsDigit`: decimal digits of any script. */
export function isDigit(codePoint: number): boolean {
	if (codePoint < 0x80) {
		return codePoint >= 0x30 && codePoint <= 0x39;
	}
	return /^\p{Nd}$/u.test(String.fromCodePoint(codePoint));
}

/** `strings.ToLower`: letter by letter, never by context. */
export function toLower(text: string): string {
	return mapCase(text, (letter) => letter.toLowerCase());
}

/** `strings.ToUpper`: letter by letter; `ß` stays as it is. */
export function toUpper(text: string): string {
	return mapCase(text, (letter) => letter.toUpperCase());
}

/** `strings.EqualFold`. */
export function equalFold(left: string, right: string): boolean {
	return left === right || toUpper(toLower(left)) === toUpper(toLower(right));
}

/** The order of `slices.Sort` over strings: by bytes, so by code point and not by UTF-16 unit. */
export function compareText(left: string, right: string): number {
	const length = Math.min(left.length, right.length);
	for (let at = 0; at < length; at++) {
		const a = left.charCodeAt(at);
		const b = right.charCodeAt(at);
		if (a !== b) {
			return sortWeight(a) - sortWeight(b);
		}
	}
	return left.length - right.length;
}

/** Surrogates stand for code points above the whole basic plane. */
function sortWeight(code: number): number {
	return code >= 0xd800 && code <= 0xdfff ? code + 0x10000 : code;
}

function mapCase(text: string, map: (letter: string) => string): string {
	if (!/[^\0-\x7f]/.test(text)) {
		return map(text);
	}
	let out = "";
	// Like Go, a change of case turns undecodable bytes into U+FFFD.
	for (const letter of text.toWellFormed()) {
		const mapped = map(letter);
		if ([...mapped].length === 1) {
			out += mapped;
		} else {
			out += letter === "\u0130" ? "i" : letter;
		}
	}
	return out;
}
