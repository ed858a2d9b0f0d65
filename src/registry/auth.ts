import { createSingleFlight } from "../async/single-flight.ts";
import { collect } from "../content/bytes.ts";
import { redactUrl, SlipwayError, wrap } from "../errors/errors.ts";
import type { Challenge } from "./challenge.ts";
import { isLoopback, type TlsConfig } from "./endpoint.ts";
import { follow } from "./follow.ts";
import type { RetryPolicy } from "./registry.ts";
import { type Place, unexpectedStatus } from "./registry-error.ts";
import { withRetries } from "./retry.ts";
import type { Transport } from "./transport.ts";

export type Credentials =
	| { readonly kind: "basic"; readonly username: string; readonly password: string }
	/** From an OAuth2 login; good only for getting tokens. */
	| { readonly kind: "identity-token"; readonly token: string };

/** The login for a host (`registry-1.docker.io` for Docker Hub); undefined is anonymous. */
export type GetCredentials = (
	host: string,
	options: { readonly signal: AbortSignal },
) => Promise<Credentials | undefined>;

/** A token that the client itself gets from the service, so that its login stays with it; undefined: it does not do that. */
export type FetchToken = (
	request: {
		readonly host: string;
		readonly realm: string;
		readonly service: string;
		readonly scopes: readonly string[];
	},
	options: { readonly signal: AbortSignal },
) => Promise<{ readonly token: string; readonly expiresInSeconds: number } | undefined>;

/**
 * The logins of one user and the tokens that were got with them. Whoever may use these logins shares one such object; different
 * users never do.
 */
export interface RegistryAuth {
	/** The `Authorization` header for a request, as far as the server's ways are known; undefined: send without. */
	authorize(context: AuthContext, scopes: readonly string[]): Promise<Authorization | undefined>;
	/**
	 * Learns from a 401. The scopes for another attempt, or undefined if none makes sense. `sent` is what was refused.
	 */
	learn(
		context: AuthContext,
		challenges: readonly Challenge[],
		scopes: readonly string[],
		sent: Authorization | undefined,
	): Promise<readonly string[] | undefined>;
}

export interface Authorization {
	readonly header: string;
	/** Made for this request: if it is refused, making it again is no use. */
	readonly fresh: boolean;
}

/** The server that wants to know who asks, and how to reach its token service. */
export interface AuthContext {
	/** `https://host:port`. */
	readonly origin: string;
	/** What credentials are asked for. */
	readonly host: string;
	readonly tls: TlsConfig;
	readonly transport: Transport;
	readonly retry: RetryPolicy;
	readonly place: Place;
	readonly signal: AbortSignal;
}

/** Requests that need no login, and registries that want none. */
export const noCredentials: GetCredentials = async () => undefined;

export function createRegistryAuth(credentials: GetCredentials, clientToken?: FetchToken): RegistryAuth {
	return new Logins(credentials, clientToken ?? (async () => undefined));
}

type Way =
	| { readonly kind: "basic"; readonly header: string }
	| {
			readonly kind: "bearer";
			readonly realm: URL;
			readonly service: string | undefined;
			/** Asked for once, when the first token is wanted. */
			credentials: Promise<Credentials | undefined> | undefined;
			readonly tokens: Map<string, Token>;
	  };

interface Token {
	readonly header: string;
	/** Milliseconds since the epoch. */
	readonly expiresAt: number;
}

/** Docker's token spec: a token without a stated life is good for a minute. */
const defaultLifeSeconds = 60;
const maxTokenBytes = 1 << 20;
/** A token is kept per set of scopes; a build asks for a few repositories, a farm for some hundreds. */
const maxTokens = 1000;

class Logins implements RegistryAuth {
	readonly #credentials: GetCredentials;
	readonly #clientToken: FetchToken;
	readonly #ways = new Map<string, Way>();
	readonly #flights = createSingleFlight<string, Token>();

	constructor(credentials: GetCredentials, clientToken: FetchToken) {
		this.#credentials = credentials;
		this.#clientToken = clientToken;
	}

