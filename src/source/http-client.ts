import type { Dispatcher } from "undici";
import { redactUrl, SlipwayError, toError } from "../errors/errors.ts";

/** Reads files of servers that nobody vouches for: redirects, time and the way of credentials are bounded. */
export interface HttpClient {
	/** Follows redirects. `authorization` goes to the server of `url` and to no other. */
	request(request: HttpRequest): Promise<HttpResponse>;
}

export interface HttpRequest {
	readonly method: "GET" | "HEAD";
	readonly url: URL;
	/** Names in lower case. */
	readonly headers: Readonly<Record<string, string>>;
	readonly signal: AbortSignal;
}

export interface HttpResponse {
	readonly status: number;
	header(name: string): string | undefined;
	/** As sent, still encoded. May be read once. */
	readonly body: AsyncIterable<Uint8Array>;
	/** Frees the connection. */
	discard(): void;
}

export interface HttpClientOptions {
	readonly userAgent?: string;
	readonly proxy?: HttpProxy;
	/** Until a connection stands; default 30 s, as Go's client. */
	readonly connectTimeoutMs?: number;
	/** Until the answer begins, and between two pieces of it; default 60 s. */
	readonly stallTimeoutMs?: number;
}

export interface HttpProxy {
	readonly http?: string;
	readonly https?: string;
	/** Hosts that are asked directly, as in `NO_PROXY`. */
	readonly none?: string;
}

/** As Go's client. */
const maxRedirects = 10;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export function createHttpClient(options: HttpClientOptions = {}): HttpClient {
	let dispatcher: Promise<Dispatcher> | undefined;
	const send: Send = async (request) => {
		dispatcher ??= createDispatcher(options);
		return sendOnce(request, await dispatcher, options);
	};
	return { request: (request) => follow(request, send) };
}

type Send = (request: HttpRequest) => Promise<HttpResponse>;

async function follow(request: HttpRequest, send: Send): Promise<HttpResponse> {
	let { url, headers } = request;
	for (let redirects = 0; ; redirects++) {
		const response = await send({ ...request, url, headers });
		const location = response.header("location");
		if (!redirectStatuses.has(response.status)) {
			return response;
		}
		response.discard();
		const fail = (text: string): SlipwayError =>
			new SlipwayError("unavailable", `failed to fetch ${redactUrl(request.url.href)}: ${text}`);
		if (redirects >= maxRedirects) {
			throw fail(`stopped after ${maxRedirects} redirects`);
		}
		if (location === undefined) {
			throw fail(`redirect (${response.status}) without a location`);
		}
		const next = URL.parse(location, url.href);
		if (next === null || (next.protocol !== "https:" && next.protocol !== "http:")) {
			throw fail("redirect to what is no http URL");
		}
		next.username = "";
		next.password = "";
		if (!sameServer(url, next)) {
			const { authorization: _, ...rest } = headers;
			headers = rest;
		}
		url = next;
	}
}

/** Also the same host's change from plain http to https, each at its own port. */
function sameServer(from: URL, to: URL): boolean {
	const upgraded =
		from.protocol === "http:" && to.protocol === "https:" && from.port === "" && to.port === "";
	return from.origin === to.origin || (upgraded && from.hostname === to.hostname);
}

async function sendOnce(
	request: HttpRequest,
	dispatcher: Dispatcher,
	{ userAgent = "slipway", stallTimeoutMs = 60_000 }: HttpClientOptions,
): Promise<HttpResponse> {
	const { method, url, headers, signal } = request;
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	const { request: send } = await import("undici");
	try {
		const response = await send(url, {
			method,
			headers: { "user-agent": userAgent, ...headers },
			signal,
			dispatcher,
			headersTimeout: stallTimeoutMs,
			bodyTimeout: stallTimeoutMs,
		});
		// An error of a body that nobody reads (a HEAD, a discarded one) has no other place to go.
		response.body.on("error", () => {});
		const header = (name: string): string | undefined => {
			const value = response.headers[name];
			return Array.isArray(value) ? value[0] : value;
		};
		return {
			status: response.statusCode,
			header: (name) => {
				const value = header(name);
				// Headers come as Latin-1, one character a byte; names of files are sent in UTF-8.
				return name === "content-disposition" && value !== undefined
					? Buffer.from(value, "latin1").toString("utf8")
					: value;
			},
			body: readBody(response.body, request),
			discard: () => {
				void response.body.dump({ limit: 64 << 10, signal }).catch(() => {});
			},
		};
	} catch (thrown) {
		throw explainFailure(thrown, request);
	}
}

