import { createHash, createHmac, hash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** For tests: services on loopback that check who asks as the real ones do, and keep objects in memory. */
export interface FakeCloud extends AsyncDisposable {
	readonly url: string;
	readonly objects: Map<string, StoredObject>;
	/** `METHOD path?query` of each request. */
	readonly requests: string[];
}

export interface StoredObject {
	bytes: Buffer;
	modified: Date;
}

interface Request {
	readonly method: string;
	readonly url: URL;
	readonly headers: IncomingMessage["headers"];
	readonly body: Buffer;
}

interface Answer {
	readonly status: number;
	readonly headers?: Readonly<Record<string, string>>;
	readonly body?: Buffer | string;
}

async function serve(
	answer: (request: Request, cloud: FakeCloud) => Answer | Promise<Answer>,
): Promise<FakeCloud> {
	const objects = new Map<string, StoredObject>();
	const requests: string[] = [];
	const server = createServer((incoming, outgoing) => {
		void respond(incoming, outgoing).catch((error: unknown) => {
			outgoing.writeHead(500).end(String(error));
		});
	});
	async function respond(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
		const chunks: Buffer[] = [];
		for await (const chunk of incoming) {
			chunks.push(chunk as Buffer);
		}
		const { method = "", headers } = incoming;
		requests.push(`${method} ${incoming.url}`);
		const url = new URL(incoming.url ?? "/", cloud.url);
		const {
			status,
			headers: more,
			body,
		} = await answer({ method, url, headers, body: Buffer.concat(chunks) }, cloud);
		outgoing.writeHead(status, { "content-length": String(Buffer.byteLength(body ?? "")), ...more });
		outgoing.end(method === "HEAD" ? undefined : body);
	}
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	const cloud: FakeCloud = {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
		objects,
		requests,
		async [Symbol.asyncDispose]() {
			server.closeAllConnections();
			await new Promise((resolve) => server.close(resolve));
		},
	};
	return cloud;
}

function stored(object: StoredObject, range: string | undefined): Answer {
	const { bytes, modified } = object;
	const headers = { "last-modified": modified.toUTCString(), etag: `"${hash("md5", bytes)}"` };
	const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range ?? "") ?? [];
	if (first === undefined) {
		return { status: 200, headers: { ...headers, "content-length": String(bytes.length) }, body: bytes };
	}
	const part = bytes.subarray(Number(first), last === "" ? undefined : Number(last) + 1);
	const contentRange = `bytes ${first}-${Number(first) + part.length - 1}/${bytes.length}`;
	return {
		status: 206,
		headers: { ...headers, "content-range": contentRange, "content-length": String(part.length) },
		body: part,
	};
}

export const s3Login = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "s3cr3t/key" };

