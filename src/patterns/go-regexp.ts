import { createRequire } from "node:module";
import { SlipwayError } from "../errors/errors.ts";

/**
 * Regular expressions as Go's `regexp` has them (RE2's syntax, leftmost-first matches), for expressions that come from strangers:
 * matching takes time in proportion to the product of the lengths of expression and text, whatever they are, where JavaScript's own
 * may take for ever.
 */
export interface GoRegExp {
	test(text: string): boolean;
	/** The leftmost match that begins at or behind `from`, in code units. */
	find(text: string, from?: number): GoMatch | undefined;
	/** By number of group; `""` for those without a name. */
	readonly names: readonly string[];
}

/** Positions are code units; group 0 is the whole match. */
export interface GoMatch {
	readonly start: number;
	readonly end: number;
	readonly groups: readonly (string | undefined)[];
}

/** Instructions times characters: some tenths of a second. */
const maxSteps = 5_000_000;

/** Longer ones take long even to be understood; those that people write have some dozens of characters. */
const maxLength = 4096;

/** Throws `invalid-argument` with Go's words. */
export function compileGoRegExp(source: string): GoRegExp {
	if (source.length > maxLength) {
		throw new SlipwayError("invalid-argument", `expression too large: ${shortened(source)}`);
	}
	// Here because it takes some 40 ms, and few builds have a policy.
	const { RE2JS, RE2JSSyntaxException } = createRequire(import.meta.url)("re2js") as typeof import("re2js");
	let pattern: InstanceType<typeof RE2JS>;
	try {
		pattern = RE2JS.compile(source);
	} catch (thrown) {
		if (!(thrown instanceof RE2JSSyntaxException)) {
			throw thrown;
		}
		const message = `${thrown.getDescription()}: \`${thrown.getPattern() ?? ""}\``;
		throw new SlipwayError("invalid-argument", message, { cause: thrown });
	}
	const matcherOf = (text: string): ReturnType<typeof pattern.matcher> => {
		if (pattern.programSize() * text.length > maxSteps) {
			throw new SlipwayError(
				"resource-exhausted",
				`the regular expression ${shortened(source)} takes too long for a text of ${text.length} characters`,
			);
		}
		return pattern.matcher(text);
	};
	const names = Array.from({ length: pattern.groupCount() + 1 }, () => "");
	for (const [name, group] of Object.entries(pattern.namedGroups())) {
		names[group] = name;
	}
	return {
		names,
		test: (text) => matcherOf(text).find(),
		find: (text, from = 0) => {
			const matcher = matcherOf(text);
			if (!matcher.find(from)) {
				return undefined;
			}
			const groups = names.map((_, group) => matcher.group(group) ?? undefined);
			return { start: matcher.start(), end: matcher.end(), groups };
		},
	};
}

function shortened(text: string): string {
	return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
