/** Marks, formats and controls take no cell of a terminal. */
const zeroWidth = /[\p{Mn}\p{Me}\p{Cf}\p{Cc}\u1160-\u11ff]/u;

/** Unicode's East Asian Width W and F in large ranges, and what is drawn as an emoji by itself. */
const doubleWidth =
	/[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{17000}-\u{18cff}\u{1b000}-\u{1b2ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;

const ascii = /^[\x20-\x7e]*$/;

/** Cells that one code point takes: 0, 1 or 2. */
export function characterWidth(character: string): number {
	if (ascii.test(character)) {
		return 1;
	}
	return zeroWidth.test(character) ? 0 : doubleWidth.test(character) ? 2 : 1;
}

export function textWidth(text: string): number {
	if (ascii.test(text)) {
		return text.length;
	}
	let width = 0;
	for (const character of text) {
		width += characterWidth(character);
	}
	return width;
}

/** The beginning of the text that fits into so many cells. */
export function truncateToWidth(text: string, maxWidth: number): string {
	if (ascii.test(text)) {
		return text.slice(0, Math.max(maxWidth, 0));
	}
	let width = 0;
	let end = 0;
	for (const character of text) {
		width += characterWidth(character);
		if (width > maxWidth) {
			break;
		}
		end += character.length;
	}
	return text.slice(0, end);
}

/** Filled with spaces to so many cells; a longer text stays as it is. */
export function padToWidth(text: string, width: number): string {
	return text + " ".repeat(Math.max(width - textWidth(text), 0));
}
