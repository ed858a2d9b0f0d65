import { SlipwayError } from "../../errors/errors.ts";
import { fromByteString, isAscii, toByteString } from "../../oci/byte-text.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { isSpace, toLower, trimSpaceLeft } from "./go-text.ts";
import type { EscapeToken, InstructionArguments, WordPair } from "./parser.ts";
import { splitCommand } from "./split-command.ts";

/** Reads what follows an instruction's flags by the grammar of the instruction. An unknown instruction has no words. */
export function parseArguments(
	keyword: string,
	rest: string,
	escapeToken: EscapeToken,
): InstructionArguments {
	switch (toLower(keyword)) {
		case "add":
		case "copy":
		case "volume":
			return jsonWords(rest) ?? words(splitBlanks(rest));
		case "cmd":
		case "entrypoint":
		case "run":
		case "shell":
			return jsonWords(rest) ?? words(wholeText(rest));
		case "expose":
		case "from":
			return words(splitBlanks(rest));
		case "maintainer":
		case "stopsignal":
		case "user":
		case "workdir":
			return words(wholeText(rest));
		case "arg":
			return words(splitQuotedWords(rest, escapeToken));
		case "env":
			return { kind: "pairs", pairs: parsePairs(rest, "ENV", escapeToken) };
		case "label":
			return { kind: "pairs", pairs: parsePairs(rest, "LABEL", escapeToken) };
		case "healthcheck":
			return parseHealthcheck(rest);
		case "onbuild":
			return parseTrigger(rest, escapeToken);
		default:
			return words([]);
	}
}

function words(list: readonly string[]): InstructionArguments {
	return { kind: "words", words: list, json: false };
}

function wholeText(rest: string): readonly string[] {
	return rest === "" ? [] : [rest];
}

function splitBlanks(rest: string): readonly string[] {
	return rest === "" ? [] : rest.split(/[\t\v\f\r ]+/);
}

/**
 * The words of a JSON array of strings. Undefined for what is no JSON array, which then is shell form; an array with
 * something else in it is an error.
 */
function jsonWords(rest: string): Extract<InstructionArguments, { kind: "words" }> | undefined {
	const text = trimSpaceLeft(rest);
	if (!text.startsWith("[")) {
		return undefined;
	}
	let value: unknown;
	try {
		value = JSON.parse(text.toWellFormed());
	} catch {
		return undefined;
	}
	if (!Array.isArray(value)) {
		return undefined;
	}
	const list: string[] = [];
	for (const item of value) {
		if (typeof item !== "string") {
			if (!isGoJson(text)) {
				return undefined;
			}
			throw new SlipwayError(
				"invalid-argument",
				"when using JSON array syntax, arrays must be comprised of strings only",
			);
		}
		list.push(item.toWellFormed());
	}
	return { kind: "words", words: list, json: true };
}

/** Go refuses what JavaScript accepts: numbers beyond a double, and more than 10,000 levels. */
function isGoJson(text: string): boolean {
	let depth = 0;
	for (const token of text.matchAll(/"(?:[^"\\]|\\.)*"|[[{]|[\]}]|-?[0-9][-+.0-9eE]*/g)) {
		const first = token[0].charAt(0);
		if (first === "[" || first === "{") {
			if (++depth > 10_000) {
				return false;
			}
		} else if (first === "]" || first === "}") {
			depth--;
		} else if (first !== '"' && !Number.isFinite(Number(token[0]))) {
			return false;
		}
	}
	return true;
}

/** Words separated by blanks that are neither quoted nor escaped. Quotes and escapes stay in the words. */
function splitQuotedWords(rest: string, escapeToken: EscapeToken): readonly string[] {
	// Where BuildKit looks at characters, an undecodable byte becomes U+FFFD.
	const text = rest.toWellFormed();
	const found: string[] = [];
	let at = 0;
	for (;;) {
		while (at < text.length && isSpace(text.charCodeAt(at))) {
			at++;
		}
		if (at === text.length) {
			return found;
		}
		const start = at;
		let quote = "";
		for (; at < text.length; at++) {
			const char = text[at] ?? "";
			if (quote === "" && isSpace(char.charCodeAt(0))) {
				break;
			}
			if (char === escapeToken && quote !== "'") {
				if (at + 1 === text.length) {
					break;
				}
				at++;
			} else if (quote === "" ? char === "'" || char === '"' : char === quote) {
				quote = quote === "" ? char : "";
			}
		}
		const word = text.slice(start, at);
		if (word !== "") {
			found.push(word);
		}
		if (text[at] === escapeToken) {
			return found;
		}
	}
}

/** `key=value ...`, or `key text` if the first word has no `=`. */
function parsePairs(rest: string, name: string, escapeToken: EscapeToken): readonly WordPair[] {
	const list = splitQuotedWords(rest, escapeToken);
	const [first] = list;
	if (first === undefined) {
		return [];
	}
	if (!first.includes("=")) {
		const match = /^([^\t\v\f\r ]*)[\t\v\f\r ]+(.*)$/s.exec(rest);
		if (match === null) {
			throw new SlipwayError("invalid-argument", `${name} must have two arguments`);
		}
		return [{ key: match[1] ?? "", value: match[2] ?? "", legacy: true }];
	}
	return list.map((word) => {
		const equals = word.indexOf("=");
		if (equals < 0) {
			throw new SlipwayError(
				"invalid-argument",
				`Syntax error - can't find = in ${quoteGo(word)}. Must be of the form: name=value`,
			);
		}
		return { key: word.slice(0, equals), value: word.slice(equals + 1), legacy: false };
	});
}

/** A type word, then what CMD takes. BuildKit looks for blanks in bytes here. */
function parseHealthcheck(rest: string): InstructionArguments {
	const ascii = isAscii(rest);
	const text = ascii ? rest : toByteString(rest);
	let end = 0;
	while (end < text.length && !isSpace(text.charCodeAt(end))) {
		end++;
	}
	let next = end;
	while (next < text.length && isSpace(text.charCodeAt(next))) {
		next++;
	}
	if (end === 0) {
		return words([]);
	}
	const type = ascii ? text.slice(0, end) : fromByteString(text.slice(0, end));
	const command = ascii ? text.slice(next) : fromByteString(text.slice(next));
	const json = jsonWords(command);
	return { kind: "words", words: [type, ...(json?.words ?? wholeText(command))], json: json !== undefined };
}

/**
 * The instruction behind ONBUILD, of which only the keyword and the form matter here: its text is stored and parsed
 * again when it triggers. A chain of ONBUILDs is refused later, but not before its innermost instruction was read, so
 * that one's errors come first. A loop, because the chain may be as long as the line.
 */
function parseTrigger(rest: string, escapeToken: EscapeToken): InstructionArguments {
	let trigger: { keyword: string; json: boolean } | undefined;
	for (let text = rest; text !== ""; ) {
		const split = splitCommand(text, escapeToken);
		if (toLower(split.keyword) === "onbuild") {
			trigger ??= { keyword: split.keyword, json: false };
			text = split.rest;
			continue;
		}
		const inner = parseArguments(split.keyword, split.rest, escapeToken);
		trigger ??= { keyword: split.keyword, json: inner.kind === "words" && inner.json };
		break;
	}
	return { kind: "trigger", trigger };
}
