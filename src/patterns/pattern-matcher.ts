import { SlipwayError } from "../errors/errors.ts";
import { cleanPath } from "./clean-path.ts";
import { compileGlob } from "./glob.ts";
import type { MatchState, Pattern, PatternMatcher } from "./patterns.ts";

/**
 * Compiles patterns; blank ones are left out. Throws `invalid-argument` for a lone `!` and for a malformed class.
 */
export function createPatternMatcher(texts: readonly string[]): PatternMatcher {
	const patterns = texts
		.map((text) => text.trim())
		.filter((text) => text !== "")
		.map(parsePattern);
	return {
		patterns,
		hasExclusions: patterns.some((pattern) => pattern.negated),
		matches: (path) => matchesOrParent(patterns, path),
		matchesWithParent: (path, parent) => matchesWithParent(patterns, path, parent),
	};
}

function parsePattern(text: string): Pattern {
	const cleaned = cleanPath(text);
	const negated = cleaned.startsWith("!");
	if (cleaned === "!") {
		throw new SlipwayError("invalid-argument", 'illegal exclusion pattern: "!"');
	}
	const body = negated ? cleaned.slice(1) : cleaned;
	return { text: body, negated, matches: compileGlob(body).matches };
}

function matchesOrParent(patterns: readonly Pattern[], path: string): boolean {
	let matched = false;
	for (const pattern of patterns) {
		// What is already decided that way needs no look.
		if (pattern.negated === matched && matchesPathOrParent(pattern, path)) {
			matched = !pattern.negated;
		}
	}
	return matched;
}

function matchesPathOrParent(pattern: Pattern, path: string): boolean {
	if (pattern.matches(path)) {
		return true;
	}
	for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1)) {
		if (slash > 0 && pattern.matches(path.slice(0, slash))) {
			return true;
		}
	}
	return false;
}

function matchesWithParent(
	patterns: readonly Pattern[],
	path: string,
	parent: MatchState | undefined,
): MatchState {
	const each = new Array<boolean>(patterns.length).fill(false);
	let matched = false;
	for (const [index, pattern] of patterns.entries()) {
		let match = parent?.each[index] ?? false;
		if (!match) {
			if (pattern.negated !== matched) {
				continue;
			}
			match = parent === undefined ? matchesPathOrParent(pattern, path) : pattern.matches(path);
		}
		each[index] = match;
		if (match) {
			matched = !pattern.negated;
		}
	}
	return { matched, each };
}