	async authorize(context: AuthContext, scopes: readonly string[]): Promise<Authorization | undefined> {
		const way = this.#ways.get(context.origin);
		if (way === undefined) {
			return undefined;
		}
		if (way.kind === "basic") {
			return { header: way.header, fresh: false };
		}
		const wanted = normalizeScopes(scopes);
		const key = wanted.join(" ");
		const known = way.tokens.get(key);
		if (known !== undefined && known.expiresAt > Date.now()) {
			return { header: known.header, fresh: false };
		}
		let token: Token;
		try {
			token = await this.#flights.run(
				`${context.origin} ${key}`,
				(signal) => this.#fetchToken(way, wanted, { ...context, signal }),
				context,
			);
		} catch (thrown) {
			// The login may have been corrected when it is asked for again.
			if (this.#ways.get(context.origin) === way) {
				this.#ways.delete(context.origin);
			}
			throw thrown;
		}
		if (way.tokens.size >= maxTokens) {
			way.tokens.clear();
		}
		way.tokens.set(key, token);
		return { header: token.header, fresh: true };
	}

	async learn(
		context: AuthContext,
		challenges: readonly Challenge[],
		scopes: readonly string[],
		sent: Authorization | undefined,
	): Promise<readonly string[] | undefined> {
		for (const challenge of challenges) {
			const wanted =
				challenge.scheme === "bearer"
					? await this.#learnBearer(context, challenge, scopes, sent)
					: await this.#learnBasic(context, sent);
			if (wanted !== undefined) {
				return wanted === "same" ? scopes : wanted;
			}
		}
		return undefined;
	}

	async #learnBearer(
		context: AuthContext,
		{ parameters }: Challenge,
		scopes: readonly string[],
		sent: Authorization | undefined,
	): Promise<readonly string[] | undefined> {
		const realm = URL.parse(parameters["realm"] ?? "");
		if (realm === null || (realm.protocol !== "https:" && realm.protocol !== "http:")) {
			return undefined;
		}
		const wanted = normalizeScopes([...scopes, ...(parameters["scope"] ?? "").split(" ")]);
		const before = normalizeScopes(scopes).join(" ");
		const way = this.#ways.get(context.origin);
		const service = parameters["service"];
		if (way?.kind === "bearer" && way.realm.href === realm.href && way.service === service) {
			if (sent?.fresh === true && wanted.join(" ") === before) {
				return undefined;
			}
			if (sent !== undefined && way.tokens.get(before)?.header === sent.header) {
				way.tokens.delete(before);
			}
			return wanted;
		}
		this.#ways.set(context.origin, {
			kind: "bearer",
			realm,
			service,
			credentials: undefined,
			tokens: new Map(),
		});
		return wanted;
	}

	/** From the client if it does that, else from the service with the client's login. */
	async #fetchToken(way: Bearer, scopes: readonly string[], context: AuthContext): Promise<Token> {
		const { host, origin, signal } = context;
		const { realm, service = "" } = way;
		const given = await this.#clientToken({ host, realm: realm.href, service, scopes }, { signal });
		if (given !== undefined) {
			return toToken(given.token, given.expiresInSeconds, `token of the client for ${host}`);
		}
		way.credentials ??= this.#credentials(host, { signal });
		const credentials = await way.credentials;
		if (
			credentials !== undefined &&
			realm.protocol === "http:" &&
			origin.startsWith("https:") &&
			!isLoopback(realm.host)
		) {
			throw new SlipwayError(
				"permission-denied",
				`registry ${host} asks to send its login over plain http to ${redactUrl(realm.href)}, which is refused`,
			);
		}
		return fetchToken(way, credentials, scopes, context);
	}

	async #learnBasic(context: AuthContext, sent: Authorization | undefined): Promise<"same" | undefined> {
		if (sent?.header.startsWith("Basic ") === true) {
			// A login that is refused may have been corrected when it is asked for again.
			this.#ways.delete(context.origin);
			return undefined;
		}
		const credentials = await this.#credentials(context.host, context);
		if (credentials?.kind !== "basic") {
			return undefined;
		}
		this.#ways.set(context.origin, { kind: "basic", header: basicHeader(credentials) });
		return "same";
	}
}

