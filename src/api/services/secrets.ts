import * as messages from "../generated/secrets.ts";
import type { Method } from "../grpc.ts";

/** `moby.buildkit.secrets.v1.Secrets` */
export const secrets: {
	readonly getSecret: Method<"unary", messages.GetSecretRequest, messages.GetSecretResponse>;
} = {
	getSecret: {
		kind: "unary",
		path: "/moby.buildkit.secrets.v1.Secrets/GetSecret",
		request: messages.GetSecretRequest,
		response: messages.GetSecretResponse,
	},
};
