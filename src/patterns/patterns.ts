/**
 * Path patterns as `.dockerignore` has them, and as LLB's include, exclude and follow lists use them: the semantics of
 * moby's patternmatcher. The last pattern that matches wins; `!` negates; a pattern also matches what is below a
 * directory that it matches; `**` is any depth, `*` and `?` stop at `/`, `[…]` are classes, `\` escapes.
 * Paths are relative, with `/`, cleaned.
 */
export interface PatternMatcher {
	/** True if there is at least one negated pattern, so that an excluded directory may have included contents. */
	readonly hasExclusions: boolean;
	readonly patterns: readonly Pattern[];
	/** Whether the patterns as a whole match the path, parents taken into account. */
	matches(path: string): boolean;
	/** The same for a walk, which has the answer for the parent at hand: linear in the number of patterns. */
	matchesWithParent(path: string, parent: MatchState | undefined): MatchState;
}

/** Per-pattern answers for one directory; opaque to the walker but for `matched`. */
export interface MatchState {
	readonly matched: boolean;
	/** For each pattern, whether it matched this path or one of its parents. */
	readonly each: readonly boolean[];
}

export interface Pattern {
	/** Cleaned, without the `!`. */
	readonly text: string;
	readonly negated: boolean;
	/** The literal directories in front of the first wildcard, to know where a walk may be cut. */
	readonly matches: (path: string) => boolean;
}
