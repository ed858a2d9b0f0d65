import { SlipwayError, wrap } from "../../errors/errors.ts";
import { GoNil, GoStruct, type GoValue, goText, sortedEntries } from "./go-values.ts";
import { isTrue, templateFunctions } from "./template-functions.ts";

/**
 * Go's text/template for `--format`: text, comments, pipelines, fields, variables, literals, `if`, `range`, `with`, `break`,
 * `continue`, and the functions of `template-functions.ts`. Templates by name (`define`, `template`, `block`) are an error that says so.
 */
export type Template = (data: GoValue) => string;

/** Throws `invalid-argument` for what is no template. `json` alone is `{{json .}}`. */
export function parseTemplate(text: string): Template {
	const source = text === "json" ? "{{json .}}" : text;
	const parser = new Parser(source);
	const body = parser.list(["end of template"]);
	return (data) => {
		const out: string[] = [];
		try {
			render(body.nodes, { dot: data, variables: new Map([["$", data]]), out });
		} catch (thrown) {
			throw wrap(thrown, `template: executing ${JSON.stringify(source)}`);
		}
		return out.join("");
	};
}

type Expression =
	| { readonly kind: "literal"; readonly value: GoValue }
	/** `.A.B`, `$x.A`, `(…).A`. */
	| { readonly kind: "path"; readonly base: Expression | "dot" | string; readonly names: readonly string[] }
	| { readonly kind: "call"; readonly name: string; readonly args: readonly Expression[] };

interface Pipeline {
	/** Names of variables; two only for `range`. */
	readonly variables: readonly string[];
	readonly expression: Expression;
}

type Node =
	| { readonly kind: "text"; readonly text: string }
	| { readonly kind: "value"; readonly pipeline: Pipeline }
	| {
			readonly kind: "if" | "range" | "with";
			readonly pipeline: Pipeline;
			readonly body: readonly Node[];
			readonly otherwise: readonly Node[];
	  }
	| { readonly kind: "break" | "continue" };

interface List {
	readonly nodes: readonly Node[];
	/** The action that ended it. */
	readonly end: string;
}

/** Fields stand right behind what they are fields of: `$x.A.B`, `.A.B`, `(…).A`. */
const token =
	/"(?:[^"\\]|\\.)*"|`[^`]*`|'(?:[^'\\]|\\.)*'|:=|[-+]?\d[\w.]*|(?:\$\w*|\))(?:\.[A-Za-z_]\w*)*|(?:\.[A-Za-z_]\w*)+|[A-Za-z_]\w*|\S/gs;

class Parser {
	readonly #parts: readonly string[];
	#at = 0;
	#words: string[] = [];

