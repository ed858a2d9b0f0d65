import { SlipwayError, wrap } from "../errors/errors.ts";
import type {
	SourceIdentity,
	SourcePolicy,
	SourcePolicyConstraint,
	SourcePolicyRule,
} from "../frontend/frontend.ts";
import { compileGoRegExp, type GoMatch, type GoRegExp } from "../patterns/go-regexp.ts";

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
				format: (text, template) => replaceAll(pattern(), text, template),
			};
		}
		case "wildcard": {
			const pattern = lazily(() => wildcardPattern(identifier));
			return {
				matches: (text) => pattern().test(text),
				format: (text, template) => {
					const found = pattern().find(text);
					return found === undefined ? text : expand(template, found, []);
				},
			};
		}
	}
}

function wildcardPattern(text: string): GoRegExp {
	if (text.includes("**")) {
		throw new SlipwayError(
			"unknown",
			`failed to translate wildcard ${JSON.stringify(text)} to regexp: invalid wildcard: "**"`,
		);
	}
	const parts = text.split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
	return compileGoRegExp(`^${parts.join("(.*)")}$`);
}

function goRegExp(text: string, message: (why: string) => string): GoRegExp {
	try {
		return compileGoRegExp(text);
	} catch (error) {
		throw new SlipwayError("unknown", message((error as Error).message), { cause: error });
	}
}

/** As Go's `ReplaceAllString`. */
function replaceAll(pattern: GoRegExp, text: string, template: string): string {
	let replaced = "";
	let end = 0;
	for (let from = 0; from <= text.length; ) {
		const found = pattern.find(text, from);
		if (found === undefined) {
			break;
		}
		replaced += text.slice(end, found.start);
		// Nothing right behind a match is no match of its own.
		if (found.end > end || found.start === 0) {
			replaced += expand(template, found, pattern.names);
		}
		end = found.end;
		const width = (text.codePointAt(from) ?? 0) > 0xffff ? 2 : 1;
		from = Math.max(from + width, end);
	}
	return replaced + text.slice(end);
}

/** As Go's `Expand`: `$name` takes the longest name of letters, digits and `_`; what is no group is empty. */
function expand(template: string, { groups }: GoMatch, names: readonly string[]): string {
	return template.replace(/\$(?:\$|\{(\w+)\}|(\w+))/g, (all, braced?: string, bare?: string) => {
		if (all === "$$") {
			return "$";
		}
		const name = braced ?? bare ?? "";
		const named = (each: string, at: number): boolean => each === name && groups[at] !== undefined;
		return groups[/^\d+$/.test(name) ? Number(name) : names.findIndex(named)] ?? "";
	});
}

function lazily<T>(make: () => T): () => T {
	let made: { readonly value: T } | undefined;
	return () => {
		made ??= { value: make() };
		return made.value;
	};
}
