import type { CheckPolicyResponse } from "../api/generated/policysession.ts";
import { PolicyAction } from "../api/generated/sourcepolicy.ts";
import { SlipwayError } from "../errors/errors.ts";
import { resolvedSourceMessage, resolveSourceRequest } from "../frontend/gateway/gateway-messages.ts";
import { toPlatformMessage } from "../llb/op-message.ts";
import type { Session } from "../session/session.ts";
import type { SourceVerdict, SourceVerifier } from "./control.ts";

/** A session that decides about sources. One that has no such ability lets nothing pass. */
export function sessionVerifier({ id, policy }: Session): SourceVerifier {
	return {
		async check({ platform, source }, options) {
			if (policy === undefined) {
				throw new SlipwayError(
					"unimplemented",
					`session ${id} is to decide about sources, but does not offer that`,
				);
			}
			const answer = await policy.check(
				{
					Platform: platform === undefined ? undefined : toPlatformMessage(platform),
					Source: resolvedSourceMessage(source),
					caps: new Map(),
				},
				options,
			);
			return verdictOf(answer);
		},
	};
}

const actionNames: ReadonlyMap<number, string> = new Map(
	Object.entries(PolicyAction).map(([name, value]) => [value, name]),
);

function verdictOf({ result }: CheckPolicyResponse): SourceVerdict {
	switch (result?.$case) {
		case "request":
			return { kind: "resolve", request: resolveSourceRequest(result.value) };
		case "decision": {
			const { action, update, denyMessages } = result.value;
			if (action === PolicyAction.ALLOW) {
				return { kind: "allow" };
			}
			if (action === PolicyAction.CONVERT) {
				return { kind: "convert", update };
			}
			return {
				kind: "deny",
				action: actionNames.get(action) ?? String(action),
				messages: denyMessages.map(({ message }) => message),
			};
		}
		case undefined:
			throw new SlipwayError("unknown", "no decision in policy response");
	}
}
