import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { createKeyedLock, type KeyedLock } from "../async/keyed-lock.ts";
import type { CacheManager, ImmutableRef, RefId } from "../cache/cache.ts";
import { canceled, redactUrl, SlipwayError, toError } from "../errors/errors.ts";
import { type Digest, isDigest, sha256 } from "../oci/digest.ts";
import { goJson } from "../oci/go-json.ts";
import type { Session } from "../session/session.ts";
import { type HttpDownload, parseHttpDownload } from "./http-attrs.ts";
import {
	createHttpClient,
	type HttpClient,
	type HttpClientOptions,
	type HttpResponse,
} from "./http-client.ts";
import { formatHttpDate, parseHttpDate } from "./http-date.ts";
import { saveDownload } from "./http-download.ts";
import { downloadName } from "./http-filename.ts";
import { findHeaderSecret } from "./session-secrets.ts";
import type {
	DescribeSourceOptions,
	Source,
	SourceDescription,
	SourceInstance,
	SourceOptions,
} from "./source.ts";

export interface HttpSourceOptions extends HttpClientOptions {
	readonly cache: Pick<CacheManager, "createMutable" | "get" | "search">;
	/**
	 * Bytes of the largest file that is taken. Default 32 GiB: above what anybody adds to an image, below what fills the disk of
	 * a builder before somebody looks.
	 */
	readonly maxBytes?: number;
}

/**
 * `http://` and `https://`: one file. Its key is made of its bytes' digest, so the file is downloaded to know the key, unless the
 * build gives the checksum, or the server says by ETag that a file of an earlier build is still the same.
 */
export function createHttpSource(options: HttpSourceOptions): Source {
	const services: Services = {
		cache: options.cache,
		client: createHttpClient(options),
		maxBytes: options.maxBytes ?? 32 * 2 ** 30,
		lock: createKeyedLock(),
	};
	return {
		schemes: ["http", "https"],
		open: (request) => new HttpInstance(parseHttpDownload(request), request.sessions, services),
	};
}

interface Services {
	readonly cache: HttpSourceOptions["cache"];
	readonly client: HttpClient;
	readonly maxBytes: number;
	/** By what is downloaded: who comes second finds the file of the first. */
	readonly lock: KeyedLock;
}

/** What the name stands for now. */
interface Resolved {
	readonly digest: Digest;
	readonly filename: string;
	readonly lastModified: Date | undefined;
	/** The record with the file; undefined while it has not been downloaded. */
	readonly id: RefId | undefined;
}

/** Metadata of records with downloads. */
const etagKey = "http.etag";
const checksumKey = "http.checksum";
const modifiedKey = "http.modtime";

/** The host under which clients offer streams of their own. */
const uploadHost = "buildkit-session";

/** BuildKit's. */
const maxChecksumSuffix = 4 * 1024;

/** Tags that fit in one request of any server. */
const maxTags = 20;

class HttpInstance implements SourceInstance {
	readonly #download: HttpDownload;
	readonly #sessions: () => readonly Session[];
	readonly #services: Services;
	readonly #index: string;
	#resolved: Resolved | undefined;

	constructor(download: HttpDownload, sessions: () => readonly Session[], services: Services) {
		this.#download = download;
		this.#sessions = sessions;
		this.#services = services;
		const { checksum: _, ...request } = download;
		this.#index = `http::${sha256(goJson(request))}`;
	}

	async cacheKey(
		_: number,
		options: SourceOptions,
	): Promise<{ readonly key: string; readonly last: boolean }> {
		const { checksum, url, filename } = this.#download;
		this.#resolved ??=
			checksum === undefined
				? await this.#locked(options, () => this.#ask(options))
				: {
						digest: checksum,
						filename: downloadName({ url, wanted: filename, contentDisposition: undefined }),
						lastModified: undefined,
						id: undefined,
					};
		return { key: cacheKeyOf(this.#download, this.#resolved), last: true };
	}

	async snapshot(options: SourceOptions): Promise<ImmutableRef> {
		return this.#locked(options, async () => {
			const wanted = this.#resolved?.digest ?? this.#download.checksum;
			const known = wanted === undefined ? undefined : await this.#find(wanted);
			if (known !== undefined) {
				return known;
			}
			const response = await this.#get({}, options);
			checkStatus(response, this.#download);
			const { ref } = await this.#save(response, wanted, options);
			return ref;
		});
	}

	/** Also a file whose checksum is given is asked for: the time is the server's to say. */
	async modified(options: SourceOptions): Promise<number | undefined> {
		const resolved = this.#resolved?.id === undefined ? undefined : this.#resolved;
		const { digest, lastModified } = resolved ?? (await this.#locked(options, () => this.#ask(options)));
		const { checksum, url } = this.#download;
		if (checksum !== undefined && checksum !== digest) {
			throw new SlipwayError(
				"failed-precondition",
				`failed to fetch ${redactUrl(url)}: digest mismatch: ${digest} (expected: ${checksum})`,
			);
		}
		return lastModified === undefined ? undefined : Math.floor(lastModified.getTime() / 1000);
	}

	async describe({ httpChecksum: wanted, ...options }: DescribeSourceOptions): Promise<SourceDescription> {
		if (wanted !== undefined && wanted.suffix.length > maxChecksumSuffix) {
			throw new SlipwayError(
				"invalid-argument",
				`http checksum request suffix exceeds max size ${maxChecksumSuffix}`,
			);
		}
		const resolved = await this.#locked(options, () => this.#ask(options));
		this.#resolved = resolved;
		const { digest, filename, lastModified } = resolved;
		return {
			http: {
				digest,
				filename,
				lastModified: lastModified === undefined ? undefined : Math.floor(lastModified.getTime() / 1000),
				...(wanted === undefined
					? {}
					: {
							checksum: {
								digest: await this.#checksum(filename, wanted, options),
								suffix: wanted.suffix,
							},
						}),
			},
		};
	}

	/** Of the file's bytes and what the client adds. */
	async #checksum(
		filename: string,
		{ algorithm, suffix }: NonNullable<DescribeSourceOptions["httpChecksum"]>,
		options: SourceOptions,
	): Promise<string> {
		await using ref = await this.snapshot(options);
		const [tree] = await ref.mounts(options);
		const hash = createHash(algorithm);
		for await (const chunk of createReadStream(join(tree?.source ?? "", filename), {
			highWaterMark: 1 << 20,
		})) {
			options.signal.throwIfAborted();
			hash.update(chunk as Buffer);
		}
		return `${algorithm}:${hash.update(suffix).digest("hex")}`;
	}

	#locked<T>({ signal }: SourceOptions, work: () => Promise<T>): Promise<T> {
		return this.#services.lock.run(this.#index, { signal }, work);
	}

