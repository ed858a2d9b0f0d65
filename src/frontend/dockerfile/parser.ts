import type { SourceFile, SourceRange } from "../../errors/errors.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { decodeText, encodeText } from "../../oci/byte-text.ts";
import { DirectiveScanner } from "./directives.ts";
import { isSpace, toLower, trimSpace, trimSpaceLeft } from "./go-text.ts";
import { findHeredocs } from "./heredoc.ts";
import { parseArguments } from "./instruction-arguments.ts";
import { splitCommand } from "./split-command.ts";

/**
 * Pass one of the Dockerfile frontend: bytes to a tree of instructions, each with its words and its lines. What a
 * word means is pass two's business (`instructions.ts`), its expansion pass three's.
 *
 * Text is decoded by `decodeText`, so a byte that is not UTF-8 survives until whoever encodes it again. Everything
 * here takes time in proportion to the input, whatever it is.
 */
export interface ParsedDockerfile {
	readonly file: SourceFile;
	readonly escapeToken: EscapeToken;
	readonly directives: readonly Directive[];
	/** At least one. */
	readonly instructions: readonly InstructionNode[];
	readonly warnings: readonly ParserWarning[];
}

export type EscapeToken = "\\" | "`";

export type DirectiveName = "syntax" | "escape" | "check";

/** `# name=value` at the top of the file. */
export interface Directive {
	readonly name: DirectiveName;
	readonly value: string;
	readonly ranges: readonly SourceRange[];
}

export interface ParserWarning {
	readonly kind: "empty-continuation";
	/** The instruction in which it was found, joined. */
	readonly line: string;
	readonly ranges: readonly SourceRange[];
}

export interface InstructionNode {
	/** The instruction as it is written: `RUN`, `run`, `Run`, or a word that is none. */
	readonly keyword: string;
	/** The logical line: continuations joined, comments dropped, without heredoc bodies. */
	readonly original: string;
	/** Leading words with `--`, without their quotes. Characters outside ASCII are UTF-8 bytes, one per character. */
	readonly flags: readonly string[];
	readonly arguments: InstructionArguments;
	readonly heredocs: readonly Heredoc[];
	/** One range per physical line, heredoc bodies and their terminators included. */
	readonly ranges: readonly SourceRange[];
	/** The comment lines above, without `#`, down from the last empty comment. */
	readonly comments: readonly string[];
}

export type InstructionArguments =
	/** `json` tells the JSON form, whose words are never joined nor handed to a shell. */
	| { readonly kind: "words"; readonly words: readonly string[]; readonly json: boolean }
	/** ENV and LABEL. */
	| { readonly kind: "pairs"; readonly pairs: readonly WordPair[] }
	/** ONBUILD; the trigger is absent if nothing follows. */
	| { readonly kind: "trigger"; readonly trigger: TriggerNode | undefined };

/** Quotes and escapes are kept. `legacy` is `KEY value` without `=`. */
export interface WordPair {
	readonly key: string;
	readonly value: string;
	readonly legacy: boolean;
}

export interface TriggerNode {
	readonly keyword: string;
	readonly json: boolean;
}

export interface Heredoc {
	readonly name: string;
	/** False if any part of the name was quoted. */
	readonly expand: boolean;
	/** `<<-`: leading tabs do not count. They are still in `content`; see `chompHeredoc`. */
	readonly chomp: boolean;
	/** The lines up to the terminator, with their line endings. */
	readonly content: string;
}

export interface ParseOptions {
	/** The name that errors and warnings show. */
	readonly filename?: string;
}

/** The longest line, without its newline, in bytes. */
const maxLineBytes = 65535;
/** The longest Dockerfile: what BuildKit's gateway can transport. */
const maxDockerfileBytes = 16 << 20;

/** Throws `invalid-argument` with BuildKit's message and the place as a `source` detail. */
export function parseDockerfile(data: Uint8Array, options: ParseOptions = {}): ParsedDockerfile {
	const file: SourceFile = { filename: options.filename ?? "Dockerfile", data, language: "Dockerfile" };
	if (data.length > maxDockerfileBytes) {
		throw new SlipwayError(
			"resource-exhausted",
			`${file.filename} has ${data.length} bytes, more than the limit of ${maxDockerfileBytes}`,
		);
	}
	const lines = new LineReader(data);
	const directives = new DirectiveScanner();
	const instructions: InstructionNode[] = [];
	const warnings: ParserWarning[] = [];
	let escapeToken: EscapeToken = "\\";
	let comments: string[] = [];

	/** Directives may stand in what looks like a continuation, too; the place of an error is the line before. */
	const scanDirective = (text: string): boolean => {
		try {
			const directive = directives.scan(text);
			if (directive?.name === "escape") {
				escapeToken = parseEscapeToken(directive.value);
			}
			return directive !== undefined;
		} catch (error) {
			throw withSource(error, file, lineRanges(lines.number - 1, 0));
		}
	};

	for (let raw = lines.next(); raw !== undefined; raw = lines.next()) {
		if (lines.number === 1 && raw.startsWith("\ufeff")) {
			raw = raw.slice(1);
		}
		const comment = isComment(raw);
		const first = trimSpaceLeft(trimNewline(raw));
		if (comment) {
			const text = trimSpace(raw.slice(1));
			if (text === "") {
				comments = [];
			} else {
				comments.push(text);
			}
		}
		if (scanDirective(first)) {
			comments.pop();
		}
		const startLine = lines.number;
		const start = trimContinuation(comment ? "" : first, escapeToken);
		if (!start.continues && start.text === "") {
			continue;
		}
		const parts = [start.text];
		let continues = start.continues;
		let emptyContinuation = false;
		while (continues) {
			const next = lines.next();
			if (next === undefined) {
				break;
			}
			const text = trimNewline(next);
			scanDirective(text);
			if (isComment(next)) {
				continue;
			}
			if (trimSpaceLeft(text) === "") {
				emptyContinuation = true;
				continue;
			}
			const part = trimContinuation(text, escapeToken);
			parts.push(part.text);
			continues = part.continues;
		}
		const line = parts.join("");
		if (emptyContinuation) {
			warnings.push({ kind: "empty-continuation", line, ranges: lineRanges(lines.number, 0) });
		}
		try {
			const node = parseLine(line, escapeToken);
			const heredocs = canContainHeredoc(node) && line.includes("<<") ? readHeredocs(line, lines) : [];
			instructions.push({ ...node, heredocs, ranges: lineRanges(startLine, lines.number), comments });
		} catch (error) {
			throw withSource(error, file, lineRanges(startLine, lines.number));
		}
		comments = [];
	}
	if (instructions.length === 0) {
		throw withSource(parseError("file with no instructions"), file, lineRanges(lines.number, 0));
	}
	if (lines.tooLong) {
		const error = parseError(`dockerfile line greater than max allowed size of ${maxLineBytes}`);
		throw withSource(error, file, lineRanges(lines.number, 0));
	}
	return { file, escapeToken, directives: directives.found, instructions, warnings };
}

