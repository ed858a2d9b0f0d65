import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { SourceIdentity, SourcePolicyRule } from "../frontend/frontend.ts";
import { createPolicyEngine } from "./source-policy.ts";

function rule(
	action: SourcePolicyRule["action"],
	identifier: string,
	more: Partial<SourcePolicyRule> & { readonly to?: string; readonly set?: Record<string, string> } = {},
): SourcePolicyRule {
	const { to, set, ...rest } = more;
	return {
		action,
		identifier,
		match: "wildcard",
		constraints: [],
		...(action === "convert"
			? { updates: { identifier: to ?? "", attrs: new Map(Object.entries(set ?? {})) } }
			: {}),
		...rest,
	};
}

function evaluate(
	rules: readonly SourcePolicyRule[],
	identifier: string,
	attrs: Readonly<Record<string, string>> = {},
): SourceIdentity {
	return createPolicyEngine([{ rules }]).evaluate({ identifier, attrs: new Map(Object.entries(attrs)) });
}

const alpine = "docker-image://docker.io/library/alpine:3.18";

suite("allow and deny", () => {
	test("the last rule that matches counts", () => {
		const deny = rule("deny", "docker-image://*");
		const allow = rule("allow", alpine);
		assert.equal(evaluate([deny, allow], alpine).identifier, alpine);
		assert.throws(() => evaluate([allow, deny], alpine), {
			message: `source "${alpine}" denied by policy: source denied by policy`,
		});
	});

	test("a constraint on an attribute narrows a rule", () => {
		const http = "https://example.com/a";
		const needs = (condition: "equal" | "not-equal" | "matches", value: string): SourcePolicyRule =>
			rule("deny", "https://*", { constraints: [{ key: "http.checksum", value, condition }] });
		assert.throws(() => evaluate([needs("equal", "x")], http, { "http.checksum": "x" }));
		evaluate([needs("equal", "x")], http);
		assert.throws(() => evaluate([needs("not-equal", "x")], http));
		assert.throws(() => evaluate([needs("matches", "^sha256:")], http, { "http.checksum": "sha256:1" }));
		assert.throws(
			() => evaluate([needs("matches", "(")], http),
			/error matching source policy: invalid regex "\("/,
		);
	});

	test("an exact rule matches no pattern, and a pattern with ** is refused", () => {
		evaluate([rule("deny", "docker-image://*", { match: "exact" })], alpine);
		assert.throws(
			() => evaluate([rule("deny", "a**")], alpine),
			/failed to translate wildcard "a\*\*" to regexp: invalid wildcard: "\*\*"/,
		);
	});
});

suite("convert", () => {
	test("groups of a wildcard and of a regular expression are filled in", () => {
		const to = `docker-image://docker.io/library/alpine:\${1}-slim`;
		const once = rule("convert", "docker-image://docker.io/library/alpine:3.*", { to });
		assert.equal(
			evaluate([once], "docker-image://docker.io/library/alpine:3.18").identifier,
			"docker-image://docker.io/library/alpine:18-slim",
		);
		const regex = rule("convert", "^docker-image://docker\\.io/(?P<path>[^:]*):3.18$", {
			match: "regex",
			to: `docker-image://example.com/\${path}:new`,
		});
		assert.equal(evaluate([regex], alpine).identifier, "docker-image://example.com/library/alpine:new");
	});

	test("attributes are set, and the identifier stays without one", () => {
		const set = { "http.checksum": "sha256:1" };
		const made = evaluate([rule("convert", "https://example.com/a", { set })], "https://example.com/a", {
			x: "y",
		});
		assert.equal(made.identifier, "https://example.com/a");
		assert.deepEqual(Object.fromEntries(made.attrs), { x: "y", ...set });
	});

	test("what was made is judged anew, and a circle ends", () => {
		const there = rule("convert", "docker-image://a", { to: "docker-image://b" });
		assert.throws(
			() => evaluate([there, rule("deny", "docker-image://b")], "docker-image://a"),
			/"docker-image:\/\/b" denied/,
		);
		const back = rule("convert", "docker-image://b", { to: "docker-image://a" });
		assert.throws(() => evaluate([there, back], "docker-image://a"), {
			message: "too many mutations on a single source: too many operations",
		});
	});

	test("without a destination it is an error", () => {
		const { updates: _, ...bare } = rule("convert", alpine);
		assert.throws(() => evaluate([bare], alpine), {
			message: "error mutating source policy: missing destination for convert rule",
		});
	});
});