	/** The file that this instance has downloaded, or one of an earlier build with these bytes. */
	async #find(wanted: Digest): Promise<ImmutableRef | undefined> {
		const { cache } = this.#services;
		const own = this.#resolved?.id;
		for (const id of own === undefined ? cache.search(this.#index) : [own, ...cache.search(this.#index)]) {
			const ref = await cache.get(id);
			if (ref?.getMetadata(checksumKey) === wanted) {
				return ref;
			}
			await ref?.release();
		}
		return undefined;
	}

	async #ask(options: SourceOptions): Promise<Resolved> {
		await using stack = new AsyncDisposableStack();
		// Held so that what the server says is unchanged cannot go meanwhile.
		const byTag = new Map<string, ImmutableRef>();
		for (const id of this.#services.cache.search(this.#index).slice(0, maxTags)) {
			const ref = await this.#services.cache.get(id);
			if (ref === undefined) {
				continue;
			}
			stack.use(ref);
			const tag = ref.getMetadata(etagKey);
			if (tag !== undefined && !byTag.has(tag) && isDigest(ref.getMetadata(checksumKey) ?? "")) {
				byTag.set(tag, ref);
			}
		}
		if (byTag.size === 0) {
			return this.#take(await this.#get({}, options), options);
		}
		// One condition only: some servers then leave the tag out of their answer.
		const [onlyTag] = byTag.size === 1 ? byTag.keys() : [];
		const conditional = { "if-none-match": [...byTag.keys()].join(", ") };
		const head = await this.#head(conditional, options);
		const unchanged = head === undefined ? undefined : byTag.get(tagOf(head, onlyTag) ?? "");
		if (head !== undefined && unchanged !== undefined) {
			return this.#describe(head, unchanged);
		}
		const response = await this.#get(conditional, options);
		if (response.status !== 304) {
			return this.#take(response, options);
		}
		response.discard();
		const tag = tagOf(response, onlyTag);
		const ref = byTag.get(tag ?? "");
		if (ref === undefined) {
			throw new SlipwayError(
				"failed-precondition",
				`failed to fetch ${redactUrl(this.#download.url)}: invalid not-modified ETag: ${tag ?? ""}`,
			);
		}
		return this.#describe(response, ref);
	}

	/** Many servers that send tags do not understand conditions, so tags are compared here first; a failure says nothing. */
	async #head(
		headers: Readonly<Record<string, string>>,
		options: SourceOptions,
	): Promise<HttpResponse | undefined> {
		let response: HttpResponse;
		try {
			response = await this.#request("HEAD", headers, options);
		} catch (thrown) {
			if (options.signal.aborted) {
				throw toError(thrown);
			}
			return undefined;
		}
		response.discard();
		return response.status === 200 || response.status === 304 ? response : undefined;
	}

	#get(headers: Readonly<Record<string, string>>, options: SourceOptions): Promise<HttpResponse> {
		return this.#request("GET", headers, options);
	}

	async #request(
		method: "GET" | "HEAD",
		headers: Readonly<Record<string, string>>,
		{ signal }: SourceOptions,
	): Promise<HttpResponse> {
		const url = new URL(this.#download.url);
		if (url.hostname === uploadHost) {
			return this.#upload(method, url, signal);
		}
		const authorization = await this.#authorization(url, signal);
		url.username = "";
		url.password = "";
		const own = this.#download.header.map(({ Name, Value }) => [Name.toLowerCase(), Value] as const);
		return this.#services.client.request({
			method,
			url,
			headers: {
				// Also on HEAD: tags differ by encoding.
				"accept-encoding": "gzip",
				...Object.fromEntries(own),
				...headers,
				...(authorization === undefined ? {} : { authorization }),
			},
			signal,
		});
	}

	/** A stream that a client holds ready, such as a build context from its standard input. It can be read once. */
	#upload(method: "GET" | "HEAD", { host, pathname }: URL, signal: AbortSignal): HttpResponse {
		const uploads = this.#sessions().find((session) => session.uploads !== undefined)?.uploads;
		if (method !== "GET" || uploads === undefined) {
			throw new SlipwayError("not-found", `no client of this build offers to upload ${this.#download.url}`);
		}
		const stopped = new AbortController();
		return {
			status: 200,
			header: () => undefined,
			body: uploads.pull({ host, path: pathname }, { signal: AbortSignal.any([signal, stopped.signal]) }),
			discard: () => stopped.abort(canceled()),
		};
	}

	async #authorization(url: URL, signal: AbortSignal): Promise<string | undefined> {
		const { authHeaderSecret } = this.#download;
		const sessions = this.#sessions();
		if (authHeaderSecret !== "") {
			const header = await findHeaderSecret(sessions, authHeaderSecret, { signal });
			if (header === undefined) {
				throw new SlipwayError(
					"not-found",
					`failed to retrieve HTTP auth secret ${authHeaderSecret}: the client has no secret of this name`,
				);
			}
			return header;
		}
		const token = await findHeaderSecret(sessions, `HTTP_AUTH_TOKEN_${url.hostname}`, { signal });
		if (token !== undefined) {
			return `Bearer ${token}`;
		}
		const header = await findHeaderSecret(sessions, `HTTP_AUTH_HEADER_${url.hostname}`, { signal });
		if (header !== undefined || (url.username === "" && url.password === "")) {
			return header;
		}
		const login = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
		return `Basic ${Buffer.from(login).toString("base64")}`;
	}

	async #take(response: HttpResponse, options: SourceOptions): Promise<Resolved> {
		checkStatus(response, this.#download);
		const { ref, digest } = await this.#save(response, undefined, options);
		await ref.release();
		return {
			digest,
			filename: this.#nameFor(response),
			lastModified: parseHttpDate(response.header("last-modified")),
			id: ref.id,
		};
	}

	#describe(response: HttpResponse, ref: ImmutableRef): Resolved {
		return {
			digest: ref.getMetadata(checksumKey) as Digest,
			filename: this.#nameFor(response),
			lastModified: parseHttpDate(ref.getMetadata(modifiedKey)),
			id: ref.id,
		};
	}

	#nameFor(response: HttpResponse): string {
		const { url, filename } = this.#download;
		return downloadName({
			url,
			wanted: filename,
			contentDisposition: response.header("content-disposition"),
		});
	}

	async #save(
		response: HttpResponse,
		wanted: Digest | undefined,
		options: SourceOptions,
	): Promise<{ readonly ref: ImmutableRef; readonly digest: Digest }> {
		const { cache, maxBytes } = this.#services;
		const { ref, digest } = await saveDownload(response, {
			cache,
			download: this.#download,
			filename: this.#nameFor(response),
			wanted,
			maxBytes,
			...options,
		});
		ref.setMetadata(checksumKey, digest);
		ref.setMetadata(modifiedKey, response.header("last-modified"));
		const tag = response.header("etag");
		if (tag !== undefined) {
			ref.setMetadata(etagKey, strongTag(tag));
			ref.setIndex(this.#index);
		}
		return { ref, digest };
	}
}