async function* readBody(
	body: AsyncIterable<Uint8Array>,
	request: HttpRequest,
): AsyncGenerator<Uint8Array, void> {
	try {
		yield* body;
	} catch (thrown) {
		throw explainFailure(thrown, request);
	}
}

async function createDispatcher({
	proxy,
	connectTimeoutMs = 30_000,
}: HttpClientOptions): Promise<Dispatcher> {
	// Loaded for the first download: undici takes 80 ms, the system's certificates about as long.
	const [{ Agent, EnvHttpProxyAgent }, tls] = await Promise.all([import("undici"), import("node:tls")]);
	let secureContext: ReturnType<typeof tls.createSecureContext> | undefined;
	const connect = {
		timeout: connectTimeoutMs,
		get secureContext() {
			// Go's clients trust what the system trusts; Node only what it was built with.
			secureContext ??= tls.createSecureContext({
				ca: [...new Set([...tls.getCACertificates("default"), ...tls.getCACertificates("system")])],
			});
			return secureContext;
		},
	};
	const { http, https, none } = proxy ?? {};
	if (http === undefined && https === undefined) {
		return new Agent({ connect });
	}
	// Empty strings keep undici from reading the environment by itself.
	return new EnvHttpProxyAgent({
		connect,
		requestTls: connect,
		httpProxy: http ?? "",
		httpsProxy: https ?? "",
		noProxy: none ?? "",
	});
}

function explainFailure(thrown: unknown, { url, signal }: HttpRequest): SlipwayError {
	if (signal.aborted) {
		return toError(signal.reason);
	}
	if (thrown instanceof SlipwayError) {
		return thrown;
	}
	const [code, text] = reasonOf(thrown, url.host);
	return new SlipwayError(code, `failed to fetch ${redactUrl(url.href)}: ${text}`, { cause: thrown });
}

function reasonOf(thrown: unknown, host: string): readonly [SlipwayError["code"], string] {
	switch (errorCodeOf(thrown)) {
		case "ENOTFOUND":
		case "EAI_AGAIN":
			return ["unavailable", `no such host: ${host}`];
		case "ECONNREFUSED":
			return ["unavailable", `connection refused by ${host}`];
		case "EHOSTUNREACH":
		case "ENETUNREACH":
			return ["unavailable", `no route to ${host}`];
		case "ETIMEDOUT":
		case "UND_ERR_CONNECT_TIMEOUT":
			return ["deadline-exceeded", `no connection to ${host} in time`];
		case "UND_ERR_HEADERS_TIMEOUT":
			return ["deadline-exceeded", `${host} did not answer in time`];
		case "UND_ERR_BODY_TIMEOUT":
			return ["deadline-exceeded", `${host} stopped sending`];
		case "UND_ERR_HEADERS_OVERFLOW":
		case "HPE_HEADER_OVERFLOW":
			return ["resource-exhausted", `${host} sent more headers than are read`];
		case "ECONNRESET":
		case "EPIPE":
		case "UND_ERR_SOCKET":
		case "UND_ERR_ABORTED":
		case "HPE_INVALID_EOF_STATE":
		case "UND_ERR_RES_CONTENT_LENGTH_MISMATCH":
			return ["unavailable", `${host} ended the connection before the end of the file`];
		default:
			return ["unavailable", toError(thrown).message];
	}
}

function errorCodeOf(thrown: unknown): string {
	// One address of several: they fail alike as a rule, and the first is the one that was preferred.
	const first: unknown = thrown instanceof AggregateError ? thrown.errors[0] : thrown;
	const code = (first as NodeJS.ErrnoException | undefined)?.code;
	return typeof code === "string" ? code : "";
}
