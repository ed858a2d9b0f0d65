import { SlipwayError, wrap } from "../errors/errors.ts";
import type {
	SourceIdentity,
	SourcePolicy,
	SourcePolicyConstraint,
	SourcePolicyRule,
} from "../frontend/frontend.ts";

/**
 * Source policies (spec/llb.md, section 9): which sources a build may use, and what is taken in their place. Within a policy the
 * last rule that allows or denies counts; the first one that converts and changes something starts all over with what it made.
 */
export interface PolicyEngine {
	/** The source as it shall be used. Throws what BuildKit says of a source that is denied. */
	evaluate(source: SourceIdentity): SourceIdentity;
}

const maxChanges = 20;

export function createPolicyEngine(policies: readonly SourcePolicy[]): PolicyEngine {
	const selectors = new Map<SourcePolicyRule, Selector>();
	const selectorOf = (rule: SourcePolicyRule): Selector => {
		const selector = selectors.get(rule) ?? createSelector(rule);
		selectors.set(rule, selector);
		return selector;
	};
	return {
		evaluate(source) {
			let now = source;
			for (let changes = 0; changes <= maxChanges; changes++) {
				const next = evaluateOnce(now, policies, selectorOf);
				if (next === undefined) {
					return now;
				}
				now = next;
			}
			throw new SlipwayError("unknown", "too many mutations on a single source: too many operations");
		},
	};
}

/** What the first policy that changes the source makes of it; undefined if none does. */
function evaluateOnce(
	source: SourceIdentity,
	policies: readonly SourcePolicy[],
	selectorOf: (rule: SourcePolicyRule) => Selector,
): SourceIdentity | undefined {
	for (const { rules } of policies) {
		let denied = false;
		for (const rule of rules) {
			const selector = selectorOf(rule);
			if (!within("error matching source policy", () => matches(rule, selector, source))) {
				continue;
			}
			if (rule.action === "convert") {
				const converted = within("error mutating source policy", () => convert(source, rule, selector));
				if (converted !== undefined) {
					return converted;
				}
			} else {
				denied = rule.action === "deny";
			}
		}
		if (denied) {
			throw new SlipwayError(
				"unknown",
				`source ${JSON.stringify(source.identifier)} denied by policy: source denied by policy`,
			);
		}
	}
	return undefined;
}

function within<T>(prefix: string, work: () => T): T {
	try {
		return work();
	} catch (error) {
		throw wrap(error, prefix);
	}
}

function matches(rule: SourcePolicyRule, selector: Selector, { identifier, attrs }: SourceIdentity): boolean {
	return (
		rule.constraints.every((each) => holds(each, attrs.get(each.key) ?? "")) &&
		(rule.identifier === identifier || selector.matches(identifier))
	);
}

function holds({ condition, value }: SourcePolicyConstraint, actual: string): boolean {
	switch (condition) {
		case "equal":
			return actual === value;
		case "not-equal":
			return actual !== value;
		case "matches":
			return goRegExp(value, (why) => `invalid regex ${JSON.stringify(value)}: ${why}`).test(actual);
	}
}

function convert(
	source: SourceIdentity,
	{ identifier, updates }: SourcePolicyRule,
	selector: Selector,
): SourceIdentity | undefined {
	if (updates === undefined) {
		throw new SlipwayError("unknown", "missing destination for convert rule");
	}
	const wanted = within("error formatting destination", () =>
		selector.format(source.identifier, updates.identifier === "" ? identifier : updates.identifier),
	);
	const destination = wanted === "" ? source.identifier : wanted;
	const sameAttrs = [...updates.attrs].every(([key, value]) => (source.attrs.get(key) ?? "") === value);
	return destination === source.identifier && sameAttrs
		? undefined
		: { identifier: destination, attrs: new Map([...source.attrs, ...updates.attrs]) };
}

interface Selector {
	matches(identifier: string): boolean;
	/** The template with what the pattern's groups matched. */
	format(identifier: string, template: string): string;
}

function createSelector({ identifier, match }: SourcePolicyRule): Selector {
	switch (match) {
		case "exact":
			return { matches: () => false, format: (_, template) => template };
		case "regex": {
			const pattern = lazily(() => goRegExp(identifier, (why) => `error parsing regexp: ${why}`));
			return {
				matches: (text) => pattern().test(text),
				format: (text, template) => {
					const all = new RegExp(pattern().source, "gu");
					return text.replace(all, (...found: readonly unknown[]) => expand(template, matchOf(found)));
				},
			};
		}
		case "wildcard": {
			const pattern = lazily(() => wildcardPattern(identifier));
			return {
				matches: (text) => pattern().test(text),
				format: (text, template) => {
					const found = pattern().exec(text);
					return found === null ? text : expand(template, { groups: [...found], names: {} });
				},
			};
		}
	}
}

function wildcardPattern(text: string): RegExp {
	if (text.includes("**")) {
		throw new SlipwayError(
			"unknown",
			`failed to translate wildcard ${JSON.stringify(text)} to regexp: invalid wildcard: "**"`,
		);
	}
	const parts = text.split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
	return new RegExp(`^${parts.join("(.*)")}$`, "u");
}

/** Go writes named groups with a P. What only Go knows is an error here, and never means something else. */
function goRegExp(text: string, message: (why: string) => string): RegExp {
	try {
		return new RegExp(text.replaceAll("(?P<", "(?<"), "u");
	} catch (error) {
		throw new SlipwayError("unknown", message((error as Error).message), { cause: error });
	}
}

interface Match {
	readonly groups: readonly (string | undefined)[];
	readonly names: Readonly<Record<string, string | undefined>>;
}

/** The arguments of a replacer: groups, position, text, named groups. */
function matchOf(found: readonly unknown[]): Match {
	const last = found.at(-1);
	const names = typeof last === "object" ? (last as Match["names"]) : {};
	return {
		groups: found.filter((each, at) => at < found.length - 2 && typeof each !== "number") as string[],
		names,
	};
}

/** As Go's `Expand`: `$name` takes the longest name of letters, digits and `_`; what is no group is empty. */
function expand(template: string, { groups, names }: Match): string {
	return template.replace(/\$(?:\$|\{(\w+)\}|(\w+))/g, (all, braced?: string, bare?: string) => {
		if (all === "$$") {
			return "$";
		}
		const name = braced ?? bare ?? "";
		return (/^\d+$/.test(name) ? groups[Number(name)] : names[name]) ?? "";
	});
}

function lazily<T>(make: () => T): () => T {
	let made: { readonly value: T } | undefined;
	return () => {
		made ??= { value: make() };
		return made.value;
	};
}
