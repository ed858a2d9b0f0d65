import type { SecureContext } from "node:tls";
import type { Dispatcher } from "undici";
import { findDetail, redactUrl, SlipwayError, toError } from "../errors/errors.ts";
import type { TlsConfig } from "./endpoint.ts";
import type { RegistryClientOptions, Timeouts } from "./registry.ts";

/** HTTP for one request, without redirects, logins and second attempts. */
export interface Transport extends AsyncDisposable {
	request(request: TransportRequest): Promise<TransportResponse>;
}

export interface TransportRequest {
	readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
	readonly url: URL;
	readonly headers: Readonly<Record<string, string>>;
	readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
	readonly tls: TlsConfig;
	readonly signal: AbortSignal;
}

export interface TransportResponse {
	readonly status: number;
	readonly url: URL;
	header(name: string): string | undefined;
	headers(name: string): readonly string[];
	/** May be read once. Throws our errors; `isRetryable` tells which of them are worth another try. */
	readonly body: AsyncIterable<Uint8Array>;
	/** Frees the connection. */
	discard(): void;
}

export interface TransportOptions {
	readonly timeouts: Timeouts;
	readonly userAgent: string;
	readonly proxy: RegistryClientOptions["proxy"];
}

export function createTransport(options: TransportOptions): Transport {
	return new UndiciTransport(options);
}

class UndiciTransport implements Transport {
	readonly #options: TransportOptions;
	/** One per TLS configuration, since connections with other certificates must not be shared, and one without. */
	readonly #dispatchers = new Map<string, Promise<Dispatcher>>();

	constructor(options: TransportOptions) {
		this.#options = options;
	}

