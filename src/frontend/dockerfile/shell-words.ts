import { SlipwayError } from "../../errors/errors.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import type { EscapeToken } from "./parser.ts";
import { WordMachine } from "./word-machine.ts";

/**
 * Variable expansion and quote removal, as BuildKit's `shell.Lex` does it: `$name`, `${name}` with modifiers, single
 * and double quotes, the escape token. The lexer keeps its own stack, so nesting depth costs memory in proportion to
 * the text and never the call stack; what one expansion may add and what its patterns may cost is bounded.
 */
export interface ShellLexer {
	readonly escapeToken: EscapeToken;
	/** Quotes stay in the result. */
	readonly rawQuotes?: boolean;
	/** Escape tokens stay in the result. */
	readonly rawEscapes?: boolean;
	/** Quotes are ordinary characters: the bodies of heredocs. */
	readonly skipProcessQuotes?: boolean;
	/** A variable that is not set stays as it is written: names for people. */
	readonly skipUnsetEnv?: boolean;
}

export interface Environment {
	get(name: string): string | undefined;
	/** Names for suggestions. */
	keys(): Iterable<string>;
}

export interface WordExpansion {
	/** The word after expansion; empty on error. */
	readonly text: string;
	/** Names that were looked up, by whether the environment had them, in the order of their first use. */
	readonly matched: ReadonlySet<string>;
	readonly unmatched: ReadonlySet<string>;
	readonly error?: SlipwayError;
}

export const emptyEnvironment: Environment = { get: () => undefined, keys: () => [] };

export function mapEnvironment(variables: ReadonlyMap<string, string>): Environment {
	return { get: (name) => variables.get(name), keys: () => variables.keys() };
}

/** Expands one word; the error is part of the result, because callers report the unmatched names even then. */
export function processWord(lexer: ShellLexer, word: string, env: Environment): WordExpansion {
	const machine = new WordMachine(lexer, word, env, false);
	try {
		return { text: machine.run(), matched: machine.matched, unmatched: machine.unmatched };
	} catch (thrown) {
		const error = wrapError(word, thrown);
		return { text: "", matched: machine.matched, unmatched: machine.unmatched, error };
	}
}

/** Expands one word. Throws `failed to process "<word>": ...`. */
export function expandWord(lexer: ShellLexer, word: string, env: Environment): string {
	const expansion = processWord(lexer, word, env);
	if (expansion.error !== undefined) {
		throw expansion.error;
	}
	return expansion.text;
}

/** Expands, then splits at blanks that are neither quoted nor escaped; blanks from variables split. */
export function splitWords(lexer: ShellLexer, word: string, env: Environment): readonly string[] {
	const machine = new WordMachine(lexer, word, env, true);
	try {
		machine.run();
		return machine.words();
	} catch (thrown) {
		throw wrapError(word, thrown);
	}
}

function wrapError(word: string, thrown: unknown): SlipwayError {
	const code = thrown instanceof SlipwayError ? thrown.code : "internal";
	const reason = thrown instanceof Error ? thrown.message : String(thrown);
	return new SlipwayError(code, `failed to process ${quoteGo(word)}: ${reason}`, { cause: thrown });
}
