import { SlipwayError } from "../../errors/errors.ts";
import { isDigit, isLetter, isSpace } from "./go-text.ts";
import { replacePattern, type StepBudget, trimPattern } from "./shell-pattern.ts";
import type { Environment, ShellLexer } from "./shell-words.ts";

/** How many characters an expansion may be longer than the word that it comes from. */
const maxGrowth = 1 << 20;
/** Steps that the patterns of one word may take: far less than a second. */
const maxPatternSteps = 1 << 26;

/** A `${name…` whose modifier is being read. */
interface Substitution {
	readonly name: string;
	/** The modifier as it is written, `:` included. */
	readonly written: string;
	/** `${v/p/r}`: the pattern once it is read. */
	readonly pattern: string | undefined;
	readonly all: boolean;
}

/**
 * What is being read. `text` ends at its stop character, or at the end of the word if it has none (the outermost
 * frame only); `quote` is the inside of double quotes.
 */
interface Frame {
	readonly kind: "text" | "quote";
	readonly stop: string;
	readonly rawEscapes: boolean;
	readonly substitution: Substitution | undefined;
	out: string;
}

/** Reads one word. `run` gives the text, then `words` its parts if splitting was asked for. */
export class WordMachine {
	readonly matched: Set<string> = new Set();
	readonly unmatched: Set<string> = new Set();
	readonly #lexer: ShellLexer;
	readonly #source: string;
	readonly #env: Environment;
	readonly #maxLength: number;
	readonly #budget: StepBudget = { steps: maxPatternSteps };
	readonly #stack: Frame[];
	readonly #words: string[] | undefined;
	#at = 0;
	#pending = "";
	#inWord = false;

	constructor(lexer: ShellLexer, source: string, env: Environment, split: boolean) {
		this.#lexer = lexer;
		// BuildKit's scanner drops a byte order mark and sees every undecodable byte as U+FFFD.
		this.#source = (source.startsWith("\ufeff") ? source.slice(1) : source).toWellFormed();
		this.#env = env;
		this.#maxLength = source.length + maxGrowth;
		this.#words = split ? [] : undefined;
		const rawEscapes = lexer.rawEscapes === true;
		this.#stack = [{ kind: "text", stop: "", rawEscapes, substitution: undefined, out: "" }];
	}

	run(): string {
		for (;;) {
			const frame = this.#stack.at(-1);
			if (frame === undefined) {
				throw new SlipwayError("internal", "word lexer has lost its place");
			}
			try {
				if (this.#at >= this.#source.length) {
					if (frame.kind === "text" && frame.stop === "") {
						return frame.out;
					}
					throw syntaxError(`unexpected end of statement while looking for matching ${describe(frame)}`);
				}
				if (frame.kind === "text") {
					this.#stepText(frame);
				} else {
					this.#stepQuote(frame);
				}
			} catch (error) {
				throw this.#unwind(error);
			}
		}
	}

	words(): readonly string[] {
		if (this.#pending !== "") {
			this.#words?.push(this.#pending);
		}
		return this.#words ?? [];
	}

