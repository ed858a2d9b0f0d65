import { AttrMatch, MatchType, type Policy, PolicyAction, type Rule } from "../api/generated/sourcepolicy.ts";
import { SlipwayError } from "../errors/errors.ts";

/**
 * A source policy as its file has it: `{"version":1,"rules":[{"action":"DENY","selector":{"identifier":…,"matchType":…,
 * "constraints":[…]},"updates":{"identifier":…,"attrs":{…}}}]}`; enums by name or number. Throws `invalid-argument`.
 */
export function parseSourcePolicy(json: string): Policy {
	let value: unknown;
	try {
		value = JSON.parse(json);
	} catch (cause) {
		throw invalid(`not JSON: ${(cause as Error).message}`);
	}
	const policy = object(value, "policy");
	return {
		version: policy["version"] === undefined ? 0 : number(policy["version"], "version"),
		rules: list(policy["rules"], "rules").map(rule),
	};
}

function rule(value: unknown, index: number): Rule {
	const at = `rules[${index}]`;
	const fields = object(value, at);
	return {
		action: enumeration(PolicyAction, fields["action"], `${at}.action`),
		selector: fields["selector"] === undefined ? undefined : selector(fields["selector"], `${at}.selector`),
		updates: fields["updates"] === undefined ? undefined : updates(fields["updates"], `${at}.updates`),
	};
}

function selector(value: unknown, at: string): NonNullable<Rule["selector"]> {
	const fields = object(value, at);
	return {
		identifier: text(fields["identifier"], `${at}.identifier`),
		matchType: enumeration(MatchType, fields["matchType"], `${at}.matchType`),
		constraints: list(fields["constraints"], `${at}.constraints`).map((each, index) => {
			const place = `${at}.constraints[${index}]`;
			const constraint = object(each, place);
			return {
				key: text(constraint["key"], `${place}.key`),
				value: text(constraint["value"], `${place}.value`),
				condition: enumeration(AttrMatch, constraint["condition"], `${place}.condition`),
			};
		}),
	};
}

function updates(value: unknown, at: string): NonNullable<Rule["updates"]> {
	const fields = object(value, at);
	const attrs = fields["attrs"] === undefined ? {} : object(fields["attrs"], `${at}.attrs`);
	return {
		identifier: text(fields["identifier"], `${at}.identifier`),
		attrs: new Map(Object.entries(attrs).map(([key, each]) => [key, text(each, `${at}.attrs.${key}`)])),
	};
}

function enumeration<T extends number>(names: Readonly<Record<string, T>>, value: unknown, at: string): T {
	const known = Object.entries(names);
	const found = known.find(([name, each]) => (value ?? 0) === each || value === name);
	if (found === undefined) {
		throw invalid(`${at} is ${JSON.stringify(value)}: use one of ${known.map(([name]) => name).join(", ")}`);
	}
	return found[1];
}

function object(value: unknown, at: string): Readonly<Record<string, unknown>> {
	if (typeof value !== "object" || value === null || Array.isArray(value)) {
		throw invalid(`${at} is not an object`);
	}
	return value as Readonly<Record<string, unknown>>;
}

function list(value: unknown, at: string): readonly unknown[] {
	if (value !== undefined && !Array.isArray(value)) {
		throw invalid(`${at} is not a list`);
	}
	return value ?? [];
}

function text(value: unknown, at: string): string {
	if (value !== undefined && typeof value !== "string") {
		throw invalid(`${at} is not a text`);
	}
	return value ?? "";
}

function number(value: unknown, at: string): number {
	if (typeof value !== "number") {
		throw invalid(`${at} is not a number`);
	}
	return value;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", `invalid source policy: ${message}`);
}
