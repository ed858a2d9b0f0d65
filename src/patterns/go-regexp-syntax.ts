import { SlipwayError } from "../errors/errors.ts";

/** Go's syntax of regular expressions (`regexp/syntax`): what it has not, such as looking ahead, is an error in Go's words. */
export type Node =
	| { readonly kind: "empty" }
	| { readonly kind: "character"; readonly matches: (code: number) => boolean }
	| { readonly kind: "assert"; readonly condition: Condition }
	| { readonly kind: "sequence" | "choice"; readonly nodes: readonly Node[] }
	| { readonly kind: "group"; readonly index: number; readonly node: Node }
	| {
			readonly kind: "repeat";
			readonly node: Node;
			readonly min: number;
			/** Undefined: without end. */
			readonly max: number | undefined;
			readonly greedy: boolean;
	  };

export type Condition =
	| "text start"
	| "text end"
	| "line start"
	| "line end"
	| "word boundary"
	| "no word boundary";

export interface ParsedGoRegExp {
	readonly node: Node;
	/** By number of group, the whole first. */
	readonly names: readonly string[];
}

export function parseGoRegExp(source: string): ParsedGoRegExp {
	const parser = new Parser(source);
	return { node: parser.parse(), names: parser.names };
}

/** `i`, `m`, `s`, `U` that are on. */
type Flags = ReadonlySet<string>;

/** Go's limits. */
const maxRepeat = 1000;
const maxDepth = 1000;

const conditions: Readonly<Record<string, Condition>> = {
	A: "text start",
	z: "text end",
	b: "word boundary",
	B: "no word boundary",
};

const controls: Readonly<Record<string, number>> = { a: 7, f: 12, t: 9, n: 10, r: 13, v: 11 };

const posix: Readonly<Record<string, string>> = {
	alnum: "0-9A-Za-z",
	alpha: "A-Za-z",
	ascii: "\\x00-\\x7f",
	blank: "\\t ",
	cntrl: "\\x00-\\x1f\\x7f",
	digit: "0-9",
	graph: "!-~",
	lower: "a-z",
	print: " -~",
	punct: "!-\\/:-@\\[-`\\{-~",
	space: "\\t\\n\\v\\f\\r ",
	upper: "A-Z",
	word: "0-9A-Za-z_",
	xdigit: "0-9A-Fa-f",
};

const perl: Readonly<Record<string, string>> = { d: "0-9", s: "\\t\\n\\f\\r ", w: "0-9A-Za-z_" };

class Parser {
	readonly #text: string;
	#at = 0;
	#depth = 0;
	#flags: Flags = new Set();
	readonly names: string[] = [""];

	constructor(text: string) {
		this.#text = text;
	}