/** S3 with paths in the style of `/bucket/key` (AWS Signature Version 4). */
export function startFakeS3(): Promise<FakeCloud> {
	const uploads = new Map<string, Map<number, Buffer>>();
	return serve((request, { objects }) => {
		const { method, url, body, headers } = request;
		const wrong = checkS3Signature(request);
		if (wrong !== undefined) {
			return {
				status: 403,
				body: `<Error><Code>SignatureDoesNotMatch</Code><Message>${wrong}</Message></Error>`,
			};
		}
		const key = decodeURIComponent(url.pathname);
		const upload = url.searchParams.get("uploadId");
		const found = objects.get(key);
		const notFound = {
			status: 404,
			body: "<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>",
		};
		if (method === "POST" && url.searchParams.has("uploads")) {
			const id = String(uploads.size + 1);
			uploads.set(id, new Map());
			return {
				status: 200,
				body: `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
			};
		}
		if (upload !== null) {
			const parts = uploads.get(upload);
			if (method === "PUT") {
				parts?.set(Number(url.searchParams.get("partNumber")), body);
				return { status: 200, headers: { etag: `"${hash("md5", body)}"` } };
			}
			if (method === "POST") {
				const whole = Buffer.concat([...(parts ?? [])].sort(([a], [b]) => a - b).map(([, part]) => part));
				objects.set(key, { bytes: whole, modified: new Date() });
				return {
					status: 200,
					body: "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
				};
			}
			uploads.delete(upload);
			return { status: 204 };
		}
		if (method === "PUT") {
			const source = headers["x-amz-copy-source"];
			const bytes = typeof source === "string" ? objects.get(`/${decodeURIComponent(source)}`)?.bytes : body;
			if (bytes === undefined) {
				return notFound;
			}
			objects.set(key, { bytes, modified: new Date() });
			return source === undefined
				? { status: 200, headers: { etag: `"${hash("md5", bytes)}"` } }
				: { status: 200, body: "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>" };
		}
		return found === undefined ? notFound : stored(found, headers.range);
	});
}

function hmac(key: string | Buffer, text: string): Buffer {
	return createHmac("sha256", key).update(text).digest();
}

function checkS3Signature({ method, url, headers, body }: Request): string | undefined {
	const parts =
		/^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
			headers.authorization ?? "",
		);
	if (parts === null) {
		return "no signature";
	}
	const [, id, day = "", region = "", names = "", signature] = parts;
	const payload = String(headers["x-amz-content-sha256"]);
	if (id !== s3Login.accessKeyId || (payload !== "UNSIGNED-PAYLOAD" && payload !== hash("sha256", body))) {
		return "another key or body";
	}
	const encode = (text: string): string =>
		encodeURIComponent(text).replace(
			/[!'()*]/g,
			(each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`,
		);
	const query = [...url.searchParams].map(([name, value]) => `${encode(name)}=${encode(value)}`).sort();
	const lines = names.split(";").map((name) => `${name}:${String(headers[name] ?? "").trim()}\n`);
	const canonical = [method, url.pathname, query.join("&"), lines.join(""), names, payload].join("\n");
	const time = String(headers["x-amz-date"]);
	const toSign = `AWS4-HMAC-SHA256\n${time}\n${day}/${region}/s3/aws4_request\n${hash("sha256", canonical)}`;
	const key = hmac(hmac(hmac(hmac(`AWS4${s3Login.secretAccessKey}`, day), region), "s3"), "aws4_request");
	return hmac(key, toSign).toString("hex") === signature ? undefined : "another signature";
}

export const azureLogin: { readonly account: string; readonly key: string } = {
	account: "testaccount",
	key: Buffer.from("a key of Azure").toString("base64"),
};

/** Azure Blob Storage with paths in the style of `/account/container/blob` (Shared Key). */
export function startFakeAzure(): Promise<FakeCloud> {
	const blocks = createBlocks();
	return serve((request, cloud) => {
		if (!checkAzureSignature(request)) {
			return azureError(403, "AuthenticationFailed");
		}
		const { method, url, headers } = request;
		if (url.searchParams.get("restype") === "container") {
			const isThere = cloud.objects.has(url.pathname);
			if (method === "PUT") {
				cloud.objects.set(url.pathname, { bytes: Buffer.alloc(0), modified: new Date() });
				return { status: 201 };
			}
			return isThere ? { status: 200 } : azureError(404, "ContainerNotFound");
		}
		const container = url.pathname.split("/").slice(0, 3).join("/");
		if (!cloud.objects.has(container)) {
			return azureError(404, "ContainerNotFound");
		}
		if (method === "PUT") {
			return blocks(request, cloud);
		}
		const found = cloud.objects.get(decodeURIComponent(url.pathname));
		const range = headers["x-ms-range"] ?? headers.range;
		return found === undefined
			? azureError(404, "BlobNotFound")
			: stored(found, typeof range === "string" ? range : undefined);
	});
}

function azureError(status: number, code: string): Answer {
	return {
		status,
		headers: { "x-ms-error-code": code, "content-type": "application/xml" },
		body: `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code} here</Message></Error>`,
	};
}

/** BuildKit's client of Azure relies on it. */
const requestId = { "x-ms-request-id": "1" };

/** Put Blob, Put Block, Put Block List. */
function createBlocks(): (request: Request, cloud: FakeCloud) => Answer {
	const staged = new Map<string, Buffer>();
	return ({ url, headers, body }, { objects }) => {
		const key = decodeURIComponent(url.pathname);
		const part = url.searchParams.get("comp");
		if (part === "block") {
			staged.set(`${key} ${url.searchParams.get("blockid")}`, body);
			return { status: 201, headers: requestId };
		}
		if (headers["if-none-match"] === "*" && objects.has(key)) {
			return azureError(409, "BlobAlreadyExists");
		}
		const ids = [...body.toString().matchAll(/<Latest>([^<]+)<\/Latest>/g)].map(([, id]) => id);
		const bytes =
			part === "blocklist"
				? Buffer.concat(ids.map((id) => staged.get(`${key} ${id}`) ?? Buffer.alloc(0)))
				: body;
		objects.set(key, { bytes, modified: new Date() });
		return { status: 201, headers: { ...requestId, etag: '"1"', "last-modified": new Date().toUTCString() } };
	};
}

function checkAzureSignature({ method, url, headers }: Request): boolean {
	const one = (name: string): string => String(headers[name] ?? "");
	const length = one("content-length");
	const own = Object.keys(headers)
		.filter((name) => name.startsWith("x-ms-"))
		.sort()
		.map((name) => `${name}:${one(name)}\n`);
	const query = [...url.searchParams].sort(([a], [b]) => (a < b ? -1 : 1));
	const resource = `/${azureLogin.account}${url.pathname}${query.map(([name, value]) => `\n${name}:${value}`).join("")}`;
	const toSign = `${[
		method,
		one("content-encoding"),
		one("content-language"),
		length === "0" ? "" : length,
		one("content-md5"),
		one("content-type"),
		one("date"),
		one("if-modified-since"),
		one("if-match"),
		one("if-none-match"),
		one("if-unmodified-since"),
		one("range"),
	].join("\n")}\n${own.join("")}${resource}`;
	const signature = createHmac("sha256", Buffer.from(azureLogin.key, "base64"))
		.update(toSign)
		.digest("base64");
	return headers.authorization === `SharedKey ${azureLogin.account}:${signature}`;
}

/** A token as GitHub's runners have it, for a branch that may be written and one that may be read. */
export function ghaToken(expiresAt: number = Date.now() / 1000 + 3600): string {
	const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
	const ac = JSON.stringify([
		{ Scope: "refs/heads/main", Permission: 1 },
		{ Scope: "refs/heads/topic", Permission: 3 },
	]);
	return `${part({ alg: "RS256" })}.${part({ ac, exp: expiresAt, nbf: 0 })}.${createHash("sha256").digest("base64url")}`;
}

/** GitHub's cache service in both of its forms; entries are immutable and found by prefix, newest first. */
export function startFakeGha(token: string): Promise<FakeCloud> {
	const blocks = createBlocks();
	const reserved: { readonly key: string; readonly parts: Buffer[] }[] = [];
	const committed: string[] = [];
	const busy = new Set<string>();
	let refusals = 1;
	return serve((request, cloud) => {
		const { method, url, headers, body } = request;
		const { objects } = cloud;
		if (url.pathname.startsWith("/store/")) {
			if (headers.authorization !== undefined) {
				return { status: 400, body: "the token is not for here" };
			}
			if (url.searchParams.get("sig") !== "signed") {
				return azureError(403, "AuthenticationFailed");
			}
			const found = objects.get(decodeURIComponent(url.pathname));
			return method === "PUT"
				? blocks(request, cloud)
				: found === undefined
					? azureError(404, "BlobNotFound")
					: stored(found, headers.range);
		}
		if (headers.authorization !== `Bearer ${token}`) {
			return { status: 401, body: '{"message":"unauthorized"}' };
		}
		if (refusals > 0) {
			refusals--;
			return { status: 429, headers: { "retry-after": "0" }, body: "{}" };
		}
		const json =
			body.length > 0 && headers["content-type"] === "application/json" ? JSON.parse(body.toString()) : {};
		const placeOf = (key: string): string => `/store/${encodeURIComponent(key)}`;
		const signed = (key: string): string => `${cloud.url}${placeOf(key)}?sig=signed`;
		const newest = (prefix: string): string | undefined =>
			committed.findLast((key) => key.startsWith(prefix));
		const reserve = (key: string): boolean => {
			if (committed.includes(key) || busy.has(key)) {
				return false;
			}
			busy.add(key);
			return true;
		};
		const ok = (value: object): Answer => ({ status: 200, body: JSON.stringify(value) });
		switch (url.pathname.replace(/^\/twirp\/github\.actions\.results\.api\.v1\.CacheService\//, "v2 ")) {
			case "v2 CreateCacheEntry":
				return reserve(json.key)
					? ok({ ok: true, signed_upload_url: signed(json.key) })
					: { status: 409, body: '{"code":"already_exists","msg":"cache entry already exists"}' };
			case "v2 FinalizeCacheEntryUpload":
				committed.push(json.key);
				return ok({
					ok: objects.get(decodeURIComponent(placeOf(json.key)))?.bytes.length === json.size_bytes,
				});
			case "v2 GetCacheEntryDownloadURL": {
				const found = newest(json.restore_keys[0]);
				return found === undefined
					? ok({ ok: false })
					: ok({ ok: true, signed_download_url: signed(found), matched_key: found });
			}
			case "/_apis/artifactcache/cache": {
				const found = newest(url.searchParams.get("keys") ?? "");
				return found === undefined
					? { status: 204 }
					: ok({ cacheKey: found, scope: "x", archiveLocation: signed(found) });
			}
			case "/_apis/artifactcache/caches":
				return reserve(json.key)
					? ok({ cacheId: reserved.push({ key: json.key, parts: [] }) })
					: {
							status: 409,
							body: '{"typeKey":"ArtifactCacheItemAlreadyExistsException","message":"Cache already exists."}',
						};
		}
		const entry = reserved[Number(url.pathname.split("/").at(-1)) - 1];
		if (entry === undefined) {
			return { status: 404, body: "{}" };
		}
		if (method === "PATCH") {
			const start = Number(/^bytes (\d+)-/.exec(String(headers["content-range"]))?.[1]);
			if (start !== entry.parts.reduce((sum, part) => sum + part.length, 0)) {
				return { status: 400, body: '{"message":"gap"}' };
			}
			entry.parts.push(body);
			return { status: 204 };
		}
		const bytes = Buffer.concat(entry.parts);
		objects.set(decodeURIComponent(placeOf(entry.key)), { bytes, modified: new Date() });
		committed.push(entry.key);
		return bytes.length === json.size ? { status: 204 } : { status: 400, body: '{"message":"size"}' };
	});
}
