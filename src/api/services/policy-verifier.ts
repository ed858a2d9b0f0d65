import * as messages from "../generated/policysession.ts";
import type { Method } from "../grpc.ts";

/** `moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier` */
export const policyVerifier: {
	readonly checkPolicy: Method<"unary", messages.CheckPolicyRequest, messages.CheckPolicyResponse>;
} = {
	checkPolicy: {
		kind: "unary",
		path: "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy",
		request: messages.CheckPolicyRequest,
		response: messages.CheckPolicyResponse,
	},
};
