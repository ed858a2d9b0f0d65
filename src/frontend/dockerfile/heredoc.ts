import { SlipwayError } from "../../errors/errors.ts";
import { emptyEnvironment, type ShellLexer, splitWords } from "./shell-words.ts";

/** What a heredoc word says, before its body is read. */
export interface HeredocWord {
	readonly name: string;
	readonly expand: boolean;
	readonly chomp: boolean;
}

const lineLexer: ShellLexer = { escapeToken: "\\", rawQuotes: true, rawEscapes: true, skipUnsetEnv: true };
const nameLexer: ShellLexer = { escapeToken: "\\", skipUnsetEnv: true };
const rawNameLexer: ShellLexer = { escapeToken: "\\", rawQuotes: true, skipUnsetEnv: true };

/** The heredoc words of a logical line, in order. A line that cannot be lexed has none. */
export function findHeredocs(line: string): readonly HeredocWord[] {
	let words: readonly string[];
	try {
		words = splitWords(lineLexer, line, emptyEnvironment);
	} catch {
		return [];
	}
	return words.map(parseHeredoc).filter((word) => word !== undefined);
}

/**
 * Reads `[fd]<<[-] name`; undefined if the word is no heredoc. Throws if the name cannot be lexed. The escape token
 * is always the backslash here.
 */
export function parseHeredoc(word: string): HeredocWord | undefined {
	const match = /^[0-9]*<<(-?)[\t\n\f\r ]*/.exec(word);
	if (match === null) {
		return undefined;
	}
	const rest = word.slice(match[0].length);
	if (rest === "" || rest.includes("<")) {
		return undefined;
	}
	const names = splitWords(nameLexer, rest, emptyEnvironment);
	const [name] = names;
	if (name === undefined || names.length !== 1) {
		return undefined;
	}
	const rawNames = splitWords(rawNameLexer, rest, emptyEnvironment);
	if (rawNames.length !== 1) {
		throw new SlipwayError(
			"invalid-argument",
			`internal lexing of heredoc produced inconsistent results: ${rest}`,
		);
	}
	return { name, expand: countQuotes(name) === countQuotes(rawNames[0] ?? ""), chomp: match[1] === "-" };
}

/** As `parseHeredoc`, with a name that cannot be lexed as no heredoc. */
export function parseHeredocOrNone(word: string): HeredocWord | undefined {
	try {
		return parseHeredoc(word);
	} catch {
		return undefined;
	}
}

/** The body of a `<<-` heredoc without the tabs at the start of its lines. */
export function chompHeredoc(content: string): string {
	return content.replace(/(^|\n)\t+/g, "$1");
}

function countQuotes(text: string): number {
	return text.length - text.replace(/['"]/g, "").length;
}
