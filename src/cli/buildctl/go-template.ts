import { SlipwayError } from "../../errors/errors.ts";

/**
 * What `--format` understands of Go's text/template: text, `{{.}}`, `{{.Field.Field}}`, `{{json PATH}}`, `{{len PATH}}`,
 * `{{range PATH}}…{{else}}…{{end}}`, `{{if PATH}}…{{else}}…{{end}}`, and `{{-`, `-}}`. Others are an error that says so.
 */
export type Template = (data: unknown) => string;

/** A Go struct as a template sees it: fields by Go's name, and by the name that JSON has. In Go's order. */
export class GoStruct {
	readonly fields: readonly GoField[];

	constructor(fields: readonly GoField[]) {
		this.fields = fields;
	}

	toJSON(): unknown {
		return Object.fromEntries(this.fields.map(({ json, value }) => [json, value ?? null]));
	}
}

export interface GoField {
	readonly name: string;
	readonly json: string;
	readonly value: unknown;
}

/** A point of time, in milliseconds since the epoch with fractions. */
export class GoTime {
	readonly milliseconds: number;

	constructor(milliseconds: number) {
		this.milliseconds = milliseconds;
	}

	/** As Go prints a `time.Time`. */
	toString(): string {
		const { date, time, fraction } = this.#parts();
		return `${date} ${time}${fraction} +0000 UTC`;
	}

	/** RFC 3339 with as many digits as there are. */
	toJSON(): string {
		const { date, time, fraction } = this.#parts();
		return `${date}T${time}${fraction}Z`;
	}

	#parts(): { readonly date: string; readonly time: string; readonly fraction: string } {
		const seconds = Math.floor(this.milliseconds / 1000);
		const nanoseconds = Math.round((this.milliseconds - seconds * 1000) * 1e6);
		const [date = "", rest = ""] = new Date(seconds * 1000).toISOString().split("T");
		const digits = String(nanoseconds).padStart(9, "0").replace(/0+$/, "");
		return { date, time: rest.slice(0, 8), fraction: digits === "" ? "" : `.${digits}` };
	}
}

type Node =
	| { readonly kind: "text"; readonly text: string }
	| { readonly kind: "value"; readonly expression: Expression }
	| {
			readonly kind: "range" | "if";
			readonly expression: Expression;
			readonly body: readonly Node[];
			readonly otherwise: readonly Node[];
	  };

type Expression = (data: unknown) => unknown;

/** Throws `invalid-argument` for what is no template, or none of the kind that is understood. `json` alone is `{{json .}}`. */
export function parseTemplate(text: string): Template {
	const source = text === "json" ? "{{json .}}" : text;
	const tokens = source
		.replace(/\s*\{\{-\s/g, "{{ ")
		.replace(/\s-\}\}\s*/g, " }}")
		.split(/(\{\{.*?\}\})/s)
		.filter((token) => token !== "");
	let at = 0;
	const parseList = (isTop: boolean): { readonly nodes: Node[]; readonly end: string } => {
		const nodes: Node[] = [];
		while (at < tokens.length) {
			const token = tokens[at++] ?? "";
			if (!token.startsWith("{{")) {
				nodes.push({ kind: "text", text: token });
				continue;
			}
			const action = token.slice(2, -2).trim();
			if (action === "end" || action === "else") {
				if (isTop) {
					throw invalid(source, `unexpected {{${action}}}`);
				}
				return { nodes, end: action };
			}
			const block = /^(range|if)\s+(.+)$/s.exec(action);
			if (block === null) {
				nodes.push({ kind: "value", expression: parseExpression(action, source) });
				continue;
			}
			const kind = block[1] === "range" ? "range" : "if";
			const body = parseList(false);
			const otherwise = body.end === "else" ? parseList(false).nodes : [];
			nodes.push({
				kind,
				expression: parseExpression(block[2] ?? "", source),
				body: body.nodes,
				otherwise,
			});
		}
		if (!isTop) {
			throw invalid(source, "unexpected EOF");
		}
		return { nodes, end: "" };
	};
	const { nodes } = parseList(true);
	return (data) => render(nodes, data);
}

function parseExpression(text: string, source: string): Expression {
	const call = /^(json|len)\s+(.+)$/s.exec(text);
	if (call !== null) {
		const argument = parseExpression(call[2] ?? "", source);
		return call[1] === "json"
			? (data) => goJson(argument(data))
			: (data) => {
					const value = argument(data);
					return Array.isArray(value) || typeof value === "string" ? value.length : 0;
				};
	}
	if (!/^\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?$/.test(text)) {
		throw invalid(
			source,
			`{{${text}}} is not supported: use {{json .}}, {{.Field}}, {{range .Field}}, {{if .Field}}`,
		);
	}
	const path = text.split(".").filter((part) => part !== "");
	return (data) => path.reduce((value, name) => fieldOf(value, name, source), data);
}

function fieldOf(value: unknown, name: string, source: string): unknown {
	if (value instanceof GoStruct) {
		const field = value.fields.find((each) => each.name === name);
		if (field === undefined) {
			throw invalid(
				source,
				`there is no field ${name}, only ${value.fields.map((each) => each.name).join(", ")}`,
			);
		}
		return field.value;
	}
	if (typeof value === "object" && value !== null && !Array.isArray(value)) {
		return (value as Readonly<Record<string, unknown>>)[name];
	}
	throw invalid(source, `there is no field ${name} in ${Array.isArray(value) ? "a list" : "a plain value"}`);
}

function render(nodes: readonly Node[], data: unknown): string {
	let out = "";
	for (const node of nodes) {
		if (node.kind === "text") {
			out += node.text;
			continue;
		}
		const value = node.expression(data);
		if (node.kind === "value") {
			out += goText(value);
		} else if (node.kind === "if") {
			out += render(isTrue(value) ? node.body : node.otherwise, data);
		} else {
			const list = Array.isArray(value) ? value : [];
			out +=
				list.length === 0
					? render(node.otherwise, data)
					: list.map((each) => render(node.body, each)).join("");
		}
	}
	return out;
}

function isTrue(value: unknown): boolean {
	return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

/** Go's `%v`. */
function goText(value: unknown): string {
	if (value === undefined || value === null) {
		return "<nil>";
	}
	if (Array.isArray(value)) {
		return `[${value.map(goText).join(" ")}]`;
	}
	if (value instanceof GoStruct) {
		return `{${value.fields.map((field) => goText(field.value)).join(" ")}}`;
	}
	if (typeof value === "object" && !(value instanceof GoTime)) {
		const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
		return `map[${entries.map(([key, each]) => `${key}:${goText(each)}`).join(" ")}]`;
	}
	return String(value);
}

/** As `encoding/json` writes it: its escapes, and keys of maps sorted. */
function goJson(value: unknown): string {
	return JSON.stringify(sorted(value)).replace(
		/[<>&\u2028\u2029]/g,
		(char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
	);
}

function sorted(value: unknown): unknown {
	if (Array.isArray(value)) {
		return value.map(sorted);
	}
	if (value instanceof GoStruct) {
		return Object.fromEntries(value.fields.map((field) => [field.json, sorted(field.value ?? null)]));
	}
	if (typeof value === "object" && value !== null && !(value instanceof GoTime)) {
		const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
		return Object.fromEntries(entries.map(([key, each]) => [key, sorted(each)]));
	}
	return value;
}

function invalid(source: string, why: string): SlipwayError {
	return new SlipwayError("invalid-argument", `invalid --format ${JSON.stringify(source)}: ${why}`);
}
