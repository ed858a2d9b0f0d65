import {
	AttrMatch,
	MatchType,
	type Policy,
	PolicyAction,
	type Rule,
} from "../../api/generated/sourcepolicy.ts";
import { SlipwayError } from "../../errors/errors.ts";
import type { SourcePolicy, SourcePolicyRule } from "../frontend.ts";

const actions = new Map<number, SourcePolicyRule["action"]>([
	[PolicyAction.ALLOW, "allow"],
	[PolicyAction.DENY, "deny"],
	[PolicyAction.CONVERT, "convert"],
]);
const matches = new Map<number, SourcePolicyRule["match"]>([
	[MatchType.WILDCARD, "wildcard"],
	[MatchType.EXACT, "exact"],
	[MatchType.REGEX, "regex"],
]);
const conditions = new Map<number, SourcePolicyRule["constraints"][number]["condition"]>([
	[AttrMatch.EQUAL, "equal"],
	[AttrMatch.NOTEQUAL, "not-equal"],
	[AttrMatch.MATCHES, "matches"],
]);

/** Throws for what BuildKit refuses too. */
export function fromPolicyMessage({ rules }: Policy): SourcePolicy {
	return { rules: rules.map(fromRule) };
}

function fromRule({ action, selector, updates }: Rule): SourcePolicyRule {
	if (selector === undefined) {
		throw new SlipwayError("unknown", "invalid nil selector in policy");
	}
	return {
		action: known(actions, action, "action"),
		identifier: selector.identifier,
		match: known(matches, selector.matchType, "match type"),
		constraints: selector.constraints.map(({ key, value, condition }) => ({
			key,
			value,
			condition: known(conditions, condition, "attr condition"),
		})),
		...(updates === undefined ? {} : { updates }),
	};
}

function known<T>(names: ReadonlyMap<number, T>, value: number, what: string): T {
	const name = names.get(value);
	if (name === undefined) {
		throw new SlipwayError("unknown", `source policy: unknown ${what} ${value}`);
	}
	return name;
}
