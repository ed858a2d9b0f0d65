import assert from "node:assert/strict";
import { test } from "node:test";
import type { CheckPolicyRequest, CheckPolicyResponse } from "../api/generated/policysession.ts";
import { PolicyAction } from "../api/generated/sourcepolicy.ts";
import { noSession } from "./service-no-session.ts";
import { sessionVerifier } from "./service-policy.ts";

const options = { signal: new AbortController().signal };
const source = { identifier: "docker-image://docker.io/library/x:1", attrs: new Map([["a", "b"]]) };

/** What the verifier makes of an answer, and what the client was asked. */
async function ask(answer: CheckPolicyResponse["result"]): Promise<readonly [unknown, CheckPolicyRequest]> {
	const asked: CheckPolicyRequest[] = [];
	const verifier = sessionVerifier({
		...noSession,
		policy: {
			check: async (request) => {
				asked.push(request);
				return { result: answer };
			},
		},
	});
	const verdict = await verifier.check(
		{ platform: { os: "linux", architecture: "arm64" }, source: { source } },
		options,
	);
	const [request] = asked;
	assert.ok(request);
	return [verdict, request];
}

test("sessionVerifier: each answer of a client is a verdict", async () => {
	const decision = (
		action: PolicyAction,
		more: { readonly update?: typeof source; readonly message?: string } = {},
	): CheckPolicyResponse["result"] => ({
		$case: "decision",
		value: {
			action,
			denyMessages: more.message === undefined ? [] : [{ message: more.message }],
			update: more.update,
		},
	});
	const [allowed, request] = await ask(decision(PolicyAction.ALLOW));
	assert.deepEqual(allowed, { kind: "allow" });
	assert.equal(request.Platform?.Architecture, "arm64");
	assert.deepEqual(request.Source?.Source, source);
	assert.deepEqual((await ask(decision(PolicyAction.DENY, { message: "no" })))[0], {
		kind: "deny",
		action: "DENY",
		messages: ["no"],
	});
	assert.deepEqual((await ask(decision(PolicyAction.CONVERT, { update: source })))[0], {
		kind: "convert",
		update: source,
	});
	await assert.rejects(ask(undefined), { message: "no decision in policy response" });
});

test("sessionVerifier: a session that can't decide lets nothing pass", async () => {
	await assert.rejects(
		sessionVerifier({ ...noSession, id: "s1" }).check({ platform: undefined, source: { source } }, options),
		{ code: "unimplemented", message: "session s1 is to decide about sources, but does not offer that" },
	);
});