	async request(request: TransportRequest): Promise<TransportResponse> {
		const { method, url, headers, body, signal } = request;
		const { timeouts } = this.#options;
		if (signal.aborted) {
			throw toError(signal.reason);
		}
		// Loaded when the first registry is asked: undici takes 80 ms.
		const [undici, dispatcher] = await Promise.all([
			import("undici"),
			this.#dispatcher(url.protocol === "https:" ? request.tls : undefined),
		]);
		try {
			const response = await undici.request(url, {
				method,
				headers: { "user-agent": this.#options.userAgent, ...headers },
				// The types know only Node streams; any async iterable is taken.
				body: (body ?? null) as Uint8Array | null,
				signal,
				dispatcher,
				headersTimeout: method === "GET" || method === "HEAD" ? timeouts.answerMs : timeouts.commitMs,
				bodyTimeout: timeouts.stallMs,
			});
			// An error of a body that nobody reads (a HEAD, a discarded one) has no other place to go.
			response.body.on("error", () => {});
			const values = (name: string): readonly string[] => {
				const value = response.headers[name];
				return value === undefined ? [] : Array.isArray(value) ? value : [value];
			};
			return {
				status: response.statusCode,
				url,
				headers: values,
				header: (name) => values(name)[0],
				body: readBody(response.body, request),
				discard: () => {
					void response.body.dump({ limit: 64 << 10, signal }).catch(() => {});
				},
			};
		} catch (thrown) {
			throw explainFailure(thrown, request);
		}
	}

	async [Symbol.asyncDispose](): Promise<void> {
		const all = [...this.#dispatchers.values()];
		this.#dispatchers.clear();
		for (const dispatcher of all) {
			await (await dispatcher).destroy();
		}
	}

	#dispatcher(tls: TlsConfig | undefined): Promise<Dispatcher> {
		const key = JSON.stringify(tls ?? "");
		const known = this.#dispatchers.get(key);
		if (known !== undefined) {
			return known;
		}
		const made = createDispatcher(tls, this.#options);
		this.#dispatchers.set(key, made);
		return made;
	}
}

async function createDispatcher(
	tls: TlsConfig | undefined,
	{ timeouts, proxy }: TransportOptions,
): Promise<Dispatcher> {
	const { Agent, EnvHttpProxyAgent } = await import("undici");
	const secure = tls === undefined ? {} : await secureOptions(tls);
	const connect = { ...secure, timeout: timeouts.connectMs, keepAlive: true };
	const { http, https, none } = proxy ?? {};
	if (http === undefined && https === undefined) {
		return new Agent({ connect });
	}
	// Empty strings keep undici from reading the environment by itself.
	return new EnvHttpProxyAgent({
		connect,
		requestTls: secure,
		httpProxy: http ?? "",
		httpsProxy: https ?? "",
		noProxy: none ?? "",
	});
}

interface SecureOptions {
	readonly secureContext: SecureContext;
	readonly rejectUnauthorized: boolean;
}

/** Made once and only for https: the system's certificates take some 70 ms. */
async function secureOptions({ insecure, ca, keyPairs }: TlsConfig): Promise<SecureOptions> {
	const { createSecureContext, getCACertificates } = await import("node:tls");
	const secureContext = createSecureContext({
		// Go's clients trust what the system trusts; Node only what it was built with.
		ca: [...new Set([...getCACertificates("default"), ...getCACertificates("system"), ...ca])],
		...(keyPairs.length === 0
			? {}
			: { cert: keyPairs.map((pair) => pair.certificate), key: keyPairs.map((pair) => pair.key) }),
	});
	return { secureContext, rejectUnauthorized: !insecure };
}

async function* readBody(
	body: AsyncIterable<Uint8Array>,
	request: TransportRequest,
): AsyncGenerator<Uint8Array, void> {
	try {
		yield* body;
	} catch (thrown) {
		throw explainFailure(thrown, request);
	}
}

const retryable = new WeakSet<SlipwayError>();

/** True for failures of the network that another attempt may not meet; not for a time-out of connecting, which tried long enough. */
export function isRetryable(thrown: unknown): boolean {
	return thrown instanceof SlipwayError && retryable.has(thrown);
}

/** Marks an error of our own, such as an answer that was cut short, as worth another attempt. */
export function markRetryable(error: SlipwayError): SlipwayError {
	retryable.add(error);
	return error;
}

export function unmarkRetryable(thrown: unknown): void {
	if (thrown instanceof SlipwayError) {
		retryable.delete(thrown);
	}
}

/** True if the server answered something that is not TLS, or nothing listens for it. */
export function isNoTls(thrown: unknown): boolean {
	const code = codeOf(thrown instanceof SlipwayError ? thrown.cause : thrown);
	return (
		code === "ERR_SSL_WRONG_VERSION_NUMBER" || code === "ERR_SSL_PACKET_LENGTH_TOO_LONG" || code === "EPROTO"
	);
}

const certificateCodes: ReadonlySet<string> = new Set([
	"SELF_SIGNED_CERT_IN_CHAIN",
	"DEPTH_ZERO_SELF_SIGNED_CERT",
	"UNABLE_TO_VERIFY_LEAF_SIGNATURE",
	"UNABLE_TO_GET_ISSUER_CERT",
	"UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
	"CERT_UNTRUSTED",
]);

const brokenCodes: ReadonlySet<string> = new Set([
	"ECONNRESET",
	"EPIPE",
	"ECONNABORTED",
	"EAI_AGAIN",
	"UND_ERR_SOCKET",
	"UND_ERR_HEADERS_TIMEOUT",
	"UND_ERR_BODY_TIMEOUT",
	"UND_ERR_ABORTED",
	"HPE_INVALID_EOF_STATE",
]);

function codeOf(thrown: unknown): string {
	if (!(thrown instanceof Error)) {
		return "";
	}
	// One address of several: they fail alike as a rule, and the first is the one that was preferred.
	const first = thrown instanceof AggregateError ? thrown.errors[0] : undefined;
	const { code } = thrown as NodeJS.ErrnoException;
	return typeof code === "string" ? code : first === undefined ? "" : codeOf(first);
}

function explainFailure(thrown: unknown, request: TransportRequest): SlipwayError {
	if (request.signal.aborted) {
		return toError(request.signal.reason);
	}
	if (thrown instanceof SlipwayError) {
		return thrown;
	}
	const code = codeOf(thrown);
	const { host } = request.url;
	const make = (kind: SlipwayError["code"], text: string): SlipwayError => {
		const errno = findDetail(toError(thrown), "errno");
		const error = new SlipwayError(
			kind,
			`failed to do request: ${request.method} ${redactUrl(request.url.href)}: ${text}`,
			{ cause: thrown, ...(errno === undefined ? {} : { details: [errno] }) },
		);
		return brokenCodes.has(code) ? markRetryable(error) : error;
	};
	switch (code) {
		case "ENOTFOUND":
		case "EAI_AGAIN":
			return make(
				"unavailable",
				`no such host: ${request.url.hostname}; check the name of the registry and the builder's DNS`,
			);
		case "ECONNREFUSED":
			return make(
				"unavailable",
				`connection refused by ${host}; check that the registry is running there and that the port is right`,
			);
		case "EHOSTUNREACH":
		case "ENETUNREACH":
			return make("unavailable", `no route to ${host}; check the builder's network and proxy`);
		case "ETIMEDOUT":
		case "UND_ERR_CONNECT_TIMEOUT":
			return make(
				"deadline-exceeded",
				`no connection to ${host} in time; check the builder's network and proxy`,
			);
		case "UND_ERR_HEADERS_TIMEOUT":
			return make("deadline-exceeded", `${host} did not answer in time`);
		case "UND_ERR_BODY_TIMEOUT":
			return make("deadline-exceeded", `${host} stopped sending`);
		case "ERR_TLS_CERT_ALTNAME_INVALID":
			return make(
				"unavailable",
				`the certificate of ${host} is for another name; configure its registry name`,
			);
		case "CERT_HAS_EXPIRED":
			return make("unavailable", `the certificate of ${host} has expired`);
		default:
	}
	if (isNoTls(thrown)) {
		return make(
			"unavailable",
			`${host} does not speak TLS; if it is meant to be plain http, set "http = true" for this registry`,
		);
	}
	if (certificateCodes.has(code)) {
		return make(
			"unavailable",
			`the certificate of ${host} is not trusted (${code}); configure its "ca", or "insecure = true" to accept any`,
		);
	}
	if (brokenCodes.has(code)) {
		return make("unavailable", `connection to ${host} broke`);
	}
	return make("unavailable", toError(thrown).message);
}