	/** At the end of the word an error inside a substitution reads as the outermost substitution not being closed. */
	#unwind(error: unknown): unknown {
		const outermost = this.#stack.find((frame) => frame.substitution !== undefined);
		if (outermost === undefined || this.#at < this.#source.length) {
			return error;
		}
		if (error instanceof SlipwayError && error.code !== "invalid-argument") {
			return error;
		}
		// biome-ignore lint/suspicious/noTemplateCurlyInString: the message shows the syntax
		return syntaxError(`syntax error: missing ${outermost.stop === "/" ? "'/' in ${}" : "'}'"}`);
	}

	#stepText(frame: Frame): void {
		const source = this.#source;
		const plainEnd = this.#plainEnd(frame);
		if (plainEnd > this.#at) {
			const run = source.slice(this.#at, plainEnd);
			this.#at = plainEnd;
			this.#append(frame, run);
			this.#addSplitting(frame, run);
			return;
		}
		const char = source[this.#at] ?? "";
		if (char === frame.stop) {
			this.#at++;
			this.#stack.pop();
			this.#finish(frame);
			return;
		}
		switch (char) {
			case "$":
				this.#dollar(frame);
				return;
			case "<":
				this.#heredocOperator(frame);
				return;
			case "'":
				this.#singleQuote(frame);
				return;
			case '"':
				this.#at++;
				this.#stack.push({
					kind: "quote",
					stop: '"',
					rawEscapes: frame.rawEscapes,
					substitution: undefined,
					out: this.#lexer.rawQuotes === true ? char : "",
				});
				return;
			default:
				this.#escaped(frame);
		}
	}

	/** Where the run of characters without meaning ends. */
	#plainEnd(frame: Frame): number {
		const source = this.#source;
		const quotes = this.#lexer.skipProcessQuotes !== true;
		let at = this.#at;
		for (; at < source.length; at++) {
			const char = source[at];
			if (
				char === "$" ||
				char === "<" ||
				char === this.#lexer.escapeToken ||
				char === frame.stop ||
				(quotes && (char === "'" || char === '"'))
			) {
				break;
			}
		}
		return at;
	}

	#escaped(frame: Frame): void {
		const token = this.#source[this.#at] ?? "";
		const next = this.#source.codePointAt(this.#at + 1);
		const kept = frame.rawEscapes ? token : "";
		const char = next === undefined ? "" : String.fromCodePoint(next);
		this.#at += 1 + char.length;
		this.#append(frame, kept + char);
		if (kept + char !== "") {
			this.#addRaw(frame, kept + char);
		}
	}

	#singleQuote(frame: Frame): void {
		const end = this.#source.indexOf("'", this.#at + 1);
		if (end < 0) {
			this.#at = this.#source.length;
			throw syntaxError("unexpected end of statement while looking for matching single-quote");
		}
		const raw = this.#lexer.rawQuotes === true;
		const text = raw ? this.#source.slice(this.#at, end + 1) : this.#source.slice(this.#at + 1, end);
		this.#at = end + 1;
		this.#append(frame, text);
		this.#addRaw(frame, text);
	}

	/** `<<` keeps the blanks behind it in one word with what follows, so that `<< EOF` is found as a heredoc. */
	#heredocOperator(frame: Frame): void {
		const start = this.#at++;
		if (this.#source[this.#at] === "<") {
			this.#at++;
			while ("\t\r ".includes(this.#source[this.#at] ?? "x")) {
				this.#at++;
			}
		}
		const text = this.#source.slice(start, this.#at);
		this.#append(frame, text);
		this.#addRaw(frame, text);
	}

	#stepQuote(frame: Frame): void {
		const source = this.#source;
		const escapeToken = this.#lexer.escapeToken;
		let end = this.#at;
		while (end < source.length && source[end] !== '"' && source[end] !== "$" && source[end] !== escapeToken) {
			end++;
		}
		if (end > this.#at) {
			this.#append(frame, source.slice(this.#at, end));
			this.#at = end;
			return;
		}
		const char = source[end] ?? "";
		if (char === '"') {
			this.#at++;
			this.#stack.pop();
			this.#append(frame, this.#lexer.rawQuotes === true ? char : "");
			const parent = this.#parent();
			this.#append(parent, frame.out);
			this.#addRaw(parent, frame.out);
			return;
		}
		if (char === "$") {
			this.#dollar(frame);
			return;
		}
		this.#at++;
		const next = source[this.#at];
		if (next === undefined) {
			this.#append(frame, frame.rawEscapes ? char : "");
		} else if (next === '"' || next === "$" || next === escapeToken) {
			this.#at++;
			this.#append(frame, frame.rawEscapes ? char + next : next);
		} else {
			this.#append(frame, frame.rawEscapes ? char + char : char);
		}
	}

	#dollar(frame: Frame): void {
		const source = this.#source;
		this.#at++;
		if (source[this.#at] !== "{") {
			const name = this.#name();
			if (name === "") {
				this.#deliver(frame, "$");
				return;
			}
			const value = this.#lookup(name);
			this.#deliver(frame, value ?? (this.#lexer.skipUnsetEnv === true ? `$${name}` : ""));
			return;
		}
		this.#at++;
		switch (source[this.#at]) {
			case undefined:
				throw syntaxError("syntax error: missing '}'");
			case "{":
			case "}":
			case ":":
				throw syntaxError("syntax error: bad substitution");
			default:
		}
		const name = this.#name();
		const modifier = this.#next();
		switch (modifier) {
			case "}": {
				const value = this.#lookup(name);
				this.#deliver(frame, value ?? (this.#lexer.skipUnsetEnv === true ? `\${${name}}` : ""));
				return;
			}
			case ":":
			case "+":
			case "-":
			case "?":
			case "#":
			case "%": {
				const operator = modifier === ":" ? this.#next() : modifier;
				const written = modifier === ":" ? modifier + operator : modifier;
				const rawEscapes = operator === "#" || operator === "%";
				if (rawEscapes && modifier === ":") {
					throw unsupported(written);
				}
				this.#push("}", rawEscapes, { name, written, pattern: undefined, all: false });
				return;
			}
			case "/": {
				const all = source[this.#at] === "/";
				if (all) {
					this.#at++;
				}
				this.#push("/", true, { name, written: modifier, pattern: undefined, all });
				return;
			}
			default:
				throw unsupported(modifier);
		}
	}

	#push(stop: string, rawEscapes: boolean, substitution: Substitution): void {
		this.#stack.push({ kind: "text", stop, rawEscapes, substitution, out: "" });
		// BuildKit's lexer shares one buffer for the word: `a${v:-b}` splits to `b`, not `ab`. Ports and heredoc
		// names depend on it.
		this.#pending = "";
	}

	/** The word of a substitution is complete. */
	#finish(frame: Frame): void {
		const substitution = frame.substitution;
		if (substitution === undefined) {
			throw new SlipwayError("internal", "word lexer has lost its place");
		}
		if (substitution.written === "/" && substitution.pattern === undefined) {
			this.#push("}", true, { ...substitution, pattern: frame.out });
			return;
		}
		this.#deliver(this.#parent(), this.#substitute(substitution, frame.out));
	}

	#substitute(substitution: Substitution, word: string): string {
		const { name, written, pattern, all } = substitution;
		const value = this.#lookup(name);
		if (value === undefined && this.#lexer.skipUnsetEnv === true) {
			return pattern === undefined ? `\${${name}${written}${word}}` : `\${${name}/${pattern}/${word}}`;
		}
		const emptyIsUnset = written.startsWith(":");
		const usable = value !== undefined && !(emptyIsUnset && value === "");
		switch (written) {
			case "-":
			case ":-":
				return usable ? value : word;
			case "+":
			case ":+":
				return usable ? word : "";
			case "?":
			case ":?":
				if (usable) {
					return value;
				}
				throw syntaxError(
					`${name}: ${word || `is not allowed to be ${value === undefined ? "unset" : "empty"}`}`,
				);
			case "#":
			case "%": {
				const greedy = word.startsWith(written);
				return trimPattern(greedy ? word.slice(1) : word, value ?? "", {
					side: written === "#" ? "prefix" : "suffix",
					greedy,
					budget: this.#budget,
				});
			}
			case "/":
				return replacePattern(pattern ?? "", value ?? "", word, {
					all,
					budget: this.#budget,
					maxLength: this.#maxLength,
				});
			default:
				throw unsupported(written);
		}
	}

	/** The next character, or U+FFFD past the end, as BuildKit's messages have it. */
	#next(): string {
		const point = this.#source.codePointAt(this.#at);
		if (point === undefined) {
			return "\ufffd";
		}
		const char = String.fromCodePoint(point);
		this.#at += char.length;
		return char;
	}

	#name(): string {
		const source = this.#source;
		const start = this.#at;
		const first = source.codePointAt(start);
		if (first === undefined) {
			return "";
		}
		const numeric = isDigit(first);
		if (!numeric && "@*#?-$!".includes(String.fromCodePoint(first))) {
			this.#at++;
			return source.slice(start, this.#at);
		}
		for (;;) {
			const point = source.codePointAt(this.#at);
			if (point === undefined || !(isDigit(point) || (!numeric && (isLetter(point) || point === 0x5f)))) {
				return source.slice(start, this.#at);
			}
			this.#at += point > 0xffff ? 2 : 1;
		}
	}

	#lookup(name: string): string | undefined {
		const value = this.#env.get(name);
		(value === undefined ? this.unmatched : this.matched).add(name);
		return value;
	}

	#parent(): Frame {
		const parent = this.#stack.at(-1);
		if (parent === undefined) {
			throw new SlipwayError("internal", "word lexer has lost its place");
		}
		return parent;
	}

	#append(frame: Frame, text: string): void {
		if (frame.out.length + text.length > this.#maxLength) {
			throw new SlipwayError("resource-exhausted", `result is longer than ${this.#maxLength} characters`);
		}
		frame.out += text;
	}

	/** A value goes to the frame that asked for it; in a text its blanks split words. */
	#deliver(frame: Frame, value: string): void {
		this.#append(frame, value);
		if (frame.kind === "text") {
			this.#addSplitting(frame, value);
		}
	}

	#addSplitting(frame: Frame, text: string): void {
		if (this.#words === undefined || frame.stop !== "") {
			return;
		}
		let start = 0;
		for (let at = 0; at <= text.length; at++) {
			if (at < text.length && !isSpace(text.charCodeAt(at))) {
				continue;
			}
			if (at > start) {
				this.#pending += text.slice(start, at);
				this.#inWord = true;
			}
			if (at < text.length && this.#inWord && this.#pending !== "") {
				this.#words.push(this.#pending);
				this.#pending = "";
				this.#inWord = false;
			}
			start = at + 1;
		}
	}

	#addRaw(frame: Frame, text: string): void {
		if (this.#words !== undefined && frame.stop === "" && frame.kind === "text") {
			this.#pending += text;
			this.#inWord = true;
		}
	}
}

function describe(frame: Frame): string {
	return frame.kind === "quote" ? "double-quote" : frame.stop;
}

function unsupported(modifier: string): SlipwayError {
	return syntaxError(`unsupported modifier (${modifier}) in substitution`);
}

function syntaxError(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
