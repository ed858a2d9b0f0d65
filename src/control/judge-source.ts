import { SlipwayError, wrap } from "../errors/errors.ts";
import { errorDetails } from "../frontend/error-details.ts";
import type {
	ResolvedSource,
	ResolveSourceRequest,
	SourceIdentity,
	SourcePolicy,
} from "../frontend/frontend.ts";
import type { Platform } from "../oci/platform.ts";
import type { SourceVerifier } from "./control.ts";
import { createPolicyEngine } from "./source-policy.ts";

export interface JudgeOptions {
	readonly policies: readonly SourcePolicy[];
	readonly verifier: SourceVerifier | undefined;
	/** What the verifier wants to know of a source; policies alone are applied to it. */
	readonly resolve: (request: ResolveSourceRequest) => Promise<ResolvedSource>;
	readonly signal: AbortSignal;
}

/** How often the verifier may answer with a question or a change. BuildKit's. */
const maxAnswers = 10;

/** The source as policies and then the client's verifier want it. Throws what they say of one that may not be used. */
export async function judgeSource(
	source: SourceIdentity,
	platform: Platform | undefined,
	{ policies, verifier, resolve, signal }: JudgeOptions,
): Promise<SourceIdentity> {
	const engine = createPolicyEngine(policies);
	let judged = engine.evaluate(source);
	if (verifier === undefined) {
		return judged;
	}
	let known: ResolvedSource = { source: judged };
	for (let answers = 0; answers < maxAnswers; answers++) {
		const verdict = await verifier.check({ platform, source: known }, { signal });
		switch (verdict.kind) {
			case "allow":
				return judged;
			case "deny": {
				const quoted = JSON.stringify(judged.identifier);
				throw new SlipwayError(
					"unknown",
					`source ${quoted} not allowed by policy: action ${verdict.action}`,
					{
						details: verdict.messages.length === 0 ? [] : [errorDetails.denied(verdict)],
					},
				);
			}
			case "convert":
				if (verdict.update === undefined) {
					throw new SlipwayError("unknown", "convert action requires updated source");
				}
				judged = engine.evaluate(verdict.update);
				known = { source: judged };
				break;
			case "resolve": {
				checkSame(judged, verdict.request.source);
				try {
					known = await resolve(verdict.request);
				} catch (error) {
					throw wrap(error, "error resolving source metadata from policy request");
				}
				break;
			}
		}
	}
	throw new SlipwayError("unknown", "too many policy requests");
}

function checkSame(source: SourceIdentity, asked: SourceIdentity): void {
	if (asked.identifier !== source.identifier) {
		const [other, own] = [asked.identifier, source.identifier].map((text) => JSON.stringify(text));
		throw new SlipwayError("unknown", `policy requested different source identifier: ${other} != ${own}`);
	}
	const prefix = "policy requested different source attrs: ";
	if (asked.attrs.size !== source.attrs.size) {
		throw new SlipwayError(
			"unknown",
			`${prefix}map length mismatch: ${source.attrs.size} != ${asked.attrs.size}`,
		);
	}
	for (const [key, value] of source.attrs) {
		const other = asked.attrs.get(key);
		if (other === undefined) {
			throw new SlipwayError("unknown", `${prefix}key ${key} missing from second map`);
		}
		if (other !== value) {
			throw new SlipwayError("unknown", `${prefix}value mismatch for key ${key}: ${value} != ${other}`);
		}
	}
}
