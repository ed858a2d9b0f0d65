import {
	createHmac,
	createPrivateKey,
	createPublicKey,
	type KeyObject,
	randomBytes,
	sign,
} from "node:crypto";
import { closeSync, constants, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { findDetail, redactUrl, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { tryLock } from "../sys/lock.ts";
import type { TokenAuthority } from "./local-session.ts";
import type { RegistryCredentials, RegistryToken, SessionAuth, TokenRequest } from "./session.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export interface TokenAuthorityOptions {
	readonly auth: SessionAuth;
	/** `DOCKER_CONFIG` and `HOME`, where the seeds are; `BUILDKIT_NO_CLIENT_TOKEN`. */
	readonly env: Environment;
	/** By registry: how its token server is spoken to, where the defaults do not do. */
	readonly tls?: ReadonlyMap<string, TokenServerTls>;
}

export interface TokenServerTls {
	/** Any certificate will do. */
	readonly insecure: boolean;
	/** PEM files of authorities that are trusted beside the system's. */
	readonly authorities: readonly string[];
	/** PEM files of certificates to show. */
	readonly pairs: readonly { readonly cert: string; readonly key: string }[];
}

/**
 * Gets registry tokens on behalf of a builder, so that it never sees the login (BuildKit's authprovider.go). That two sessions have the
 * same login is shown by a key that is made of a seed on this machine and the builder's salt: it says nothing about the
 * login, and nothing to another builder.
 */
export function createTokenAuthority({ auth, env, tls }: TokenAuthorityOptions): TokenAuthority {
	const key = async (
		host: string,
		salt: Uint8Array,
		options: { readonly signal: AbortSignal },
	): Promise<KeyObject> => {
		if (/^(1|t|true)$/i.test(env["BUILDKIT_NO_CLIENT_TOKEN"] ?? "")) {
			throw new SlipwayError("unavailable", "client side tokens disabled");
		}
		const credentials = await auth.credentials(host, options);
		const seed = seedOf(host, env["DOCKER_CONFIG"] || join(env["HOME"] || homedir(), ".docker"));
		const mac = createHmac("sha256", salt);
		if (credentials !== undefined) {
			mac.update(seed);
		}
		return createPrivateKey({
			key: Buffer.concat([privateKeyPrefix, mac.digest()]),
			format: "der",
			type: "pkcs8",
		});
	};
	return {
		async publicKey(host, salt, options) {
			const publicKey = createPublicKey(await key(host, salt, options));
			return publicKey.export({ format: "der", type: "spki" }).subarray(-32);
		},
		async sign(host, salt, payload, options) {
			return Buffer.concat([sign(null, payload, await key(host, salt, options)), payload]);
		},
		async fetch(request, { signal }) {
			const credentials = await auth.credentials(request.host, { signal });
			const what = credentials === undefined ? "anonymous" : "oauth";
			try {
				return await fetchToken(request, credentials, { signal, send: senderFor(tls?.get(request.host)) });
			} catch (thrown) {
				throw wrap(thrown, `failed to fetch ${what} token`);
			}
		},
	};
}

/** RFC 8410: what is in front of an Ed25519 seed in its standard form. */
const privateKeyPrefix: Uint8Array = Buffer.from("302e020100300506032b657004220420", "hex");
const seedBytes = 16;

/**
 * The host's seed, from the file that BuildKit's clients share; made if there is none. Where the file cannot be written it is good for this
 * time only.
 */
function seedOf(host: string, directory: string): Uint8Array {
	const file = join(directory, ".token_seed");
	using _ = lockSeeds(directory);
	const seeds = readSeeds(file);
	const known = seeds[host]?.Seed;
	if (known !== undefined) {
		return Buffer.from(known, "base64");
	}
	const seed = randomBytes(seedBytes);
	const all = { ...seeds, [host]: { Seed: seed.toString("base64") } };
	const sorted = Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
	unlessForbidden(() => writeFileSync(file, JSON.stringify(sorted, undefined, 2), { mode: 0o600 }));
	return seed;
}

/** Another client holds the lock for a moment only; if it does not, a seed more or less does no harm. */
function lockSeeds(directory: string): Disposable {
	let fd: number | undefined;
	unlessForbidden(() => {
		mkdirSync(directory, { recursive: true });
		fd = openSync(join(directory, ".token_seed.lock"), constants.O_RDWR | constants.O_CREAT, 0o600);
		tryLock(fd);
	});
	return {
		[Symbol.dispose]() {
			if (fd !== undefined) {
				closeSync(fd);
			}
		},
	};
}

/** A damaged file is replaced: its seeds only tell sessions apart. */
function readSeeds(file: string): Readonly<Record<string, { readonly Seed: string }>> {
	let text: string;
	try {
		text = readFileSync(file, "utf8");
	} catch (thrown) {
		const { code } = toError(thrown);
		if (code === "not-found" || code === "permission-denied") {
			return {};
		}
		throw toError(thrown);
	}
	try {
		const value: unknown = JSON.parse(text);
		return Object.fromEntries(
			Object.entries(value as Readonly<Record<string, unknown>>).flatMap(([host, entry]) => {
				const seed = (entry as { readonly Seed?: unknown } | null)?.Seed;
				return typeof seed === "string" ? [[host, { Seed: seed }]] : [];
			}),
		);
	} catch {
		return {};
	}
}

function unlessForbidden(action: () => void): void {
	try {
		action();
	} catch (thrown) {
		const errno = findDetail(toError(thrown), "errno")?.errno;
		if (errno !== "EROFS" && errno !== "EACCES" && errno !== "EPERM") {
			throw toError(thrown);
		}
	}
}

const defaultLifeSeconds = 60;
const maxAnswerBytes = 1 << 20;

/** The newer form first if there is a login; servers that do not know it, or do not want it, answer with these. */
async function fetchToken(
	request: TokenRequest,
	credentials: RegistryCredentials | undefined,
	options: { readonly signal: AbortSignal; readonly send: Send },
): Promise<RegistryToken> {
	const { signal, send } = options;
	const realm = URL.parse(request.realm);
	if (realm === null || (realm.protocol !== "https:" && realm.protocol !== "http:")) {
		throw new SlipwayError("invalid-argument", `invalid realm ${JSON.stringify(request.realm)}`);
	}
	if (credentials === undefined) {
		return readToken(await get(realm, request, {}, options));
	}
	const form = new URLSearchParams({
		...(credentials.kind === "identity-token"
			? { grant_type: "refresh_token", refresh_token: credentials.token }
			: { grant_type: "password", username: credentials.username, password: credentials.password }),
		service: request.service,
		client_id: "buildkit-client",
		...(request.scopes.length === 0 ? {} : { scope: request.scopes.join(" ") }),
	});
	const response = await send(realm, { method: "POST", body: form, signal });
	if (credentials.kind === "basic" && [401, 404, 405].includes(response.status)) {
		await response.body?.cancel();
		const login = Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64");
		return readToken(await get(realm, request, { authorization: `Basic ${login}` }, options));
	}
	return readToken(response);
}

function get(
	realm: URL,
	{ service, scopes }: TokenRequest,
	headers: Readonly<Record<string, string>>,
	{ signal, send }: { readonly signal: AbortSignal; readonly send: Send },
): Promise<Response> {
	const url = new URL(realm);
	if (service !== "") {
		url.searchParams.append("service", service);
	}
	for (const scope of scopes) {
		url.searchParams.append("scope", scope);
	}
	return send(url, { headers, signal });
}

type Send = (url: URL, init: RequestInit) => Promise<Response>;

function senderFor(settings: TokenServerTls | undefined): Send {
	return async (url, init) => {
		try {
			return await (settings === undefined ? fetch(url, init) : fetchWith(settings, url, init));
		} catch (thrown) {
			if (init.signal?.aborted === true) {
				throw toError(init.signal.reason);
			}
			const cause = thrown instanceof Error && thrown.cause !== undefined ? thrown.cause : thrown;
			throw new SlipwayError("unavailable", `${redactUrl(url.href)}: ${toError(cause).message}`, {
				cause: thrown,
			});
		}
	};
}

async function fetchWith(settings: TokenServerTls, url: URL, init: RequestInit): Promise<Response> {
	const [{ Agent, fetch: fetchThrough }, { getCACertificates }] = await Promise.all([
		import("undici"),
		import("node:tls"),
	]);
	const { insecure, authorities, pairs } = settings;
	const dispatcher = new Agent({
		connect: {
			rejectUnauthorized: !insecure,
			cert: pairs.map(({ cert }) => readPem(cert)),
			key: pairs.map(({ key }) => readPem(key)),
			...(authorities.length === 0
				? {}
				: {
						ca: [
							...getCACertificates("bundled"),
							...getCACertificates("system"),
							...authorities.map((path) => readPem(path)),
						],
					}),
		},
		// For one answer.
		keepAliveTimeout: 1,
	});
	// Of the same shape as Node's own, which is an older copy of it.
	const response = await fetchThrough(url, { ...init, dispatcher } as Parameters<typeof fetchThrough>[1]);
	return response as unknown as Response;
}

function readPem(path: string): string {
	try {
		return readFileSync(path, "utf8");
	} catch (thrown) {
		throw wrap(thrown, `failed to read ${path}`);
	}
}

async function readToken(response: Response): Promise<RegistryToken> {
	if (!response.ok) {
		await response.body?.cancel();
		throw new SlipwayError(
			response.status === 401 || response.status === 403 ? "unauthenticated" : "unavailable",
			`unexpected status from token service: ${response.status} ${response.statusText}`.trimEnd(),
		);
	}
	const bytes = await response.arrayBuffer();
	let answer: Readonly<Record<string, unknown>>;
	try {
		if (bytes.byteLength > maxAnswerBytes) {
			throw new RangeError("too large");
		}
		answer = JSON.parse(Buffer.from(bytes).toString("utf8")) as Readonly<Record<string, unknown>>;
	} catch {
		// Not the parser's message: it quotes the text, which may hold a token.
		throw new SlipwayError("unavailable", "answer of the token service is not JSON");
	}
	const token = answer["access_token"] || answer["token"];
	if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
		throw new SlipwayError("unavailable", "answer of the token service has no token");
	}
	const life = answer["expires_in"];
	return {
		token,
		expiresInSeconds: typeof life === "number" && life > 0 ? Math.floor(life) : defaultLifeSeconds,
	};
}
