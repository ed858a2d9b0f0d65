import { toLower, toUpper } from "./go-text.ts";

export interface SuggestOptions {
	/** False compares in lower case and answers in the case of the word. */
	readonly caseSensitive: boolean;
}

/** A word is like another one if fewer edits than this lead there. */
const tooFar = 3;

/**
 * The option that the word was probably meant to be: fewest edits (below three), the first of equals. None if the
 * word is itself an option, for then the error has another reason.
 */
export function suggest(
	word: string,
	options: Iterable<string>,
	{ caseSensitive }: SuggestOptions,
): string | undefined {
	const wanted = caseSensitive ? word : toLower(word);
	const letters = codePoints(wanted);
	let best: string | undefined;
	let bestDistance = tooFar;
	for (const given of options) {
		const option = caseSensitive ? given : toLower(given);
		if (option === wanted) {
			return undefined;
		}
		const distance = editDistance(letters, codePoints(option));
		if (distance < bestDistance) {
			bestDistance = distance;
			best = caseSensitive ? option : matchCase(option, word);
		}
	}
	return best === "" ? undefined : best;
}

/** The message with ` (did you mean X?)` behind, if there is something to suggest. */
export function withSuggestion(
	message: string,
	word: string,
	options: Iterable<string>,
	how: SuggestOptions = { caseSensitive: true },
): string {
	const match = suggest(word, options, how);
	return match === undefined ? message : `${message} (did you mean ${match}?)`;
}

function matchCase(option: string, like: string): string {
	if (like === toLower(like)) {
		return toLower(option);
	}
	return like === toUpper(like) ? toUpper(option) : option;
}

function codePoints(text: string): readonly number[] {
	return Array.from(text, (char) => char.codePointAt(0) ?? 0);
}

/** Levenshtein distance, or `tooFar` if it is that or more: only a diagonal band is computed, in linear time. */
function editDistance(left: readonly number[], right: readonly number[]): number {
	if (Math.abs(left.length - right.length) >= tooFar) {
		return tooFar;
	}
	const band = tooFar - 1;
	const get = (row: readonly number[], column: number, offset: number): number =>
		row[column - offset + band] ?? tooFar;
	/** `row[j - i + band]` is the distance of the first i of `left` and the first j of `right`. */
	let row = Array.from({ length: 2 * band + 1 }, (_, index) => (index < band ? tooFar : index - band));
	for (let i = 1; i <= left.length; i++) {
		const next: number[] = [];
		for (let j = i - band; j <= i + band; j++) {
			if (j < 0 || j > right.length) {
				next.push(tooFar);
				continue;
			}
			if (j === 0) {
				next.push(Math.min(i, tooFar));
				continue;
			}
			const replaced = get(row, j - 1, i - 1) + (left[i - 1] === right[j - 1] ? 0 : 1);
			const removed = j - i + 1 <= band ? get(row, j, i - 1) + 1 : tooFar;
			const added = (next.at(-1) ?? tooFar) + 1;
			next.push(Math.min(replaced, removed, added, tooFar));
		}
		if (next.every((distance) => distance >= tooFar)) {
			return tooFar;
		}
		row = next;
	}
	return get(row, right.length, left.length);
}
