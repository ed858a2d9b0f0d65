import { SlipwayError } from "../../errors/errors.ts";
import { isDigit, isLetter } from "./go-text.ts";

/**
 * The glob patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, no brackets. BuildKit turns them into
 * Go regular expressions; here they are matched as the segments between the stars, because a backtracking engine
 * takes exponential time on patterns such as `*a*a*a*b`. Neither `*` nor `?` matches a newline, as in Go's `.`.
 */
export interface ShellPattern {
	/** The parts between the stars, so one more than there are stars. A part is code points, or `anyCharacter`. */
	readonly segments: readonly (readonly number[])[];
}

/** What matching may cost, shared by all patterns of one expansion. */
export interface StepBudget {
	steps: number;
}

const anyCharacter = -1;
const newline = 0x0a;
const replacementCharacter = 0xfffd;

/** Throws `invalid-argument` with BuildKit's text for an escape that means nothing. */
export function parseShellPattern(text: string): ShellPattern {
	const points = toCodePoints(text.startsWith("\ufeff") ? text.slice(1) : text);
	const segments: number[][] = [];
	let segment: number[] = [];
	for (let at = 0; at < points.length; at++) {
		const point = points[at] ?? 0;
		switch (point) {
			case 0x2a:
				segments.push(segment);
				segment = [];
				break;
			case 0x3f:
				segment.push(anyCharacter);
				break;
			case 0x5c: {
				const next = points[at + 1];
				if (next === 0x7d || next === 0x2f) {
					break;
				}
				if (next !== 0x2a && next !== 0x3f && next !== 0x5c) {
					const shown = String.fromCodePoint(next ?? replacementCharacter);
					throw new SlipwayError("invalid-argument", `invalid escape '\\${shown}'`);
				}
				segment.push(next);
				at++;
				break;
			}
			default:
				segment.push(point);
		}
	}
	segments.push(segment);
	return { segments };
}

export interface TrimOptions {
	readonly side: "prefix" | "suffix";
	/** The longest match instead of the shortest. */
	readonly greedy: boolean;
	readonly budget: StepBudget;
}

/** The value without the prefix or suffix that the pattern matches. */
export function trimPattern(pattern: string, value: string, options: TrimOptions): string {
	const { side, greedy, budget } = options;
	const ordered = side === "suffix" ? reversePattern(pattern) : pattern;
	const { segments } = compile(ordered);
	spend(budget, value.length);
	const points = toCodePoints(value);
	if (side === "suffix") {
		points.reverse();
	}
	const end = matchAt(segments, points, 0, { greedy, budget });
	if (side === "prefix") {
		return end === undefined || end === 0 ? value : fromCodePoints(value, points, end, points.length);
	}
	points.reverse();
	return fromCodePoints(value, points, 0, points.length - (end ?? 0));
}

export interface ReplaceOptions {
	readonly all: boolean;
	readonly budget: StepBudget;
	readonly maxLength: number;
}

/**
 * The value with the first match replaced literally, or all matches replaced by a Go template, in which `$0` is the
 * match, any other `$name` empty and `$$` a dollar sign.
 */
export function replacePattern(
	pattern: string,
	value: string,
	replacement: string,
	options: ReplaceOptions,
): string {
	const { segments } = compile(pattern);
	const { budget } = options;
	spend(budget, value.length);
	const points = toCodePoints(value);
	if (!options.all) {
		const found = search(segments, points, 0, budget);
		if (found === undefined) {
			return value;
		}
		const before = fromCodePoints(value, points, 0, found.start);
		return before + replacement + fromCodePoints(value, points, found.end, points.length);
	}
	const template = parseTemplate(replacement);
	const parts: string[] = [];
	let length = 0;
	const push = (part: string): void => {
		length += part.length;
		if (length > options.maxLength) {
			throw new SlipwayError("resource-exhausted", `result is longer than ${options.maxLength} characters`);
		}
		parts.push(part);
	};
	let copied = 0;
	for (let from = 0; from <= points.length; ) {
		const found = search(segments, points, from, budget);
		if (found === undefined) {
			break;
		}
		push(fromCodePoints(value, points, copied, found.start));
		if (found.end > copied || found.start === 0) {
			spend(budget, template.length);
			for (const part of template) {
				push(part ?? fromCodePoints(value, points, found.start, found.end));
			}
		}
		copied = found.end;
		from = Math.max(from + 1, found.end);
	}
	push(fromCodePoints(value, points, copied, points.length));
	return parts.join("");
}

function compile(pattern: string): ShellPattern {
	try {
		return parseShellPattern(pattern);
	} catch (error) {
		const reason = error instanceof Error ? error.message : String(error);
		throw new SlipwayError("invalid-argument", `invalid pattern (${pattern}) in substitution: ${reason}`, {
			cause: error,
		});
	}
}

/** The same pattern for reversed text; an escape stays before the character that it escapes. */
function reversePattern(pattern: string): string {
	const points = Array.from(pattern);
	const groups: string[] = [];
	for (let at = 0; at < points.length; at++) {
		const point = points[at] ?? "";
		const next = points[at + 1];
		if (point === "\\" && next !== undefined) {
			groups.push(point + next);
			at++;
		} else {
			groups.push(point);
		}
	}
	return groups.reverse().join("");
}

type Segments = readonly (readonly number[])[];

interface Found {
	readonly start: number;
	readonly end: number;
}

