import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { sha256 } from "../oci/digest.ts";

/**
 * A registry for tests, in this process on loopback: keeps what is pushed, asks for logins if told to, and lies where a test
 * wants it to. Not for anything else: it checks nothing that a client must not get wrong.
 */
export interface FakeRegistry extends AsyncDisposable {
	/** `127.0.0.1:port`. */
	readonly host: string;
	readonly blobs: Map<string, Uint8Array>;
	/** Keyed by `path:tag` and `path@digest`. */
	readonly manifests: Map<string, { readonly type: string; readonly bytes: Uint8Array }>;
	/** `GET /v2/… Bearer t1`, in order. */
	readonly log: string[];
	/** Answers a request itself by returning true. */
	lie:
		| ((request: IncomingMessage, response: ServerResponse, url: URL) => boolean | Promise<boolean>)
		| undefined;
	/** Every request needs this header; the challenge says how to get it. */
	auth:
		| { readonly accepts: (authorization: string | undefined) => boolean; readonly challenge: string }
		| undefined;
	addManifest(path: string, tag: string, type: string, document: object): { digest: string; size: number };
	addBlob(bytes: Uint8Array): { digest: string; size: number };
}

export async function startFakeRegistry(): Promise<FakeRegistry> {
	const uploads = new Map<string, Buffer>();
	let nextUpload = 1;
	const server = createServer((request, response) => {
		void handle(request, response).catch(() => response.destroy());
	});
	await new Promise<void>((resolve) => {
		server.listen(0, "127.0.0.1", resolve);
	});
	const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
	const registry: FakeRegistry = {
		host,
		blobs: new Map(),
		manifests: new Map(),
		log: [],
		lie: undefined,
		auth: undefined,
		addManifest(path, tag, type, document) {
			const bytes = Buffer.from(JSON.stringify(document));
			const digest = sha256(bytes);
			registry.manifests.set(`${path}:${tag}`, { type, bytes });
			registry.manifests.set(`${path}@${digest}`, { type, bytes });
			return { digest, size: bytes.length };
		},
		addBlob(bytes) {
			const digest = sha256(bytes);
			registry.blobs.set(digest, bytes);
			return { digest, size: bytes.length };
		},
		async [Symbol.asyncDispose]() {
			server.closeAllConnections();
			await new Promise((resolve) => {
				server.close(resolve);
			});
		},
	};

	async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
		const url = new URL(`http://${host}${request.url}`);
		const authorization = request.headers.authorization;
		registry.log.push(
			`${request.method} ${request.url}${authorization === undefined ? "" : ` ${authorization}`}`,
		);
		if (await registry.lie?.(request, response, url)) {
			return;
		}
		if (registry.auth !== undefined && !registry.auth.accepts(authorization)) {
			response.writeHead(401, { "www-authenticate": registry.auth.challenge }).end();
			return;
		}
		const [, path = "", kind, rest = ""] =
			/^\/v2\/(.+?)\/(manifests|blobs\/uploads|blobs)\/(.*)$/.exec(url.pathname) ?? [];
		if (kind === "manifests") {
			await manifest(request, response, path, rest);
		} else if (kind === "blobs") {
			blob(request, response, rest);
		} else if (kind === "blobs/uploads") {
			await upload(request, response, url, path, rest);
		} else {
			response.writeHead(404).end();
		}
	}

	async function manifest(
		request: IncomingMessage,
		response: ServerResponse,
		path: string,
		target: string,
	): Promise<void> {
		const key = target.includes(":") ? `${path}@${target}` : `${path}:${target}`;
		if (request.method === "PUT") {
			const bytes = await readAll(request);
			const stored = { type: request.headers["content-type"] ?? "", bytes };
			registry.manifests.set(key, stored);
			registry.manifests.set(`${path}@${sha256(bytes)}`, stored);
			response.writeHead(201, { "docker-content-digest": sha256(bytes) }).end();
			return;
		}
		const found = registry.manifests.get(key);
		if (found === undefined) {
			response.writeHead(404).end();
			return;
		}
		response.writeHead(200, {
			"content-type": found.type,
			"content-length": found.bytes.length,
			"docker-content-digest": sha256(found.bytes),
		});
		response.end(request.method === "HEAD" ? undefined : found.bytes);
	}

	function blob(request: IncomingMessage, response: ServerResponse, digest: string): void {
		const bytes = registry.blobs.get(digest);
		if (bytes === undefined) {
			response.writeHead(404).end();
			return;
		}
		const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
		if (from === undefined) {
			response.writeHead(200, { "content-length": bytes.length });
			response.end(request.method === "HEAD" ? undefined : bytes);
			return;
		}
		const part = bytes.subarray(Number(from), Number(to) + 1);
		response.writeHead(206, {
			"content-length": part.length,
			"content-range": `bytes ${from}-${to}/${bytes.length}`,
		});
		response.end(part);
	}

	async function upload(
		request: IncomingMessage,
		response: ServerResponse,
		url: URL,
		path: string,
		id: string,
	): Promise<void> {
		const mount = url.searchParams.get("mount");
		if (request.method === "POST") {
			if (mount !== null && registry.blobs.has(mount)) {
				response.writeHead(201).end();
				return;
			}
			const name = String(nextUpload++);
			uploads.set(name, Buffer.alloc(0));
			response.writeHead(202, { location: `/v2/${path}/blobs/uploads/${name}?state=x` }).end();
			return;
		}
		const sent = Buffer.concat([uploads.get(id) ?? Buffer.alloc(0), await readAll(request)]);
		if (request.method === "PATCH") {
			uploads.set(id, sent);
			response.writeHead(202, { location: `http://${host}/v2/${path}/blobs/uploads/${id}?state=y` }).end();
			return;
		}
		const digest = url.searchParams.get("digest");
		if (digest !== sha256(sent)) {
			response
				.writeHead(400)
				.end(JSON.stringify({ errors: [{ code: "DIGEST_INVALID", message: "no match" }] }));
			return;
		}
		registry.blobs.set(digest, sent);
		response.writeHead(201).end();
	}
	return registry;
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
	const parts: Buffer[] = [];
	for await (const part of request) {
		parts.push(part as Buffer);
	}
	return Buffer.concat(parts);
}
