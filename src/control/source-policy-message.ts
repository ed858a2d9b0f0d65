import type { Policy } from "../api/generated/sourcepolicy.ts";
import type { SourcePolicy } from "../frontend/frontend.ts";
import * as gateway from "../frontend/gateway/policy-message.ts";

/** A policy of a client's request, which may come in other ways than by the gateway. Throws for what BuildKit refuses too. */
export function fromPolicyMessage(policy: Policy): SourcePolicy {
	return gateway.fromPolicyMessage(policy);
}
