import type { SourceRange } from "../../errors/errors.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { checkOfComment } from "./directives.ts";
import { boolSyntaxError, parseGoBool } from "./go-number.ts";
import { trimSpace } from "./go-text.ts";
import type { LintRule } from "./lint-rules.ts";

export interface LintWarning {
	readonly rule: string;
	readonly description: string;
	/** Empty for a rule without a page. */
	readonly url: string;
	readonly message: string;
	readonly ranges: readonly SourceRange[];
}

/** What `# check=` and `BUILDKIT_DOCKERFILE_CHECK` say. */
export interface LintConfig {
	readonly skipAll: boolean;
	readonly skip: ReadonlySet<string>;
	readonly experimentalAll: boolean;
	readonly experimental: ReadonlySet<string>;
	/** A violation fails the build. */
	readonly failOnWarning: boolean;
}

export const defaultLintConfig: LintConfig = {
	skipAll: false,
	skip: new Set(),
	experimentalAll: false,
	experimental: new Set(),
	failOnWarning: false,
};

/** Reads `skip=A,B;error=true;experimental=all`. Throws `invalid-argument` with BuildKit's text. */
export function parseLintConfig(text: string): LintConfig {
	let config = defaultLintConfig;
	const trimmed = trimSpace(text);
	if (trimmed === "") {
		return config;
	}
	for (const part of splitAtMost(trimmed, ";", 3)) {
		const equals = part.indexOf("=");
		if (equals < 0) {
			throw new SlipwayError("invalid-argument", `invalid check option ${quoteGo(part)}`);
		}
		const key = trimSpace(part.slice(0, equals));
		const value = part.slice(equals + 1);
		const trimmedValue = trimSpace(value);
		const all = trimmedValue === "all";
		const names = new Set(all ? [] : trimmedValue.split(",").map(trimSpace));
		switch (key) {
			case "skip":
				config = { ...config, skipAll: config.skipAll || all, skip: all ? config.skip : names };
				break;
			case "experimental":
				config = {
					...config,
					experimentalAll: config.experimentalAll || all,
					experimental: all ? config.experimental : names,
				};
				break;
			case "error": {
				const failOnWarning = parseGoBool(trimmedValue);
				if (failOnWarning === undefined) {
					const reason = boolSyntaxError(trimmedValue).message;
					throw new SlipwayError(
						"invalid-argument",
						`failed to parse check option ${quoteGo(part)}: ${reason}`,
					);
				}
				config = { ...config, failOnWarning };
				break;
			}
			default:
				throw new SlipwayError("invalid-argument", `invalid check option ${quoteGo(key)}`);
		}
	}
	return config;
}

/**
 * Collects the violations of one Dockerfile. `forComments` gives the same linter with the `check=` options of the
 * comments above one instruction added; all of them share what was collected.
 */
export class Linter {
	readonly #config: LintConfig;
	readonly #warnings: LintWarning[];
	readonly #onWarning: (warning: LintWarning) => void;

	/** `collected` is where the warnings go, for linters that share them. */
	constructor(
		config: LintConfig = defaultLintConfig,
		onWarning: (warning: LintWarning) => void = () => {},
		collected: LintWarning[] = [],
	) {
		this.#config = config;
		this.#onWarning = onWarning;
		this.#warnings = collected;
	}

	get warnings(): readonly LintWarning[] {
		return this.#warnings;
	}

	report<Values extends readonly string[]>(
		rule: LintRule<Values>,
		ranges: readonly SourceRange[],
		...values: Values
	): void {
		const { skipAll, skip, experimentalAll, experimental } = this.#config;
		const on =
			rule.experimental === true
				? experimentalAll || experimental.has(rule.name)
				: !skipAll && !skip.has(rule.name);
		if (!on) {
			return;
		}
		const warning: LintWarning = {
			rule: rule.name,
			description: rule.description,
			url: rule.url ?? "",
			message: rule.format(...values),
			ranges,
		};
		this.#warnings.push(warning);
		this.#onWarning(warning);
	}

	/** Only the first comment with a `check=` counts; one that cannot be read changes nothing. */
	forComments(comments: readonly string[]): Linter {
		for (const comment of comments) {
			const text = checkOfComment(comment);
			if (text === undefined) {
				continue;
			}
			try {
				const config = mergeLintConfig(this.#config, parseLintConfig(text));
				return new Linter(config, this.#onWarning, this.#warnings);
			} catch {
				return this;
			}
		}
		return this;
	}

	/** The error that fails the build if `error=true` was asked for and something was found. */
	error(): SlipwayError | undefined {
		const names = new Set(this.warnings.map((warning) => warning.rule));
		if (!this.#config.failOnWarning || names.size === 0) {
			return undefined;
		}
		return new SlipwayError(
			"failed-precondition",
			`lint violation found for rules: ${[...names].join(", ")}`,
		);
	}
}

/** The line of a warning in the progress output: `Rule: message (line 3)`. */
export function formatLintWarning(warning: LintWarning): string {
	const line = warning.ranges[0]?.start.line ?? 0;
	const text = `${warning.rule}: ${warning.message}`;
	return line > 0 ? `${text} (line ${line})` : text;
}

/** `error` is for the whole file and cannot be added by a comment. */
function mergeLintConfig(base: LintConfig, added: LintConfig): LintConfig {
	return {
		skipAll: base.skipAll || added.skipAll,
		skip: new Set([...base.skip, ...added.skip]),
		experimentalAll: base.experimentalAll || added.experimentalAll,
		experimental: new Set([...base.experimental, ...added.experimental]),
		failOnWarning: base.failOnWarning,
	};
}

/** The last part takes the rest, separators included. */
function splitAtMost(text: string, separator: string, count: number): readonly string[] {
	const parts = text.split(separator);
	return parts.length <= count
		? parts
		: [...parts.slice(0, count - 1), parts.slice(count - 1).join(separator)];
}