	parse(): Node {
		const node = this.#choice();
		if (this.#at < this.#text.length) {
			throw bad("unexpected )", this.#text);
		}
		return node;
	}

	#choice(): Node {
		const nodes = [this.#sequence()];
		while (this.#take("|")) {
			nodes.push(this.#sequence());
		}
		return nodes.length === 1 && nodes[0] !== undefined ? nodes[0] : { kind: "choice", nodes };
	}

	#sequence(): Node {
		const nodes: Node[] = [];
		while (this.#at < this.#text.length && !this.#sees("|") && !this.#sees(")")) {
			const start = this.#at;
			if (this.#repetition() !== undefined) {
				throw bad("missing argument to repetition operator", this.#text.slice(start, this.#at));
			}
			const node = this.#atom();
			nodes.push(...(Array.isArray(node) ? node : [this.#repeated(node)]));
		}
		return { kind: "sequence", nodes };
	}

	/** A list, which no repetition can follow, for `\Q…\E` and flags. */
	#atom(): Node | Node[] {
		const character = this.#next();
		switch (character) {
			case "(":
				return this.#group();
			case "[":
				return this.#class();
			case ".":
				return this.#flags.has("s")
					? { kind: "character", matches: () => true }
					: { kind: "character", matches: (code) => code !== 10 };
			case "^":
				return { kind: "assert", condition: this.#flags.has("m") ? "line start" : "text start" };
			case "$":
				return { kind: "assert", condition: this.#flags.has("m") ? "line end" : "text end" };
			case "\\":
				return this.#escape();
			default:
				return this.#literal(character.codePointAt(0) ?? 0);
		}
	}

	#literal(code: number): Node {
		if (!this.#flags.has("i")) {
			return { kind: "character", matches: (other) => other === code };
		}
		return this.#set(`\\u{${code.toString(16)}}`);
	}

	/** Of JavaScript's syntax for the inside of a class; one character at a time it has nothing to go back for. */
	#set(inside: string, negated = false): Node {
		const flags = this.#flags.has("i") ? "iu" : "u";
		const pattern = new RegExp(`^[${negated ? "^" : ""}${inside}]$`, flags);
		return { kind: "character", matches: (code) => pattern.test(String.fromCodePoint(code)) };
	}

	#repeated(node: Node): Node {
		let now = node;
		let previous: string | undefined;
		for (;;) {
			const start = this.#at;
			const range = this.#repetition();
			if (range === undefined) {
				return now;
			}
			const greedy = this.#take("?") === this.#flags.has("U");
			const operator = this.#text.slice(start, this.#at);
			if (previous !== undefined) {
				throw bad("invalid nested repetition operator", `${previous}${operator}`);
			}
			previous = operator;
			now = { kind: "repeat", node: now, ...range, greedy };
			if (operator.startsWith("{") && !isRepeatable(now, maxRepeat)) {
				throw bad("invalid repeat count", operator);
			}
		}
	}

	#repetition(): { readonly min: number; readonly max: number | undefined } | undefined {
		if (this.#take("*")) {
			return { min: 0, max: undefined };
		}
		if (this.#take("+")) {
			return { min: 1, max: undefined };
		}
		if (this.#take("?")) {
			return { min: 0, max: 1 };
		}
		const [whole, low, comma, high] =
			/^\{(\d+)(,(\d*))?\}/.exec(this.#text.slice(this.#at, this.#at + 40))?.map((each) => each) ?? [];
		if (whole === undefined) {
			return undefined;
		}
		this.#at += whole.length;
		const min = Number(low);
		const max = comma === undefined ? min : high === "" ? undefined : Number(high);
		if (min > maxRepeat || (max !== undefined && (max > maxRepeat || min > max))) {
			throw bad("invalid repeat count", whole);
		}
		return { min, max };
	}

	#group(): Node | Node[] {
		const start = this.#at - 1;
		const before = this.#flags;
		let index: number | undefined;
		if (this.#take("?")) {
			if (this.#take("P<") || this.#take("<")) {
				index = this.names.push(this.#groupName(start)) - 1;
			} else if (this.#setFlags(start)) {
				return [];
			}
		} else {
			index = this.names.push("") - 1;
		}
		if (++this.#depth > maxDepth) {
			throw bad("expression nests too deeply", this.#text);
		}
		const node = this.#choice();
		this.#depth--;
		if (!this.#take(")")) {
			throw bad("missing closing )", this.#text);
		}
		this.#flags = before;
		return index === undefined ? node : { kind: "group", index, node };
	}

	#groupName(start: number): string {
		const end = this.#text.indexOf(">", this.#at);
		const name = this.#text.slice(this.#at, end);
		if (end === -1 || !/^\w+$/.test(name)) {
			throw bad("invalid named capture", this.#text.slice(start, end === -1 ? undefined : end + 1));
		}
		this.#at = end + 1;
		return name;
	}

	/** True if they are for the rest of the group that they are in, false if a group of their own follows. */
	#setFlags(start: number): boolean {
		const [whole, on = "", off, end] =
			/^([imsU]*)(?:-([imsU]+))?([:)])/.exec(this.#text.slice(this.#at, this.#at + 40)) ?? [];
		if (whole === undefined || whole === ")") {
			const [seen = "(?"] = /^\(\?[imsU-]*.?/su.exec(this.#text.slice(start)) ?? [];
			throw bad("invalid or unsupported Perl syntax", seen);
		}
		this.#at += whole.length;
		const flags = new Set([...this.#flags, ...on]);
		for (const flag of off ?? "") {
			flags.delete(flag);
		}
		this.#flags = flags;
		return end === ")";
	}

	#escape(): Node | Node[] {
		const letter = this.#text.charAt(this.#at);
		if (letter === "Q") {
			return this.#quoted();
		}
		const condition = Object.hasOwn(conditions, letter) ? conditions[letter] : undefined;
		if (condition !== undefined) {
			this.#at++;
			return { kind: "assert", condition };
		}
		const set = this.#namedSet();
		return set === undefined ? this.#literal(this.#escapedCode()) : this.#set(set.inside, set.negated);
	}

	#quoted(): Node[] {
		this.#at++;
		const end = this.#text.indexOf("\\E", this.#at);
		const quoted = this.#text.slice(this.#at, end === -1 ? undefined : end);
		this.#at = end === -1 ? this.#text.length : end + 2;
		const nodes = Array.from(quoted, (each) => this.#literal(each.codePointAt(0) ?? 0));
		const last = nodes.pop();
		return last === undefined ? nodes : [...nodes, this.#repeated(last)];
	}

	/** `d`, `pL`, `p{Greek}` and the like behind a backslash. */
	#namedSet(): { readonly inside: string; readonly negated: boolean } | undefined {
		const letter = this.#text.charAt(this.#at);
		const inside = perl[letter.toLowerCase()];
		if (inside !== undefined && letter !== "") {
			this.#at++;
			return { inside, negated: letter !== letter.toLowerCase() };
		}
		if (letter !== "p" && letter !== "P") {
			return undefined;
		}
		const rest = this.#text.slice(this.#at + 1, this.#at + 60);
		const [whole, braced, bare] = /^(?:\{(\^?\w+)\}|(\w))/.exec(rest) ?? [];
		const text = `\\${letter}${whole ?? rest.slice(0, 1)}`;
		const name = (braced ?? bare ?? "").replace("^", "");
		const property = [name, `Script=${name}`].find(isProperty);
		if (whole === undefined || property === undefined) {
			throw bad("invalid character class range", text);
		}
		this.#at += 1 + whole.length;
		return {
			inside: `\\p{${property}}`,
			negated: (letter === "P") !== (braced?.startsWith("^") === true),
		};
	}

	#escapedCode(): number {
		const start = this.#at - 1;
		const rest = this.#text.slice(this.#at, this.#at + 12);
		if (rest === "") {
			throw bad("trailing backslash at end of expression", "");
		}
		const [octal] = /^(?:0[0-7]{0,2}|[1-7][0-7]{1,2})/.exec(rest) ?? [];
		if (octal !== undefined) {
			this.#at += octal.length;
			return Number.parseInt(octal, 8);
		}
		const [hex, short, long] = /^x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})/.exec(rest) ?? [];
		const code = Number.parseInt(short ?? long ?? "", 16);
		if (hex !== undefined && code <= 0x10ffff) {
			this.#at += hex.length;
			return code;
		}
		const character = this.#next();
		const control = Object.hasOwn(controls, character) ? controls[character] : undefined;
		if (control !== undefined) {
			return control;
		}
		if (/^[0-9A-Za-z]$/.test(character) || character > "\x7f") {
			throw bad("invalid escape sequence", this.#text.slice(start, this.#at));
		}
		return character.codePointAt(0) ?? 0;
	}

	#class(): Node {
		const start = this.#at - 1;
		const negated = this.#take("^");
		// What Perl does, and Go: a negated class takes a newline.
		const parts: string[] = [];
		let isFirst = true;
		while (isFirst || !this.#sees("]")) {
			if (this.#at >= this.#text.length) {
				throw bad("missing closing ]", this.#text.slice(start));
			}
			isFirst = false;
			parts.push(this.#posixClass() ?? this.#setInClass() ?? this.#range(start));
		}
		this.#at++;
		return this.#set(parts.join(""), negated);
	}

	#posixClass(): string | undefined {
		const [whole, caret, name = ""] =
			/^\[:(\^?)(\w+):\]/.exec(this.#text.slice(this.#at, this.#at + 20)) ?? [];
		if (whole === undefined) {
			return undefined;
		}
		const inside = Object.hasOwn(posix, name) ? posix[name] : undefined;
		if (inside === undefined) {
			throw bad("invalid character class range", whole);
		}
		this.#at += whole.length;
		return caret === "" ? inside : complement(inside);
	}

	#setInClass(): string | undefined {
		if (!this.#sees("\\")) {
			return undefined;
		}
		this.#at++;
		const set = this.#namedSet();
		if (set === undefined) {
			this.#at--;
			return undefined;
		}
		return set.negated ? complement(set.inside) : set.inside;
	}

	#range(start: number): string {
		const from = this.#at;
		const low = this.#classCode(start);
		let high = low;
		if (this.#sees("-") && !this.#sees("-]")) {
			this.#at++;
			high = this.#classCode(start);
			if (high < low) {
				throw bad("invalid character class range", this.#text.slice(from, this.#at));
			}
		}
		return `\\u{${low.toString(16)}}-\\u{${high.toString(16)}}`;
	}

	#classCode(start: number): number {
		if (this.#at >= this.#text.length) {
			throw bad("missing closing ]", this.#text.slice(start));
		}
		return this.#take("\\") ? this.#escapedCode() : (this.#next().codePointAt(0) ?? 0);
	}

	#sees(text: string): boolean {
		return this.#text.startsWith(text, this.#at);
	}

	#take(text: string): boolean {
		const is = this.#sees(text);
		if (is) {
			this.#at += text.length;
		}
		return is;
	}

	#next(): string {
		const character = String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0);
		this.#at += character.length;
		return character;
	}
}

/** Go's rule for repetitions within each other: together at most this many times. */
function isRepeatable(node: Node, times: number): boolean {
	switch (node.kind) {
		case "empty":
		case "character":
		case "assert":
			return true;
		case "sequence":
		case "choice":
			return node.nodes.every((each) => isRepeatable(each, times));
		case "group":
			return isRepeatable(node.node, times);
		case "repeat": {
			const count = node.max ?? node.min;
			return node.max === 0 || (count <= times && isRepeatable(node.node, times / Math.max(1, count)));
		}
	}
}

/** The same characters' complement, as part of another class. */
function complement(inside: string): string {
	const [property] = /^\\p\{.*\}$/.exec(inside) ?? [];
	if (property !== undefined) {
		return `\\P${property.slice(2)}`;
	}
	const pattern = new RegExp(`[${inside}]`, "u");
	// All named ones are of ASCII.
	const others = Array.from({ length: 128 }, (_, code) => code).filter(
		(code) => !pattern.test(String.fromCharCode(code)),
	);
	return `${others.map((code) => `\\u{${code.toString(16)}}`).join("")}\\u{80}-\\u{10ffff}`;
}

function isProperty(name: string): boolean {
	if (!/^(?:Script=)?\w+$/.test(name)) {
		return false;
	}
	try {
		new RegExp(`\\p{${name}}`, "u");
		return true;
	} catch {
		return false;
	}
}

function bad(what: string, text: string): SlipwayError {
	const shown = text.length > 100 ? `${text.slice(0, 100)}…` : text;
	return new SlipwayError("invalid-argument", `${what}: \`${shown}\``);
}