/** One range for each line from `start` to `end`; only `start` if `end` is not behind it. */
export function lineRanges(start: number, end: number): readonly SourceRange[] {
	const ranges: SourceRange[] = [];
	for (let line = start; line <= Math.max(start, end); line++) {
		ranges.push({ start: { line, character: 0 }, end: { line, character: 0 } });
	}
	return ranges;
}

/** The same error with the place added to its details, behind those it has. */
export function withSource(thrown: unknown, file: SourceFile, ranges: readonly SourceRange[]): SlipwayError {
	const error =
		thrown instanceof SlipwayError ? thrown : new SlipwayError("internal", String(thrown), { cause: thrown });
	return new SlipwayError(error.code, error.message, {
		cause: error.cause ?? error,
		details: [...error.details, { kind: "source", file, ranges }],
	});
}

/** The words of one logical line. */
function parseLine(
	line: string,
	escapeToken: EscapeToken,
): Omit<InstructionNode, "heredocs" | "ranges" | "comments"> {
	const { keyword, flags, rest } = splitCommand(line, escapeToken);
	return { keyword, original: line, flags, arguments: parseArguments(keyword, rest, escapeToken) };
}

function canContainHeredoc(node: Pick<InstructionNode, "keyword" | "arguments">): boolean {
	const args = node.arguments;
	const inner =
		args.kind === "trigger"
			? args.trigger
			: { keyword: node.keyword, json: args.kind === "words" && args.json };
	return inner !== undefined && !inner.json && ["add", "copy", "run"].includes(toLower(inner.keyword));
}

function readHeredocs(line: string, lines: LineReader): readonly Heredoc[] {
	return findHeredocs(line).map((word) => {
		const body: string[] = [];
		for (;;) {
			const next = lines.next();
			if (next === undefined) {
				throw parseError("unterminated heredoc");
			}
			const text = trimNewline(next);
			if ((word.chomp ? text.replace(/^\t+/, "") : text) === word.name) {
				return { ...word, content: body.join("") };
			}
			body.push(next);
		}
	});
}

/** Physical lines with their endings. Stops before a line that is too long, as BuildKit's scanner does. */
class LineReader {
	/** Lines that were read. */
	number = 0;
	tooLong = false;
	readonly #text: string;
	readonly #checkLength: boolean;
	#at = 0;

	constructor(data: Uint8Array) {
		this.#text = decodeText(data);
		this.#checkLength = data.length > maxLineBytes;
	}

	next(): string | undefined {
		if (this.#at >= this.#text.length || this.tooLong) {
			return undefined;
		}
		const newline = this.#text.indexOf("\n", this.#at);
		const end = newline < 0 ? this.#text.length : newline;
		const length = end - this.#at;
		// A character is at most three bytes per UTF-16 unit, so most lines need no counting.
		if (this.#checkLength && length * 3 > maxLineBytes) {
			if (length > maxLineBytes || encodeText(this.#text.slice(this.#at, end)).length > maxLineBytes) {
				this.tooLong = true;
				return undefined;
			}
		}
		const line = this.#text.slice(this.#at, newline < 0 ? end : end + 1);
		this.#at += line.length;
		this.number++;
		return line;
	}
}

function parseEscapeToken(value: string): EscapeToken {
	if (value !== "\\" && value !== "`") {
		throw parseError(`invalid escape token '${value}' does not match \` or \\`);
	}
	return value;
}

function trimNewline(line: string): string {
	let end = line.length;
	while (end > 0 && (line[end - 1] === "\n" || line[end - 1] === "\r")) {
		end--;
	}
	return line.slice(0, end);
}

function isComment(line: string): boolean {
	let at = 0;
	while (at < line.length && isSpace(line.charCodeAt(at))) {
		at++;
	}
	return line[at] === "#";
}

interface Continuation {
	readonly text: string;
	readonly continues: boolean;
}

/** A line goes on if its last character but blanks is the escape token and the one before that is not. */
function trimContinuation(line: string, escapeToken: EscapeToken): Continuation {
	let end = line.length;
	while (end > 0 && (line[end - 1] === " " || line[end - 1] === "\t")) {
		end--;
	}
	const continues = end > 0 && line[end - 1] === escapeToken && line[end - 2] !== escapeToken;
	return continues ? { text: line.slice(0, end - 1), continues } : { text: line, continues };
}

function parseError(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
