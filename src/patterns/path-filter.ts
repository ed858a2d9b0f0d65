import { createPatternMatcher } from "./pattern-matcher.ts";
import type { MatchState, Pattern, PatternMatcher } from "./patterns.ts";

/**
 * Include and exclude patterns together, for a walk from the root of a tree down: ask `visit` for each entry with the answer
 * for its directory. A directory that is not `shown` itself but has a shown entry below is shown too; the walker sees to that.
 */
export interface PathFilter {
	visit(path: string, isDirectory: boolean, parent: FilterState | undefined): FilterState;
}

export interface FilterState {
	/** The entry passes the filter by itself. */
	readonly shown: boolean;
	/** Something below this directory may pass. */
	readonly descend: boolean;
	readonly include: MatchState | undefined;
	readonly exclude: MatchState | undefined;
}

export interface FilterPatterns {
	/** Empty: everything is included. */
	readonly include: readonly string[];
	readonly exclude: readonly string[];
}

/** Throws `invalid-argument` for a malformed pattern. */
export function createPathFilter(patterns: FilterPatterns): PathFilter {
	const include = patterns.include.length > 0 ? createPatternMatcher(patterns.include) : undefined;
	const exclude = patterns.exclude.length > 0 ? createPatternMatcher(patterns.exclude) : undefined;
	const includeBelow = include === undefined ? undefined : belowTest(include, (pattern) => !pattern.negated);
	const exceptionBelow = exclude === undefined ? undefined : belowTest(exclude, (pattern) => pattern.negated);
	return {
		visit(path, isDirectory, parent) {
			const included = include?.matchesWithParent(path, parent?.include);
			const excluded = exclude?.matchesWithParent(path, parent?.exclude);
			const isIncluded = included?.matched ?? true;
			const isExcluded = excluded?.matched ?? false;
			return {
				shown: isIncluded && !isExcluded,
				descend:
					isDirectory &&
					(isIncluded || (includeBelow?.(path) ?? true)) &&
					(!isExcluded || (exceptionBelow?.(path) ?? false)),
				include: included,
				exclude: excluded,
			};
		},
	};
}

/**
 * Whether a pattern of the kind could match below a directory. With a wildcard anywhere but in a trailing `/**` that is
 * always possible; otherwise the pattern must lie below.
 */
function belowTest(
	matcher: PatternMatcher,
	counts: (pattern: Pattern) => boolean,
): (directory: string) => boolean {
	const prefixes = matcher.patterns.filter(counts).map((pattern) => pattern.text.replace(/\/\*\*$/, ""));
	if (prefixes.some((prefix) => /[*[\]?^\\]/.test(prefix))) {
		return () => true;
	}
	return (directory) => prefixes.some((prefix) => `${prefix}/`.startsWith(`${directory}/`));
}
