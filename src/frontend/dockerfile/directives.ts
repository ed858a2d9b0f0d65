import type { SourceRange } from "../../errors/errors.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { decodeText } from "../../oci/byte-text.ts";
import { toLower, trimSpaceLeft } from "./go-text.ts";
import type { Directive, DirectiveName } from "./parser.ts";

const directiveNames: readonly DirectiveName[] = ["syntax", "escape", "check"];

/** As Go's line scanner: longer lines end the search. */
const maxLineLength = 65535;

/** Finds directives line by line until the first line that is none; a second one of the same name is an error. */
export class DirectiveScanner {
	readonly found: Directive[] = [];
	readonly #comment: string;
	#line: number;
	#done = false;

	constructor(comment = "#", linesBefore = 0) {
		this.#comment = comment;
		this.#line = linesBefore;
	}

	get done(): boolean {
		return this.#done;
	}

	/** The directive of the next line, if it is one. */
	scan(line: string): Directive | undefined {
		this.#line++;
		if (this.#done) {
			return undefined;
		}
		const match = line.startsWith(this.#comment)
			? matchDirective(trimSpaceLeft(line.slice(this.#comment.length)))
			: undefined;
		if (match === undefined) {
			this.#done = true;
			return undefined;
		}
		if (this.found.some((earlier) => earlier.name === match.name)) {
			throw new SlipwayError("invalid-argument", `only one ${match.name} parser directive can be used`);
		}
		const position = { line: this.#line, character: 0 };
		const directive = { ...match, ranges: [{ start: position, end: position }] };
		this.found.push(directive);
		return directive;
	}
}

export interface SyntaxDirective {
	/** The frontend image: the value up to its first blank. */
	readonly ref: string;
	/** The whole value. */
	readonly cmdline: string;
	readonly ranges: readonly SourceRange[];
}

/**
 * The `syntax` that a file of any language names: in `#` comments, in `//` comments, or as a key of a JSON object. A
 * shebang line before it is skipped. Never throws.
 */
export function detectSyntax(data: Uint8Array): SyntaxDirective | undefined {
	const { text, linesBefore } = directiveText(data);
	const directive =
		findDirective(text, "syntax", new DirectiveScanner("#", linesBefore)) ??
		findDirective(text, "syntax", new DirectiveScanner("//", linesBefore));
	if (directive !== undefined) {
		const [ref = ""] = directive.value.split(" ", 1);
		return { ref, cmdline: directive.value, ranges: directive.ranges };
	}
	const value = jsonKey(text, "syntax");
	if (value === undefined) {
		return undefined;
	}
	const position = { line: linesBefore, character: 0 };
	return { ref: value, cmdline: value, ranges: [{ start: position, end: position }] };
}

/**
 * The text of the `check` directive up to its first blank; `parseLintOptions` reads it. Unlike the parser this wants
 * the `#` in the first column, as BuildKit does.
 */
export function detectCheck(data: Uint8Array): string | undefined {
	const { text, linesBefore } = directiveText(data);
	return findDirective(text, "check", new DirectiveScanner("#", linesBefore))?.value.split(" ", 1)[0];
}

/** `check` options in a comment above an instruction, up to the first blank. */
export function checkOfComment(comment: string): string | undefined {
	const match = matchDirective(trimSpaceLeft(comment));
	return match?.name === "check" ? match.value.split(" ", 1)[0] : undefined;
}

/** `name = value`; the value loses the blanks at its end, but is never empty. */
function matchDirective(text: string): { readonly name: DirectiveName; readonly value: string } | undefined {
	const head = /^([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=/.exec(text);
	const key = toLower(head?.[1] ?? "");
	const name = directiveNames.find((candidate) => candidate === key);
	if (head === null || name === undefined) {
		return undefined;
	}
	const blanks = "\t\n\f\r ";
	let start = head[0].length;
	let end = text.length;
	while (end > start && blanks.includes(text[end - 1] ?? "x")) {
		end--;
	}
	if (end === start) {
		// Only blanks: the last of them is the value, because something must be.
		return end < text.length ? { name, value: text.slice(-1) } : undefined;
	}
	while (blanks.includes(text[start] ?? "x")) {
		start++;
	}
	const value = text.slice(start, end);
	return value.includes("\n") ? undefined : { name, value };
}

interface DirectiveText {
	readonly text: string;
	readonly linesBefore: number;
}

function directiveText(data: Uint8Array): DirectiveText {
	const decoded = decodeText(data);
	const text = decoded.startsWith("\ufeff") ? decoded.slice(1) : decoded;
	if (!text.startsWith("#!")) {
		return { text, linesBefore: 0 };
	}
	const newline = text.indexOf("\n");
	return { text: newline < 0 ? "" : text.slice(newline + 1), linesBefore: 1 };
}

function findDirective(text: string, name: DirectiveName, scanner: DirectiveScanner): Directive | undefined {
	try {
		for (let at = 0; at < text.length && !scanner.done; ) {
			const newline = text.indexOf("\n", at);
			const end = newline < 0 ? text.length : newline;
			if (end - at > maxLineLength) {
				break;
			}
			scanner.scan(text.slice(at, text[end - 1] === "\r" && end > at ? end - 1 : end));
			at = end + 1;
		}
	} catch {
		// A duplicate ends the search; what was found before it counts.
	}
	return scanner.found.find((directive) => directive.name === name);
}

function jsonKey(text: string, key: string): string | undefined {
	try {
		const value: unknown = JSON.parse(text.toWellFormed());
		if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, key)) {
			return undefined;
		}
		const found = (value as Readonly<Record<string, unknown>>)[key];
		return typeof found === "string" ? found.toWellFormed() : undefined;
	} catch {
		return undefined;
	}
}
