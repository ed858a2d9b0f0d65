import { hash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Dispatcher } from "undici";
import { collect } from "../content/bytes.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { GhaOptions } from "./gha-options.ts";
import { bufferStream, inParts, lazily } from "./objects.ts";

/** An entry of the cache service: immutable once it is committed. */
export interface GhaEntry {
	readonly key: string;
	/** Where its bytes are, for a while. */
	readonly url: string;
}

/** GitHub's cache service, in one of its two forms. */
export interface GhaService {
	/** The newest entry whose key begins so. */
	find(key: string, signal: AbortSignal): Promise<GhaEntry | undefined>;
	/** False if there is one of this key already, or somebody is writing it. */
	save(
		key: string,
		size: number,
		open: () => AsyncIterable<Uint8Array>,
		signal: AbortSignal,
	): Promise<boolean>;
	/** From this offset on. */
	read(entry: GhaEntry, offset: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** Entries of other tools that share the service have other versions; this one is BuildKit's. */
const entryVersion = hash("sha256", "|go-actionscache-1.0");
const chunkBytes = 32 << 20;
const maxAnswerBytes = 32 << 10;
const userAgent = "slipway";

export function createGhaService(given: GhaOptions, proxy: GhaProxy = {}): GhaService {
	const dispatcher = lazily(() => openDispatcher(proxy));
	const options: Access = { ...given, dispatcher };
	return options.version === 2 ? secondService(options) : firstService(options);
}

function firstService(options: Access): GhaService {
	const base = `${options.url}/_apis/artifactcache`;
	const headers = { accept: "application/json;api-version=6.0-preview.1" };
	const ask = (request: Omit<ApiRequest, "headers"> & { readonly headers?: ApiRequest["headers"] }) =>
		callApi({ ...request, headers: { ...headers, ...request.headers } }, options);
	return {
		find: async (key, signal) => {
			const query = new URLSearchParams({ keys: key, version: entryVersion });
			const answer = await ask({ method: "GET", url: `${base}/cache?${query}`, signal });
			const { cacheKey, archiveLocation } = answer;
			return typeof cacheKey === "string" && cacheKey !== "" && typeof archiveLocation === "string"
				? { key: cacheKey, url: archiveLocation }
				: undefined;
		},
		save: async (key, size, open, signal) => {
			const reserved = await unlessExists(() =>
				ask({ method: "POST", url: `${base}/caches`, json: { key, version: entryVersion }, signal }),
			);
			if (reserved === undefined) {
				return false;
			}
			const id = Number(reserved["cacheId"] ?? reserved["cacheID"]);
			if (!Number.isSafeInteger(id) || id === 0) {
				throw new SlipwayError("unavailable", "github actions cache gave no place for a new entry");
			}
			let at = 0;
			for await (const part of inParts(open(), chunkBytes)) {
				const range = `bytes ${at}-${at + part.length - 1}/*`;
				const partHeaders = { "content-type": "application/octet-stream", "content-range": range };
				const url = `${base}/caches/${id}`;
				await ask({ method: "PATCH", url, headers: partHeaders, body: part, signal });
				at += part.length;
			}
			await ask({ method: "POST", url: `${base}/caches/${id}`, json: { size }, signal });
			return true;
		},
		read: (entry, offset, signal) => readUrl(entry.url, offset, options, signal),
	};
}

function secondService(options: Access): GhaService {
	const call = (method: string, json: object, signal: AbortSignal): Promise<Answer> =>
		callApi(
			{
				method: "POST",
				url: `${options.url}/twirp/github.actions.results.api.v1.CacheService/${method}`,
				headers: {},
				json,
				signal,
			},
			options,
		);
	return {
		find: async (key, signal) => {
			const answer = await call(
				"GetCacheEntryDownloadURL",
				{ key, restore_keys: [key], version: entryVersion },
				signal,
			);
			const { ok, signed_download_url: url, matched_key: matched } = answer;
			return ok === true && typeof url === "string"
				? { key: typeof matched === "string" ? matched : key, url }
				: undefined;
		},
		save: async (key, size, open, signal) => {
			const reserved = await unlessExists(() =>
				call("CreateCacheEntry", { key, version: entryVersion }, signal),
			);
			if (reserved === undefined) {
				return false;
			}
			const { ok, signed_upload_url: url } = reserved;
			if (ok !== true || typeof url !== "string") {
				throw new SlipwayError("unavailable", "failed to reserve cache");
			}
			// The place is one of Azure's, and so is the way there.
			const { BlockBlobClient } = await import("@azure/storage-blob");
			const blob = new BlockBlobClient(url);
			await fromAzure(signal, () =>
				blob.uploadStream(bufferStream(open()), Math.min(Math.max(size, 1), chunkBytes), 4, {
					abortSignal: signal,
				}),
			);
			const done = await call(
				"FinalizeCacheEntryUpload",
				{ key, size_bytes: size, version: entryVersion },
				signal,
			);
			if (done["ok"] !== true) {
				throw new SlipwayError("unavailable", "failed to commit cache");
			}
			return true;
		},
		read: (entry, offset, signal) => readUrl(entry.url, offset, options, signal),
	};
}

/** As the environment of the builder has them. */
export interface GhaProxy {
	readonly http?: string;
	readonly https?: string;
	readonly none?: string;
}

interface Access extends GhaOptions {
	readonly dispatcher: () => Promise<{ readonly dispatcher?: Dispatcher }>;
}

async function openDispatcher({
	http,
	https,
	none,
}: GhaProxy): Promise<{ readonly dispatcher?: Dispatcher }> {
	if (http === undefined && https === undefined) {
		return {};
	}
	const { EnvHttpProxyAgent } = await import("undici");
	const dispatcher = new EnvHttpProxyAgent({
		...(http === undefined ? {} : { httpProxy: http }),
		...(https === undefined ? {} : { httpsProxy: https }),
		...(none === undefined ? {} : { noProxy: none }),
	});
	return { dispatcher };
}

type Answer = Readonly<Record<string, unknown>>;

interface ApiRequest {
	readonly method: "GET" | "POST" | "PATCH";
	readonly url: string;
	readonly headers: Readonly<Record<string, string>>;
	readonly json?: object;
	readonly body?: Uint8Array;
	readonly signal: AbortSignal;
}

/** Gives the answer's JSON; tries again while there are too many requests, or the service has trouble. */
async function callApi(
	{ method, url, headers, json, body, signal }: ApiRequest,
	{ token, timeoutMs, dispatcher }: Access,
): Promise<Answer> {
	const { request } = await import("undici");
	const through = await dispatcher();
	const until = Date.now() + timeoutMs;
	for (let delayMs = 1000; ; delayMs = Math.min(delayMs * 2, maxDelayMs)) {
		const response = await fromNetwork(signal, () =>
			request(url, {
				...through,
				method,
				headers: {
					authorization: `Bearer ${token}`,
					"user-agent": userAgent,
					...(json === undefined ? {} : { "content-type": "application/json" }),
					...headers,
				},
				body: json === undefined ? (body ?? null) : JSON.stringify(json),
				signal,
			}),
		);
		const { statusCode } = response;
		const bytes = await collect(response.body, {
			maxBytes: maxAnswerBytes,
			what: "answer of the cache service",
		});
		const text = new TextDecoder().decode(bytes);
		if (statusCode >= 200 && statusCode < 300) {
			return text === "" ? {} : parseAnswer(text);
		}
		const after = Number(response.headers["retry-after"] ?? Number.NaN) * 1000;
		const pause = Number.isFinite(after) && after >= 0 ? after : delayMs;
		const longest = statusCode === 429 ? maxDelayMs : maxTroubleMs;
		if ((statusCode === 429 || statusCode >= 500) && Date.now() + pause < until && delayMs < longest) {
			await sleep(pause, undefined, { signal });
			continue;
		}
		throw errorOf(statusCode, text);
	}
}

const maxDelayMs = 90_000;
/** A service that is out of order does not hold a build up for long. */
const maxTroubleMs = 16_000;

function parseAnswer(text: string): Answer {
	try {
		const value: unknown = JSON.parse(text);
		if (typeof value === "object" && value !== null) {
			return value as Answer;
		}
	} catch {
		// Said below.
	}
	throw new SlipwayError("unavailable", "github actions cache gave an answer that is no JSON");
}

/** Both forms' errors: `{"message","typeKey"}` and Twirp's `{"code","msg"}`. */
function errorOf(status: number, text: string): SlipwayError {
	let fields: Answer = {};
	try {
		fields = JSON.parse(text) as Answer;
	} catch {
		// A proxy's page, perhaps.
	}
	const { message, msg, typeKey, code } = fields ?? {};
	const said =
		[msg, message, code].find((each) => typeof each === "string" && each !== "") ?? `status ${status}`;
	const exists = /already.?exists/i.test(`${typeKey} ${code} ${said}`) || status === 409;
	return new SlipwayError(
		exists
			? "already-exists"
			: status === 401 || status === 403
				? "permission-denied"
				: status === 429
					? "resource-exhausted"
					: status < 500
						? "invalid-argument"
						: "unavailable",
		`github actions cache: ${said} (${status})`,
	);
}

async function unlessExists(work: () => Promise<Answer>): Promise<Answer | undefined> {
	try {
		return await work();
	} catch (error) {
		if (error instanceof SlipwayError && error.code === "already-exists") {
			return undefined;
		}
		throw error;
	}
}

/** The address has its own signature: the token is for the service alone. */
async function* readUrl(
	url: string,
	offset: number,
	{ dispatcher }: Access,
	signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
	const { request } = await import("undici");
	const through = await dispatcher();
	const response = await fromNetwork(signal, () =>
		request(url, {
			...through,
			headers: { "user-agent": userAgent, ...(offset === 0 ? {} : { range: `bytes=${offset}-` }) },
			signal,
		}),
	);
	const { statusCode, body } = response;
	if (statusCode !== (offset === 0 ? 200 : 206)) {
		await body.dump();
		throw new SlipwayError(
			statusCode === 404 ? "not-found" : "unavailable",
			`github actions cache: reading an entry gave status ${statusCode}`,
		);
	}
	try {
		yield* body as AsyncIterable<Uint8Array>;
	} catch (error) {
		throw networkError(error, signal);
	}
}

async function fromNetwork<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
	try {
		return await work();
	} catch (error) {
		throw networkError(error, signal);
	}
}

function networkError(error: unknown, signal: AbortSignal): SlipwayError {
	return signal.aborted
		? toError(signal.reason)
		: new SlipwayError("unavailable", `github actions cache: ${(error as Error).message}`, { cause: error });
}

async function fromAzure(signal: AbortSignal, work: () => Promise<unknown>): Promise<void> {
	try {
		await work();
	} catch (error) {
		if (signal.aborted || error instanceof SlipwayError) {
			throw signal.aborted ? toError(signal.reason) : error;
		}
		const [first = ""] = (error as Error).message.split("\n");
		throw new SlipwayError("unavailable", `github actions cache: upload failed: ${first}`, { cause: error });
	}
}