/** BuildKit's key, so that caches travel: SHA-256 of the JSON of a Go structure. */
function cacheKeyOf(download: HttpDownload, { digest, filename, lastModified }: Resolved): string {
	const { perm, uid, gid, authHeaderSecret, header } = download;
	return sha256(
		goJson({
			Filename: filename,
			Perm: perm,
			UID: uid,
			GID: gid,
			Checksum: digest,
			LastModTime: lastModified === undefined ? undefined : formatHttpDate(lastModified),
			AuthHeaderSecret: authHeaderSecret || undefined,
			Header: header.length === 0 ? undefined : header,
		}),
	);
}

function checkStatus(response: HttpResponse, { url }: HttpDownload): void {
	const { status } = response;
	// Not modified since nothing: there was no condition.
	if (status >= 200 && status < 400 && status !== 304) {
		return;
	}
	response.discard();
	throw new SlipwayError(
		status === 404 || status === 410
			? "not-found"
			: status === 401
				? "unauthenticated"
				: status === 403
					? "permission-denied"
					: status >= 500
						? "unavailable"
						: "unknown",
		`failed to fetch ${redactUrl(url)}: invalid response status ${status}`,
	);
}

function tagOf(response: HttpResponse, onlyTag: string | undefined): string | undefined {
	const tag = response.header("etag");
	return tag === undefined ? (response.status === 304 ? onlyTag : undefined) : strongTag(tag);
}

function strongTag(tag: string): string {
	return tag.replace(/^W\//, "");
}