	constructor(source: string) {
		this.#parts = source
			.replace(/\s*\{\{-(?=\s)/g, "{{")
			.replace(/(?<=\s)-\}\}\s*/g, "}}")
			.split(/(\{\{(?:"(?:[^"\\]|\\.)*"|`[^`]*`|(?!\}\}).)*\}\})/s)
			.filter((part) => part !== "");
	}

	/** Until one of these actions. */
	list(ends: readonly string[]): List {
		const nodes: Node[] = [];
		while (this.#at < this.#parts.length) {
			const part = this.#parts[this.#at++] ?? "";
			if (!part.startsWith("{{")) {
				nodes.push({ kind: "text", text: part });
				continue;
			}
			const action = part.slice(2, -2).trim();
			if (!part.endsWith("}}")) {
				throw invalid("unclosed action");
			}
			if (action.startsWith("/*")) {
				continue;
			}
			this.#words = action.match(token) ?? [];
			const [first = ""] = this.#words;
			if (first === "end" || first === "else") {
				if (!ends.includes(first)) {
					throw invalid(`unexpected {{${first}}}`);
				}
				return { nodes, end: action };
			}
			nodes.push(this.#node(first));
		}
		if (!ends.includes("end of template")) {
			throw invalid("unexpected EOF");
		}
		return { nodes, end: "" };
	}

	#node(first: string): Node {
		switch (first) {
			case "if":
			case "range":
			case "with":
				this.#words.shift();
				return this.#block(first);
			case "break":
			case "continue":
				return { kind: first };
			case "define":
			case "template":
			case "block":
				throw invalid(`{{${first}}} is not supported`);
			default: {
				const pipeline = this.#pipeline();
				return { kind: "value", pipeline };
			}
		}
	}

	#block(kind: "if" | "range" | "with"): Node {
		const pipeline = this.#pipeline();
		const body = this.list(["end", "else"]);
		if (body.end === "end") {
			return { kind, pipeline, body: body.nodes, otherwise: [] };
		}
		const chained = /^else\s+(if|with)\b/.exec(body.end)?.[1];
		if (chained === "if" || chained === "with") {
			this.#words.splice(0, 2);
			return { kind, pipeline, body: body.nodes, otherwise: [this.#block(chained)] };
		}
		return { kind, pipeline, body: body.nodes, otherwise: this.list(["end"]).nodes };
	}

	#pipeline(): Pipeline {
		const variables: string[] = [];
		const assigned = this.#words.findIndex((word) => word === ":=" || word === "=");
		if (assigned > 0) {
			variables.push(...this.#words.splice(0, assigned + 1).filter((word) => word.startsWith("$")));
		}
		let expression = this.#command();
		while (this.#words[0] === "|") {
			this.#words.shift();
			const next = this.#command();
			if (next.kind !== "call") {
				throw invalid("a pipeline goes into a function");
			}
			expression = { ...next, args: [...next.args, expression] };
		}
		if (this.#words.length > 0) {
			throw invalid(`unexpected ${JSON.stringify(this.#words[0])}`);
		}
		return { variables, expression };
	}

	#command(): Expression {
		const [word = ""] = this.#words;
		if (!/^[A-Za-z_]/.test(word) || word === "true" || word === "false" || word === "nil") {
			return this.#operand();
		}
		this.#words.shift();
		if (word !== "and" && word !== "or" && !templateFunctions.has(word)) {
			throw invalid(`function ${JSON.stringify(word)} not defined`);
		}
		const args: Expression[] = [];
		while (this.#words.length > 0 && this.#words[0] !== "|") {
			args.push(this.#operand());
		}
		return { kind: "call", name: word, args };
	}

	#operand(): Expression {
		const word = this.#words.shift();
		if (word === undefined) {
			throw invalid("missing value for command");
		}
		if (word === "(") {
			const rest = this.#words;
			let depth = 1;
			const end = rest.findIndex((each) => {
				depth += each === "(" ? 1 : each.startsWith(")") ? -1 : 0;
				return depth === 0;
			});
			if (end === -1) {
				throw invalid("unclosed left paren");
			}
			this.#words = rest.slice(0, end);
			const { expression } = this.#pipeline();
			this.#words = rest.slice(end + 1);
			return { kind: "path", base: expression, names: namesOf(rest[end] ?? "") };
		}
		if (word.startsWith(".")) {
			return { kind: "path", base: "dot", names: namesOf(word) };
		}
		if (word.startsWith("$")) {
			return { kind: "path", base: word.split(".", 1)[0] ?? "", names: namesOf(word) };
		}
		if (/^[A-Za-z_]/.test(word) && !["true", "false", "nil"].includes(word)) {
			this.#words.unshift(word);
			const { name } = this.#command() as { readonly name: string };
			return { kind: "call", name, args: [] };
		}
		return { kind: "literal", value: literal(word) };
	}
}

/** `$x.A.B`: A and B. */
function namesOf(word: string): readonly string[] {
	return word
		.split(".")
		.slice(1)
		.filter((name) => name !== "");
}

function literal(word: string): GoValue {
	if (word.startsWith('"')) {
		try {
			return JSON.parse(word.replace(/\\'/g, "'")) as string;
		} catch {
			throw invalid(`invalid text ${word}`);
		}
	}
	if (word.startsWith("`")) {
		return word.slice(1, -1);
	}
	if (word.startsWith("'")) {
		return word.codePointAt(1);
	}
	const named = new Map<string, GoValue>([
		["true", true],
		["false", false],
		["nil", undefined],
	]);
	if (named.has(word)) {
		return named.get(word);
	}
	const number = Number(word);
	if (Number.isNaN(number)) {
		throw invalid(`unexpected ${JSON.stringify(word)}`);
	}
	return number;
}

interface Scope {
	readonly dot: GoValue;
	readonly variables: ReadonlyMap<string, GoValue>;
	readonly out: string[];
}

/** Gives why it ended early, for `break` and `continue`. */
function render(nodes: readonly Node[], scope: Scope): "break" | "continue" | undefined {
	const variables = new Map(scope.variables);
	const inner: Scope = { ...scope, variables };
	for (const node of nodes) {
		switch (node.kind) {
			case "text":
				scope.out.push(node.text);
				break;
			case "value": {
				const value = evaluate(node.pipeline.expression, inner);
				const [name] = node.pipeline.variables;
				if (name === undefined) {
					scope.out.push(goText(value));
				} else {
					variables.set(name, value);
				}
				break;
			}
			case "break":
			case "continue":
				return node.kind;
			case "if":
			case "with": {
				const value = evaluate(node.pipeline.expression, inner);
				const [name] = node.pipeline.variables;
				const block: Scope = {
					...inner,
					...(node.kind === "with" && isTrue(value) ? { dot: value } : {}),
					...(name === undefined ? {} : { variables: new Map([...variables, [name, value]]) }),
				};
				const ended = render(isTrue(value) ? node.body : node.otherwise, block);
				if (ended !== undefined) {
					return ended;
				}
				break;
			}
			case "range":
				renderRange(node, inner);
				break;
		}
	}
	return undefined;
}

function renderRange(
	{ pipeline, body, otherwise }: Extract<Node, { readonly kind: "if" | "range" | "with" }>,
	scope: Scope,
): void {
	const items = itemsOf(evaluate(pipeline.expression, scope));
	if (items.length === 0) {
		render(otherwise, scope);
	}
	for (const [key, item] of items) {
		const names = pipeline.variables;
		const own: [string, GoValue][] =
			names.length === 2
				? [
						[names[0] ?? "", key],
						[names[1] ?? "", item],
					]
				: names.map((name) => [name, item]);
		const ended = render(body, { ...scope, dot: item, variables: new Map([...scope.variables, ...own]) });
		if (ended === "break") {
			return;
		}
	}
}

function itemsOf(value: GoValue): readonly (readonly [key: GoValue, item: GoValue])[] {
	if (Array.isArray(value)) {
		return value.map((item, index) => [index, item] as const);
	}
	if (typeof value === "number") {
		return Array.from({ length: value }, (_, index) => [index, index] as const);
	}
	if (value instanceof GoNil || value === undefined) {
		return [];
	}
	if (typeof value === "object" && value !== null && !(value instanceof GoStruct)) {
		return sortedEntries(value);
	}
	throw invalid(`range can't iterate over ${goText(value)}`);
}

function evaluate(expression: Expression, scope: Scope): GoValue {
	switch (expression.kind) {
		case "literal":
			return expression.value;
		case "path": {
			const { base, names } = expression;
			return names.reduce(fieldOf, baseOf(base, scope));
		}
		case "call": {
			const { name, args } = expression;
			if (name === "and" || name === "or") {
				let value: GoValue;
				for (const each of args) {
					value = evaluate(each, scope);
					if (isTrue(value) === (name === "or")) {
						return value;
					}
				}
				return value;
			}
			return templateFunctions.get(name)?.(...args.map((each) => evaluate(each, scope)));
		}
	}
}

function baseOf(base: Expression | string, scope: Scope): GoValue {
	if (typeof base !== "string") {
		return evaluate(base, scope);
	}
	if (base === "dot") {
		return scope.dot;
	}
	if (!scope.variables.has(base)) {
		throw invalid(`undefined variable ${JSON.stringify(base)}`);
	}
	return scope.variables.get(base);
}

function fieldOf(value: GoValue, name: string): GoValue {
	if (value instanceof GoStruct) {
		const field = value.fields.find((each) => each.name === name);
		if (field === undefined) {
			const known = value.fields.map((each) => each.name).join(", ");
			throw invalid(`can't evaluate field ${name}: there are ${known}`);
		}
		return field.value;
	}
	if (value === undefined) {
		throw invalid(`nil pointer evaluating .${name}`);
	}
	if (typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof GoNil)) {
		return (value as Readonly<Record<string, GoValue>>)[name];
	}
	throw invalid(`can't evaluate field ${name} in ${Array.isArray(value) ? "a list" : "a plain value"}`);
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", `template: ${message}`);
}
