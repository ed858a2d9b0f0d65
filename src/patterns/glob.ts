import { SlipwayError } from "../errors/errors.ts";

/**
 * One glob in moby's dialect (see `patterns.ts`), compiled. Matching takes time in proportion to the product of the lengths of
 * pattern and path, whatever the pattern: no regular expression of a stranger is ever run.
 */
export interface Glob {
	matches(path: string): boolean;
}

type Token =
	| { readonly kind: "text"; readonly text: string }
	/** `?`: one character that is no slash. */
	| { readonly kind: "any" }
	| {
			readonly kind: "class";
			readonly negated: boolean;
			readonly ranges: readonly (readonly [number, number])[];
	  }
	/** `*`: any number of characters that are no slash. */
	| { readonly kind: "star" }
	/** `**` or `**` and a slash in front of more: nothing, or anything up to and including a slash. */
	| { readonly kind: "directories" }
	/** `**` at the end: anything. */
	| { readonly kind: "rest" };

export interface GlobOptions {
	/** Without it `**` is two single stars, as in Go's `path.Match`. Default true. */
	readonly doubleStar?: boolean;
}

/** Throws `invalid-argument` for a class that does not end and the like, as Go's `path.Match` does. */
export function compileGlob(pattern: string, options: GlobOptions = {}): Glob {
	const tokens = tokenize(pattern, options.doubleStar ?? true);
	const only = tokens[0];
	if (tokens.length === 0) {
		return { matches: (path) => path === "" };
	}
	if (tokens.length === 1 && only?.kind === "text") {
		return { matches: (path) => path === only.text };
	}
	return { matches: (path) => matchFrom(tokens, 0, path, 0, new Set()) };
}

/** True if the text has a wildcard that is not escaped. */
export function hasWildcard(text: string): boolean {
	for (let i = 0; i < text.length; i++) {
		const char = text[i];
		if (char === "\\") {
			i++;
		} else if (char === "*" || char === "?" || char === "[") {
			return true;
		}
	}
	return false;
}

function tokenize(pattern: string, doubleStar: boolean): readonly Token[] {
	const tokens: Token[] = [];
	let text = "";
	const push = (token: Token): void => {
		if (text !== "") {
			tokens.push({ kind: "text", text });
			text = "";
		}
		tokens.push(token);
	};
	let i = 0;
	while (i < pattern.length) {
		const char = pattern[i] as string;
		if (char === "*" && doubleStar && pattern[i + 1] === "*") {
			const leading = i === 0;
			i += 2;
			// A pattern that begins with `**` and has no other wildcard is a plain suffix: `**foo` matches `xfoo`.
			const suffix = pattern.slice(i);
			if (
				leading &&
				suffix !== "" &&
				!suffix.startsWith("/") &&
				!hasWildcard(suffix) &&
				!suffix.includes("\\")
			) {
				push({ kind: "rest" });
				continue;
			}
			if (pattern[i] === "/") {
				i++;
			}
			push(i === pattern.length ? { kind: "rest" } : { kind: "directories" });
		} else if (char === "*") {
			push({ kind: "star" });
			i++;
		} else if (char === "?") {
			push({ kind: "any" });
			i++;
		} else if (char === "[") {
			const end = parseClass(pattern, i, push);
			i = end;
		} else if (char === "\\") {
			if (i + 1 === pattern.length) {
				throw badPattern(pattern);
			}
			text += pattern[i + 1];
			i += 2;
		} else {
			text += char;
			i++;
		}
	}
	if (text !== "") {
		tokens.push({ kind: "text", text });
	}
	return tokens;
}

/** Parses `[…]` at `start`, pushes its token, gives the position behind it. */
function parseClass(pattern: string, start: number, push: (token: Token) => void): number {
	let i = start + 1;
	const negated = pattern[i] === "^";
	if (negated) {
		i++;
	}
	const ranges: [number, number][] = [];
	while (pattern[i] !== "]" || ranges.length === 0) {
		const [low, afterLow] = classCharacter(pattern, i);
		i = afterLow;
		let high = low;
		if (pattern[i] === "-") {
			[high, i] = classCharacter(pattern, i + 1);
		}
		ranges.push([low, high]);
	}
	push({ kind: "class", negated, ranges });
	return i + 1;
}

function classCharacter(pattern: string, at: number): [code: number, next: number] {
	let i = at;
	if (i >= pattern.length || pattern[i] === "-" || pattern[i] === "]") {
		throw badPattern(pattern);
	}
	if (pattern[i] === "\\") {
		i++;
	}
	const code = pattern.codePointAt(i);
	if (code === undefined) {
		throw badPattern(pattern);
	}
	return [code, i + (code > 0xffff ? 2 : 1)];
}

function badPattern(pattern: string): SlipwayError {
	return new SlipwayError("invalid-argument", `syntax error in pattern ${JSON.stringify(pattern)}`);
}

/** `failed` remembers pairs of (wildcard, position) that led nowhere, which is what keeps this from being exponential. */
function matchFrom(
	tokens: readonly Token[],
	token: number,
	path: string,
	position: number,
	failed: Set<number>,
): boolean {
	let at = position;
	for (let t = token; t < tokens.length; t++) {
		const now = tokens[t] as Token;
		switch (now.kind) {
			case "text":
				if (!path.startsWith(now.text, at)) {
					return false;
				}
				at += now.text.length;
				break;
			case "any":
			case "class": {
				const code = path.codePointAt(at);
				if (code === undefined || !matchesCharacter(now, code)) {
					return false;
				}
				at += code > 0xffff ? 2 : 1;
				break;
			}
			case "rest":
				if (t === tokens.length - 1) {
					return true;
				}
				return tryEach(tokens, t, path, at, failed, (from) => (from < path.length ? from + 1 : -1));
			case "star":
				return tryEach(tokens, t, path, at, failed, (from) =>
					from < path.length && path[from] !== "/" ? from + 1 : -1,
				);
			case "directories":
				return tryEach(tokens, t, path, at, failed, (from) => path.indexOf("/", from) + 1 || -1);
		}
	}
	return at === path.length;
}

function tryEach(
	tokens: readonly Token[],
	token: number,
	path: string,
	position: number,
	failed: Set<number>,
	next: (from: number) => number,
): boolean {
	const key = token * (path.length + 1) + position;
	if (failed.has(key)) {
		return false;
	}
	for (let at = position; at !== -1; at = next(at)) {
		if (matchFrom(tokens, token + 1, path, at, failed)) {
			return true;
		}
	}
	failed.add(key);
	return false;
}

function matchesCharacter(token: Extract<Token, { kind: "any" | "class" }>, code: number): boolean {
	if (token.kind === "any") {
		return code !== 0x2f;
	}
	return token.ranges.some(([low, high]) => code >= low && code <= high) !== token.negated;
}
