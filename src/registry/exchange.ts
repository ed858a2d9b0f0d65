import type { Authorization, RegistryAuth } from "./auth.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Endpoint } from "./endpoint.ts";
import { follow } from "./follow.ts";
import type { RetryPolicy } from "./registry.ts";
import { accessDenied, type Place } from "./registry-error.ts";
import { withRetries } from "./retry.ts";
import { isNoTls, type Transport, type TransportRequest, type TransportResponse } from "./transport.ts";

/** Requests to one endpoint, with login. */
export interface Exchange {
	/** Any status but 401 after a login that failed with a reason, and those that stay transient after all attempts. */
	send(request: ExchangeRequest): Promise<TransportResponse>;
}

export interface ExchangeRequest {
	readonly method: TransportRequest["method"];
	/** A path below the endpoint's, beginning with `/`; or a whole URL that the server gave, such as an upload's location. */
	readonly target: string | URL;
	readonly headers?: Readonly<Record<string, string>>;
	readonly body?: () => Uint8Array | AsyncIterable<Uint8Array>;
	/** Of the token: `repository:a/b:pull`. */
	readonly scopes: readonly string[];
	readonly signal: AbortSignal;
	/** False: whoever sends tries again himself. Default true. */
	readonly retry?: boolean;
}

export interface ExchangeOptions {
	readonly endpoint: Endpoint;
	readonly transport: Transport;
	readonly auth: RegistryAuth;
	readonly retry: RetryPolicy;
	readonly place: Place;
	/** Hosts that were found to speak plain http; shared by all exchanges of a client. */
	readonly plainHosts: Set<string>;
}

/** The first answer says how to log in, the second may say that a token is stale or its scope too small. */
const maxRefusals = 3;

export function createExchange(options: ExchangeOptions): Exchange {
	const { retry } = options;
	return {
		send: (request) =>
			request.retry === false
				? sendWithFallback(options, request)
				: withRetries(retry, request.signal, () => sendWithFallback(options, request)),
	};
}

async function sendWithFallback(
	options: ExchangeOptions,
	request: ExchangeRequest,
): Promise<TransportResponse> {
	const { endpoint, plainHosts } = options;
	if (endpoint.scheme !== "fallback") {
		return sendWithLogin(options, request, endpoint.scheme);
	}
	if (plainHosts.has(endpoint.host)) {
		return sendWithLogin(options, request, "http");
	}
	try {
		return await sendWithLogin(options, request, "https");
	} catch (thrown) {
		if (!isNoTls(thrown)) {
			throw thrown;
		}
		plainHosts.add(endpoint.host);
		return sendWithLogin(options, request, "http");
	}
}

async function sendWithLogin(
	{ endpoint, transport, auth, place, retry }: ExchangeOptions,
	request: ExchangeRequest,
	scheme: "https" | "http",
): Promise<TransportResponse> {
	const { method, body, signal, target } = request;
	const origin = new URL(`${scheme}://${endpoint.host}`).origin;
	const url = typeof target === "string" ? new URL(`${origin}${endpoint.path}${target}`) : target;
	const context = { origin, host: endpoint.host, tls: endpoint.tls, transport, retry, place, signal };
	let scopes = request.scopes;
	for (let refusals = 1; ; refusals++) {
		const own = url.origin === origin;
		const authorization: Authorization | undefined = own ? await auth.authorize(context, scopes) : undefined;
		const response = await follow(transport, {
			method,
			url,
			headers: {
				...request.headers,
				...(authorization === undefined ? {} : { authorization: authorization.header }),
			},
			...(body === undefined ? {} : { body }),
			tls: endpoint.tls,
			signal,
			retryStatuses: true,
			place,
		});
		// A server that was redirected to, or that an upload was sent to, has no right to a login.
		if (response.status !== 401 || response.url.origin !== origin) {
			return response;
		}
		const challenges = parseChallenges(response.headers("www-authenticate"));
		const wanted =
			refusals < maxRefusals ? await auth.learn(context, challenges, scopes, authorization) : undefined;
		if (wanted === undefined) {
			const said = challengeError(challenges);
			if (said === undefined || authorization === undefined) {
				return response;
			}
			response.discard();
			throw accessDenied(said, place);
		}
		response.discard();
		scopes = wanted;
	}
}

function challengeError(challenges: readonly Challenge[]): string | undefined {
	return challenges.map((challenge) => challenge.parameters["error"]).find((error) => error !== undefined);
}
