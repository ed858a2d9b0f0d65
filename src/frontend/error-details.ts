import type { ErrorDetail } from "../errors/errors.ts";

/** Details of errors that only BuildKit's clients and frontends know what to do with, in BuildKit's form (spec/api.md, section 7). */
export const errorDetails = {
	/** Which frontend an error came from. */
	frontend: ({ name, source }: { readonly name: string; readonly source: string }): ErrorDetail =>
		detail("errdefs.Frontend+json", { name, ...(source === "" ? {} : { source }) }),

	/** A capability that a frontend has not. */
	frontendCapability: (name: string): ErrorDetail => detail("errdefs.FrontendCap+json", { name }),

	/** Results that an error of a step leaves behind, by the ids that the gateway's client can use. */
	solve: (state: SolveState): ErrorDetail => detail("errdefs.Solve+json", state),

	/** Why a client's verifier denied a source. */
	denied: ({ messages }: { readonly messages: readonly string[] }): ErrorDetail =>
		detail("policysession.DecisionResponse+json", {
			action: 1,
			denyMessages: messages.map((message) => ({ message })),
		}),
} as const;

/** Protobuf's own JSON. */
export interface SolveState {
	readonly inputIDs?: readonly string[];
	readonly mountIDs?: readonly string[];
	readonly op?: unknown;
	readonly file?: { readonly index?: string };
	readonly cache?: { readonly index?: string };
	readonly description?: Readonly<Record<string, string>>;
}

function detail(name: string, value: object): ErrorDetail {
	return {
		kind: "foreign",
		typeUrl: `github.com/moby/buildkit/${name}`,
		value: new TextEncoder().encode(JSON.stringify(value)),
	};
}
