import { redactUrl, SlipwayError } from "../errors/errors.ts";
import { type Place, unexpectedStatus } from "./registry-error.ts";
import { setRetryAfter } from "./retry.ts";
import { markRetryable, type Transport, type TransportRequest, type TransportResponse } from "./transport.ts";

export interface FollowRequest extends Omit<TransportRequest, "body"> {
	/** Called for each request that is sent, as a redirect may want it again. */
	readonly body?: () => Uint8Array | AsyncIterable<Uint8Array>;
	/** Throw for statuses that another attempt may not meet, marked as such. */
	readonly retryStatuses: boolean;
	readonly place: Place;
}

const maxRedirects = 10;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const transientStatuses: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * Sends a request and follows redirects. `Authorization` goes only to the server that the request was for, and to no
 * other again. Reads are redirected by any redirecting status, writes only by those that keep method and body.
 */
export async function follow(transport: Transport, request: FollowRequest): Promise<TransportResponse> {
	const { body, retryStatuses, place, ...init } = request;
	let { url, headers } = init;
	for (let redirects = 0; ; redirects++) {
		const response = await transport.request({
			...init,
			url,
			headers,
			...(body === undefined ? {} : { body: body() }),
		});
		const location = response.header("location");
		const isRead = init.method === "GET" || init.method === "HEAD";
		const isRedirect =
			redirectStatuses.has(response.status) && (isRead || response.status === 307 || response.status === 308);
		if (!isRedirect || location === undefined) {
			if (retryStatuses && transientStatuses.has(response.status)) {
				const after = response.header("retry-after");
				const error = markRetryable(await unexpectedStatus(response, init.method, place));
				setRetryAfter(error, after);
				throw error;
			}
			return response;
		}
		response.discard();
		if (redirects >= maxRedirects) {
			throw new SlipwayError(
				"unavailable",
				`failed to do request: ${init.method} ${redactUrl(init.url.href)}: stopped after ${maxRedirects} redirects`,
			);
		}
		const next = URL.parse(location, url.href);
		if (next === null || (next.protocol !== "https:" && next.protocol !== "http:")) {
			throw new SlipwayError(
				"unavailable",
				`failed to do request: ${init.method} ${redactUrl(url.href)}: redirect to an invalid location`,
			);
		}
		next.username = "";
		next.password = "";
		if (next.origin !== url.origin) {
			const { authorization: _, ...rest } = headers;
			headers = rest;
		}
		url = next;
	}
}