function basicHeader({
	username,
	password,
}: {
	readonly username: string;
	readonly password: string;
}): string {
	return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

/** One entry per resource with all its actions, sorted: `repository:a/b:pull,push`. */
export function normalizeScopes(scopes: readonly string[]): readonly string[] {
	const actions = new Map<string, Set<string>>();
	for (const scope of scopes) {
		const [, resource, list = ""] = /^([^:]+:.+):([^:]*)$/.exec(scope) ?? [];
		if (resource !== undefined) {
			const known = actions.get(resource) ?? new Set();
			actions.set(resource, known);
			for (const action of list.split(",")) {
				known.add(action);
			}
		}
	}
	return [...actions].map(([resource, set]) => `${resource}:${[...set].sort().join(",")}`).sort();
}

type Bearer = Extract<Way, { kind: "bearer" }>;

/** https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/ */
async function fetchToken(
	way: Bearer,
	credentials: Credentials | undefined,
	scopes: readonly string[],
	context: AuthContext,
): Promise<Token> {
	try {
		if (credentials?.kind === "identity-token") {
			return await post(way, scopes, context, {
				grant_type: "refresh_token",
				refresh_token: credentials.token,
			});
		}
		try {
			return await get(way, credentials, scopes, context);
		} catch (thrown) {
			// Some services take a password only in the newer form; they answer the older one as if it were wrong or unknown.
			const status = refusedStatus.get(thrown as object);
			if (credentials === undefined || (status !== 401 && status !== 404 && status !== 405)) {
				throw thrown;
			}
			const { username, password } = credentials;
			return await post(way, scopes, context, { grant_type: "password", username, password });
		}
	} catch (thrown) {
		const what = credentials === undefined ? "anonymous" : "oauth";
		throw wrap(thrown, `failed to authorize: failed to fetch ${what} token`);
	}
}

function get(
	way: Bearer,
	credentials: Credentials | undefined,
	scopes: readonly string[],
	context: AuthContext,
): Promise<Token> {
	const url = new URL(way.realm);
	if (way.service !== undefined) {
		url.searchParams.append("service", way.service);
	}
	for (const scope of scopes) {
		url.searchParams.append("scope", scope);
	}
	return ask(context, "GET", url, {
		headers: credentials?.kind === "basic" ? { authorization: basicHeader(credentials) } : {},
	});
}

function post(
	way: Bearer,
	scopes: readonly string[],
	context: AuthContext,
	grant: Readonly<Record<string, string>>,
): Promise<Token> {
	const form = new URLSearchParams({
		...grant,
		service: way.service ?? "",
		client_id: "buildkit-client",
		...(scopes.length === 0 ? {} : { scope: scopes.join(" ") }),
	});
	return ask(context, "POST", way.realm, {
		headers: { "content-type": "application/x-www-form-urlencoded; charset=utf-8" },
		body: Buffer.from(form.toString()),
	});
}

const refusedStatus = new WeakMap<object, number>();

async function ask(
	context: AuthContext,
	method: "GET" | "POST",
	url: URL,
	request: { readonly headers: Readonly<Record<string, string>>; readonly body?: Uint8Array },
): Promise<Token> {
	const { transport, tls, signal, retry, place } = context;
	return withRetries(retry, signal, async () => {
		const { body } = request;
		const response = await follow(transport, {
			method,
			url,
			headers: request.headers,
			...(body === undefined ? {} : { body: () => body }),
			tls,
			signal,
			retryStatuses: true,
			place,
		});
		if (response.status < 200 || response.status >= 300) {
			const error = await unexpectedStatus(response, method, place);
			refusedStatus.set(error, response.status);
			throw error;
		}
		const what = `token response of ${redactUrl(url.origin)}`;
		return readToken(await collect(response.body, { maxBytes: maxTokenBytes, what }), what);
	});
}

function readToken(bytes: Uint8Array, what: string): Token {
	let document: Readonly<Record<string, unknown>>;
	try {
		document = JSON.parse(Buffer.from(bytes).toString()) as Readonly<Record<string, unknown>>;
	} catch {
		// Not the parser's message: it quotes the text, which may hold a token.
		throw new SlipwayError("unavailable", `${what} is not JSON`);
	}
	const life = document["expires_in"];
	const seconds = typeof life === "number" && life > 0 ? life : defaultLifeSeconds;
	return toToken(document["access_token"] || document["token"], seconds, what);
}

function toToken(token: unknown, seconds: number, what: string): Token {
	if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
		throw new SlipwayError("unavailable", `${what} has no token`);
	}
	// Counted from now, since clocks differ, and a little less, since it is used a little later.
	return { header: `Bearer ${token}`, expiresAt: Date.now() + (seconds || defaultLifeSeconds) * 900 };
}
