import * as messages from "../generated/auth.ts";
import type { Method } from "../grpc.ts";

/** `moby.filesync.v1.Auth` */
export const auth: {
	readonly credentials: Method<"unary", messages.CredentialsRequest, messages.CredentialsResponse>;
	readonly fetchToken: Method<"unary", messages.FetchTokenRequest, messages.FetchTokenResponse>;
	readonly getTokenAuthority: Method<
		"unary",
		messages.GetTokenAuthorityRequest,
		messages.GetTokenAuthorityResponse
	>;
	readonly verifyTokenAuthority: Method<
		"unary",
		messages.VerifyTokenAuthorityRequest,
		messages.VerifyTokenAuthorityResponse
	>;
} = {
	credentials: {
		kind: "unary",
		path: "/moby.filesync.v1.Auth/Credentials",
		request: messages.CredentialsRequest,
		response: messages.CredentialsResponse,
	},
	fetchToken: {
		kind: "unary",
		path: "/moby.filesync.v1.Auth/FetchToken",
		request: messages.FetchTokenRequest,
		response: messages.FetchTokenResponse,
	},
	getTokenAuthority: {
		kind: "unary",
		path: "/moby.filesync.v1.Auth/GetTokenAuthority",
		request: messages.GetTokenAuthorityRequest,
		response: messages.GetTokenAuthorityResponse,
	},
	verifyTokenAuthority: {
		kind: "unary",
		path: "/moby.filesync.v1.Auth/VerifyTokenAuthority",
		request: messages.VerifyTokenAuthorityRequest,
		response: messages.VerifyTokenAuthorityResponse,
	},
};
