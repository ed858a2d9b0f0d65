import { SlipwayError } from "../errors/errors.ts";
import { compileGoRegExp, type GoRegExp } from "../patterns/go-regexp.ts";

/** A field of what is filtered, by its path; undefined if it has none such. */
export type FilterFields = (path: readonly string[]) => string | undefined;

export type Filter = (fields: FilterFields) => boolean;

/**
 * containerd's filters (its package `filters`), which `du`, `prune`, workers and the history take: selectors `path`, `path==value`,
 * `path!=value`, `path~=regexp` that are joined by commas must all match; of several filters one must. No filter matches everything.
 * Throws what BuildKit says of a text that is no filter.
 */
export function parseFilters(texts: readonly string[]): Filter {
	const filters = texts.map(parseFilter);
	return filters.length === 0 ? () => true : (fields) => filters.some((filter) => filter(fields));
}

type Token =
	| {
			readonly kind: "field" | "value" | "quoted" | "operator" | "separator";
			readonly text: string;
			readonly at: number;
	  }
	| { readonly kind: "end"; readonly text: ""; readonly at: number };

function parseFilter(text: string): Filter {
	if (text === "") {
		return () => true;
	}
	const selectors: Filter[] = [];
	const scanner = new Scanner(text);
	for (;;) {
		selectors.push(parseSelector(scanner));
		const next = scanner.next("field");
		if (next.kind === "end") {
			return (fields) => selectors.every((selector) => selector(fields));
		}
		if (next.text !== ",") {
			throw scanner.error(next.at, `unexpected input: ${next.text.slice(0, 1)}`);
		}
	}
}

function parseSelector(scanner: Scanner): Filter {
	const path = [parseField(scanner)];
	while (scanner.peek() === ".") {
		scanner.next("field");
		path.push(parseField(scanner));
	}
	const ahead = scanner.peek();
	if (ahead === "," || ahead === "") {
		return (fields) => fields(path) !== undefined;
	}
	const operator = scanner.next("field");
	if (operator.kind !== "operator") {
		throw scanner.error(operator.at, 'expected an operator ("=="|"!="|"~=")');
	}
	if (!operators.has(operator.text)) {
		throw scanner.error(operator.at, `unsupported operator ${JSON.stringify(operator.text)}`);
	}
	const value = parseValue(scanner, operator.text === "~=");
	switch (operator.text) {
		case "==":
			return (fields) => fields(path) === value;
		case "!=":
			return (fields) => fields(path) !== value;
		default: {
			const pattern = compile(value);
			return (fields) => pattern?.test(fields(path) ?? "") ?? false;
		}
	}
}

const operators: ReadonlySet<string> = new Set(["==", "!=", "~="]);

/** A pattern that is none matches nothing. */
function compile(pattern: string): GoRegExp | undefined {
	try {
		return compileGoRegExp(pattern);
	} catch {
		return undefined;
	}
}

function parseField(scanner: Scanner): string {
	const token = scanner.next("field");
	if (token.kind === "field") {
		return token.text;
	}
	if (token.kind === "quoted") {
		return scanner.unquote(token, false);
	}
	throw scanner.error(token.at, "expected field or quoted");
}

function parseValue(scanner: Scanner, anyQuotes: boolean): string {
	const token = scanner.next(anyQuotes ? "pattern" : "value");
	if (token.kind === "field" || token.kind === "value") {
		return token.text;
	}
	if (token.kind === "quoted") {
		return scanner.unquote(token, anyQuotes);
	}
	throw scanner.error(token.at, "expected value or quoted");
}

class Scanner {
	readonly #text: string;
	#at = 0;

	constructor(text: string) {
		this.#text = text;
	}

	/** The next character, or nothing at the end. */
	peek(): string {
		return this.#text.slice(this.#at, this.#at + 1);
	}

	next(wanted: "field" | "value" | "pattern"): Token {
		const at = this.#at;
		const rest = this.#text.slice(at);
		if (rest === "") {
			return { kind: "end", text: "", at };
		}
		const quote = rest.slice(0, 1);
		if (quote === '"' || quote === "'" || (wanted === "pattern" && /[/|]/.test(quote))) {
			return this.#take("quoted", this.#quoted(rest), at);
		}
		if (wanted !== "field") {
			return this.#take("value", /^[^\s,]+/.exec(rest)?.[0] ?? "", at);
		}
		const field = /^[A-Za-z_][A-Za-z0-9_]*/.exec(rest)?.[0];
		if (field !== undefined) {
			return this.#take("field", field, at);
		}
		const operator = /^[=!~]+/.exec(rest)?.[0];
		return operator === undefined ? this.#take("separator", quote, at) : this.#take("operator", operator, at);
	}

	unquote(token: Token, anyQuotes: boolean): string {
		const inner = token.text.slice(1, -1);
		const quote = token.text.slice(0, 1);
		if (anyQuotes && quote !== '"' && quote !== "'") {
			return inner.replaceAll(`\\${quote}`, quote);
		}
		return inner.replace(/\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)/g, (whole, escaped: string) => {
			const code = /^[xu](.+)/.exec(escaped)?.[1];
			if (code !== undefined) {
				return String.fromCharCode(Number.parseInt(code, 16));
			}
			const known = escapes[escaped];
			if (known === undefined) {
				throw this.error(token.at, `unquoting failed: invalid syntax in ${whole}`);
			}
			return known;
		});
	}

	error(at: number, message: string): SlipwayError {
		const text = this.#text;
		const place =
			at < text.length ? `${text.slice(0, at)} >|${text.slice(at, at + 1)}|< ${text.slice(at + 1)}` : text;
		return new SlipwayError("unknown", `filters: parse error: [${place}]: ${message}: invalid argument`);
	}

	#quoted(rest: string): string {
		const quote = rest.slice(0, 1);
		for (let end = 1; end < rest.length; end++) {
			if (rest[end] === "\\") {
				end++;
			} else if (rest[end] === quote) {
				return rest.slice(0, end + 1);
			}
		}
		throw this.error(this.#at, "quoted literal not terminated");
	}

	#take(kind: Exclude<Token["kind"], "end">, text: string, at: number): Token {
		this.#at += text.length;
		return { kind, text, at };
	}
}

const escapes: Readonly<Record<string, string>> = {
	a: "\x07",
	b: "\b",
	f: "\f",
	n: "\n",
	r: "\r",
	t: "\t",
	v: "\v",
	"\\": "\\",
	"'": "'",
	'"': '"',
};