/** The leftmost match at or after the position, the longest there. */
function search(
	segments: Segments,
	points: readonly number[],
	from: number,
	budget: StepBudget,
): Found | undefined {
	const first = segments[0] ?? [];
	for (let start = from; start <= points.length; ) {
		if (!segmentAt(first, points, start, budget)) {
			start++;
			continue;
		}
		const end = matchAt(segments, points, start, { greedy: true, budget });
		if (end !== undefined) {
			return { start, end };
		}
		// A later start whose first segment ends on the same line has fewer places for the rest, so it fails too.
		const lineEnd = endOfLine(points, start + first.length, budget);
		start = Math.max(start + 1, lineEnd - first.length + 1);
	}
	return undefined;
}

interface MatchOptions {
	readonly greedy: boolean;
	readonly budget: StepBudget;
}

/**
 * End of the match that starts here. Every segment but the last goes to its earliest place: that leaves the most
 * room for the others, and the end of a match depends on the last segment only.
 */
function matchAt(
	segments: Segments,
	points: readonly number[],
	start: number,
	{ greedy, budget }: MatchOptions,
): number | undefined {
	const first = segments[0] ?? [];
	if (!segmentAt(first, points, start, budget)) {
		return undefined;
	}
	let at = start + first.length;
	let lineEnd = endOfLine(points, at, budget);
	for (let index = 1; index < segments.length; index++) {
		const segment = segments[index] ?? [];
		const newlineAt = segment.indexOf(newline);
		let place: number | undefined;
		if (newlineAt >= 0) {
			// The star before it cannot cross a newline, so the first one here must be the segment's.
			place = lineEnd - newlineAt;
			if (place < at || !segmentAt(segment, points, place, budget)) {
				return undefined;
			}
		} else if (greedy && index === segments.length - 1) {
			place = lastPlace(segment, points, { from: at, to: lineEnd - segment.length }, budget);
		} else {
			place = firstPlace(segment, points, { from: at, to: lineEnd - segment.length }, budget);
		}
		if (place === undefined) {
			return undefined;
		}
		at = place + segment.length;
		if (newlineAt >= 0) {
			lineEnd = endOfLine(points, at, budget);
		}
	}
	return at;
}

interface Span {
	readonly from: number;
	readonly to: number;
}

function firstPlace(
	segment: readonly number[],
	points: readonly number[],
	span: Span,
	budget: StepBudget,
): number | undefined {
	for (let at = span.from; at <= span.to; at++) {
		if (segmentAt(segment, points, at, budget)) {
			return at;
		}
	}
	return undefined;
}

function lastPlace(
	segment: readonly number[],
	points: readonly number[],
	span: Span,
	budget: StepBudget,
): number | undefined {
	for (let at = span.to; at >= span.from; at--) {
		if (segmentAt(segment, points, at, budget)) {
			return at;
		}
	}
	return undefined;
}

function segmentAt(
	segment: readonly number[],
	points: readonly number[],
	at: number,
	budget: StepBudget,
): boolean {
	if (at + segment.length > points.length) {
		return false;
	}
	let index = 0;
	while (index < segment.length) {
		const wanted = segment[index];
		const point = points[at + index] ?? newline;
		if (wanted === anyCharacter ? point === newline : wanted !== point && wanted !== visible(point)) {
			break;
		}
		index++;
	}
	spend(budget, index + 1);
	return index === segment.length;
}

/** An undecodable byte is U+FFFD for a pattern. */
function visible(point: number): number {
	return point >= 0xd800 && point <= 0xdfff ? replacementCharacter : point;
}

function endOfLine(points: readonly number[], from: number, budget: StepBudget): number {
	const found = points.indexOf(newline, from);
	const end = found < 0 ? points.length : found;
	spend(budget, (end - from) >> 3);
	return end;
}

function spend(budget: StepBudget, steps: number): void {
	budget.steps -= steps;
	if (budget.steps < 0) {
		throw new SlipwayError("resource-exhausted", "patterns take too many steps");
	}
}

/** Texts of the template; undefined stands for the match. */
function parseTemplate(template: string): readonly (string | undefined)[] {
	const parts: (string | undefined)[] = [];
	let at = 0;
	for (;;) {
		const dollar = template.indexOf("$", at);
		if (dollar < 0) {
			parts.push(template.slice(at));
			return parts;
		}
		parts.push(template.slice(at, dollar));
		at = dollar + 1;
		if (template[at] === "$") {
			parts.push("$");
			at++;
			continue;
		}
		const braced = template[at] === "{";
		const nameStart = braced ? at + 1 : at;
		let end = nameStart;
		while (end < template.length) {
			const point = template.codePointAt(end) ?? 0;
			if (!isLetter(point) && !isDigit(point) && point !== 0x5f) {
				break;
			}
			end += point > 0xffff ? 2 : 1;
		}
		if (end === nameStart || (braced && template[end] !== "}")) {
			parts.push("$");
			continue;
		}
		if (template.slice(nameStart, end) === "0") {
			parts.push(undefined);
		}
		at = braced ? end + 1 : end;
	}
}

function toCodePoints(text: string): number[] {
	const points: number[] = [];
	for (let at = 0; at < text.length; at++) {
		const point = text.codePointAt(at) ?? 0;
		points.push(point);
		if (point > 0xffff) {
			at++;
		}
	}
	return points;
}

/** The part of the text between two positions of its code points. */
function fromCodePoints(text: string, points: readonly number[], start: number, end: number): string {
	return points.length === text.length ? text.slice(start, end) : join(points, start, end);
}

function join(points: readonly number[], start: number, end: number): string {
	let out = "";
	for (let at = start; at < end; at += 4096) {
		out += String.fromCodePoint(...points.slice(at, Math.min(at + 4096, end)));
	}
	return out;
}
