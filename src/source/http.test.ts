import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { type CacheFixture, openFixture } from "../cache/cache-fixture.ts";
import { SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import type { Session } from "../session/session.ts";
import { createHttpSource, type HttpSourceOptions } from "./http.ts";
import type { Source } from "./source.ts";
import { fakeSession, recordingOptions, startServer } from "./source-fixture.ts";

const modified = "Wed, 21 Oct 2015 07:28:00 GMT";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

interface World {
	readonly fixture: CacheFixture;
	readonly url: string;
	/** What was asked, `GET /x`. */
	readonly requests: { readonly line: string; readonly headers: IncomingMessage["headers"] }[];
	readonly source: Source;
}

async function withServer(
	handle: Handler,
	body: (world: World) => Promise<void>,
	options: Omit<HttpSourceOptions, "cache"> = {},
): Promise<void> {
	const requests: World["requests"] = [];
	await using fixture = await openFixture("native");
	await using server = await startServer((request, response) => {
		requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
		handle(request, response);
	});
	await body({
		fixture,
		requests,
		url: server.url,
		source: createHttpSource({ cache: fixture.cache, ...options }),
	});
}

/** The key, and the tree as `name mode uid:gid mtime content`. */
async function fetchFile(
	{ source, fixture }: World,
	identifier: string,
	attrs: Record<string, string> = {},
	sessions: readonly Session[] = [],
): Promise<{ readonly key: string; readonly tree: string[] }> {
	const instance = source.open({ identifier, attrs, platform: undefined, sessions: () => sessions });
	const options = recordingOptions();
	const { key, last } = await instance.cacheKey(0, options);
	assert.equal(last, true);
	await using ref = await instance.snapshot(options);
	assert.ok(ref !== undefined);
	const tree = await fixture.read(ref, (dir) =>
		readdirSync(dir).map((name) => {
			const path = `${dir}/${name}`;
			const { mode, uid, gid, mtimeMs } = statSync(path);
			return `${name} ${(mode & 0o7777).toString(8)} ${uid}:${gid} ${mtimeMs / 1000} ${readFileSync(path)}`;
		}),
	);
	return { key, tree };
}

const keyOf = (json: string): string => sha256(json);

async function rejects(work: Promise<unknown>, code: string, message: RegExp | string): Promise<void> {
	await assert.rejects(work, (thrown) => {
		assert.ok(thrown instanceof SlipwayError, String(thrown));
		if (typeof message === "string") {
			assert.equal(thrown.message, message);
		} else {
			assert.match(thrown.message, message);
		}
		assert.equal(thrown.code, code);
		return true;
	});
}

test("http: a file with BuildKit's key, mode, owner and time", async () => {
	await withServer(
		(_, response) => response.setHeader("Last-Modified", modified).end("content"),
		async (world) => {
			const { url } = world;
			const checksum = sha256("content");
			const first = await fetchFile(world, `${url}/dir/a%20b.txt?x=1#y`);
			assert.deepEqual(first.tree, ["a b.txt 600 0:0 1445412480 content"]);
			assert.equal(
				first.key,
				keyOf(
					`{"Filename":"a b.txt","Perm":0,"UID":0,"GID":0,"Checksum":"${checksum}","LastModTime":"${modified}"}`,
				),
			);
			const second = await fetchFile(world, `${url}/`, {
				"http.filename": "../run.sh",
				"http.perm": "0755",
				"http.uid": "12",
				"http.gid": "0x22",
				"http.header.accept": "text/plain",
				"http.header.User-Agent": "me",
				"http.header.cookie": "dropped",
			});
			assert.deepEqual(second.tree, ["run.sh 755 12:34 1445412480 content"]);
			assert.equal(
				second.key,
				keyOf(
					`{"Filename":"run.sh","Perm":493,"UID":12,"GID":34,"Checksum":"${checksum}","LastModTime":"${modified}",` +
						`"Header":[{"Name":"Accept","Value":"text/plain"},{"Name":"User-Agent","Value":"me"}]}`,
				),
			);
			const { headers } = world.requests.at(-1) ?? {};
			assert.deepEqual(
				[headers?.accept, headers?.["user-agent"], headers?.cookie],
				["text/plain", "me", undefined],
			);
			// The file was fetched for the key, and only then.
			assert.equal(world.requests.length, 2);
		},
	);
});

test("http: a file whose ETag is the same is not fetched again; by HEAD, and by a 304 where HEAD is refused", async () => {
	let tag = 'W/"one"';
	let allowHead = true;
	await withServer(
		(request, response) => {
			if (request.method === "HEAD" && !allowHead) {
				response.writeHead(405).end();
			} else if (request.headers["if-none-match"]?.includes(tag.replace("W/", "")) && !allowHead) {
				// No tag in the answer.
				response.writeHead(304).end();
			} else {
				response.setHeader("ETag", tag).end(`content of ${tag}`);
			}
		},
		async (world) => {
			const file = `${world.url}/file`;
			const first = await fetchFile(world, file);
			assert.deepEqual(await fetchFile(world, file), first);
			allowHead = false;
			assert.deepEqual(await fetchFile(world, file), first);
			const lines = () => world.requests.splice(0).map(({ line }) => line.split(" ")[0]);
			assert.deepEqual(lines(), ["GET", "HEAD", "HEAD", "GET"]);
			// Other attributes make another file.
			await fetchFile(world, file, { "http.perm": "0644" });
			assert.deepEqual(lines(), ["GET"]);
			tag = '"two"';
			allowHead = true;
			const third = await fetchFile(world, file);
			assert.notEqual(third.key, first.key);
			assert.deepEqual(third.tree, ['file 600 0:0 0 content of "two"']);
			assert.deepEqual(lines(), ["HEAD", "GET"]);
			tag = '"one"';
			assert.deepEqual(await fetchFile(world, file), first);
			assert.equal(world.requests.at(-1)?.headers["if-none-match"], '"two", "one"');
			assert.deepEqual(lines(), ["HEAD"]);
		},
	);
});

test("http: with a checksum the key needs no request, and known bytes none at all", async () => {
	const checksum = sha256("content");
	await withServer(
		(_, response) => response.setHeader("ETag", '"x"').end("content"),
		async (world) => {
			const file = `${world.url}/file`;
			const instance = world.source.open({
				identifier: file,
				attrs: { "http.checksum": checksum },
				platform: undefined,
				sessions: () => [],
			});
			const { key } = await instance.cacheKey(0, recordingOptions());
			assert.equal(key, keyOf(`{"Filename":"file","Perm":0,"UID":0,"GID":0,"Checksum":"${checksum}"}`));
			assert.equal(world.requests.length, 0);
			for (let times = 0; times < 2; times++) {
				await fetchFile(world, file, { "http.checksum": checksum });
				assert.equal(world.requests.length, 1);
			}
			const sha512 = `sha512:${createHash("sha512").update("content").digest("hex")}`;
			await fetchFile(world, file, { "http.checksum": sha512 });
			const wrong = sha256("other");
			await rejects(
				fetchFile(world, file, { "http.checksum": wrong }),
				"failed-precondition",
				`failed to fetch ${file}: digest mismatch ${checksum}: ${wrong}`,
			);
			await rejects(
				fetchFile(world, file, { "http.checksum": "md5:1" }),
				"invalid-argument",
				'invalid digest "md5:1"',
			);
		},
	);
});

test("http: the name of the file", async () => {
	const cases: readonly (readonly [string | undefined, string, string])[] = [
		[undefined, "/", "download"],
		[undefined, "/a/b/", "b"],
		[undefined, "/a%0ab", "download"],
		['attachment; filename="/etc/x y.sh"', "/a", "x y.sh"],
		["attachment; filename=plain; filename*=UTF-8''na%C3%AFve", "/a", "naïve"],
		["attachment; filename*0=one; filename*1*=%20two", "/a", "one two"],
		['attachment; filename="naïve"', "/a", "naïve"],
		["attachment; filename=..", "/a", "download"],
		["attachment; filename=dir/", "/a", "a"],
		["attachment; filename=a b", "/a", "a"],
		["attachment; nothing", "/a", "a"],
		["attachment; filename=a; filename=b", "/url", "url"],
	];
	const byPath = new Map(cases.map(([header, path], at) => [`${path}?${at}`, header]));
	await withServer(
		(request, response) => {
			const header = byPath.get(request.url ?? "");
			if (header !== undefined) {
				response.setHeader("Content-Disposition", Buffer.from(header).toString("latin1"));
			}
			response.end("x");
		},
		async (world) => {
			for (const [at, [header, path, expected]] of cases.entries()) {
				const { tree } = await fetchFile(world, `${world.url}${path}?${at}`);
				assert.deepEqual(tree, [`${expected} 600 0:0 0 x`], `${header} ${path}`);
			}
		},
	);
});

test("http: secrets become headers, and stay with the server they are for", async () => {
	await withServer(
		(request, response) => {
			if (request.url === "/away") {
				const { port } = new URL(`http://${request.headers.host}`);
				response.writeHead(302, { Location: `http://localhost:${port}/there` }).end();
			} else if (request.url === "/home") {
				response.writeHead(307, { Location: "/there" }).end();
			} else {
				response.end(request.headers.authorization ?? "anonymous");
			}
		},
		async (world) => {
			const get = async (
				path: string,
				secrets: Record<string, string>,
				attrs: Record<string, string> = {},
			): Promise<string> => {
				const { tree } = await fetchFile(world, `${world.url}${path}`, attrs, [
					fakeSession({}),
					fakeSession({ secrets }),
				]);
				return tree.join().replace(/^\S+ 600 0:0 0 /, "");
			};
			const token = { "HTTP_AUTH_TOKEN_127.0.0.1": "t0ken\n" };
			assert.equal(await get("/x", {}), "anonymous");
			assert.equal(await get("/x", token), "Bearer t0ken");
			assert.equal(await get("/x", { "HTTP_AUTH_HEADER_127.0.0.1": "Basic abc" }), "Basic abc");
			assert.equal(await get("/home", token), "Bearer t0ken");
			assert.equal(await get("/away", token), "anonymous");
			assert.equal(await get("/x", { mine: "Own x" }, { "http.authheadersecret": "mine" }), "Own x");
			await rejects(
				get("/x", token, { "http.authheadersecret": "mine" }),
				"not-found",
				"failed to retrieve HTTP auth secret mine: the client has no secret of this name",
			);
			await rejects(
				get("/x", { "HTTP_AUTH_TOKEN_127.0.0.1": "a\r\nEvil: 1" }),
				"invalid-argument",
				"secret HTTP_AUTH_TOKEN_127.0.0.1 has characters that no header may have",
			);
			const { tree } = await fetchFile(world, `${world.url.replace("//", "//u:p%40@")}/x`);
			assert.deepEqual(tree, [`x 600 0:0 0 Basic ${Buffer.from("u:p@").toString("base64")}`]);
		},
	);
});

test("http: gzip of the transfer is undone, as by Go's client", async () => {
	await withServer(
		(request, response) => {
			assert.equal(request.headers["accept-encoding"], "gzip");
			response
				.setHeader("Content-Encoding", "gzip")
				.end(request.url === "/bad" ? "no gzip" : gzipSync("plain"));
		},
		async (world) => {
			assert.deepEqual((await fetchFile(world, `${world.url}/x`)).tree, ["x 600 0:0 0 plain"]);
			await rejects(
				fetchFile(world, `${world.url}/bad`),
				"unknown",
				/^failed to fetch .*\/bad: incorrect header/,
			);
		},
	);
});

test("http: a server that lies about lengths, never ends, or answers nonsense", {
	timeout: 30_000,
}, async () => {
	const handlers: Readonly<Record<string, Handler>> = {
		"/short": (_, response) => {
			response.writeHead(200, { "Content-Length": "100" });
			response.write("few", () => response.socket?.end());
		},
		"/cut": (_, response) => {
			response.write("first chunk", () => response.socket?.destroy());
		},
		"/announced": (_, response) => response.writeHead(200, { "Content-Length": "9000000" }).write("x"),
		"/endless": (_, response) => {
			const more = (): void => {
				if (!response.destroyed) {
					response.write("x".repeat(4096), () => setImmediate(more));
				}
			};
			more();
		},
		"/bomb": (_, response) =>
			response.setHeader("Content-Encoding", "gzip").end(gzipSync(Buffer.alloc(3 << 20))),
		"/stalls": (_, response) => response.writeHead(200, { "Content-Length": "100" }).write("x"),
		"/silent": () => {},
		"/loop": (_, response) => response.writeHead(301, { Location: "/loop" }).end(),
		"/nowhere": (_, response) => response.writeHead(302).end(),
		"/file": (_, response) => response.writeHead(302, { Location: "file:///etc/passwd" }).end(),
		"/unasked": (_, response) => response.writeHead(304).end(),
		"/gone": (_, response) => response.writeHead(404).end("x"),
		"/broken": (_, response) => response.writeHead(500).end("x"),
	};
	await withServer(
		(request, response) => handlers[request.url?.split("?")[0] ?? ""]?.(request, response),
		async (world) => {
			const cases: readonly (readonly [string, string, RegExp])[] = [
				["/short", "unavailable", /ended the connection before the end of the file$/],
				["/cut", "unavailable", /ended the connection before the end of the file$/],
				["/announced", "resource-exhausted", /: the file is larger than the limit of 1048576 bytes$/],
				["/endless", "resource-exhausted", /: the file is larger than the limit of 1048576 bytes$/],
				["/bomb", "resource-exhausted", /: the file is larger than the limit of 1048576 bytes$/],
				["/loop", "unavailable", /: stopped after 10 redirects$/],
				["/nowhere", "unavailable", /: redirect \(302\) without a location$/],
				["/file", "unavailable", /: redirect to what is no http URL$/],
				["/unasked", "unknown", /: invalid response status 304$/],
				["/gone", "not-found", /: invalid response status 404$/],
				["/broken", "unavailable", /: invalid response status 500$/],
			];
			const slow: typeof cases = [
				["/stalls", "deadline-exceeded", /127\.0\.0\.1:\d+ stopped sending$/],
				["/silent", "deadline-exceeded", /127\.0\.0\.1:\d+ did not answer in time$/],
			];
			const impatient = createHttpSource({ cache: world.fixture.cache, stallTimeoutMs: 300 });
			await Promise.all(
				[...cases, ...slow].map(([path, code, message], at) =>
					rejects(
						fetchFile(
							at < cases.length ? world : { ...world, source: impatient },
							`${world.url.replace("//", "//user:secret@")}${path}?key=hidden`,
						),
						code,
						new RegExp(`^failed to fetch http://(?:xxxxx:xxxxx@)?127[^ ]*\\?key=xxxxx.*${message.source}`),
					),
				),
			);
			// Nothing of them is left.
			assert.deepEqual(await world.fixture.cache.usage({ signal: world.fixture.signal }), []);
		},
		{ maxBytes: 1 << 20 },
	);
});

test("http: cancelling a download ends it and leaves nothing", async () => {
	const controller = new AbortController();
	await withServer(
		(_, response) => {
			response.write("x");
			controller.abort(new SlipwayError("canceled", "enough"));
		},
		async ({ source, url, fixture }) => {
			const instance = source.open({
				identifier: `${url}/x`,
				attrs: {},
				platform: undefined,
				sessions: () => [],
			});
			await rejects(instance.cacheKey(0, recordingOptions(controller.signal)), "canceled", "enough");
			assert.deepEqual(await fixture.cache.usage({ signal: fixture.signal }), []);
		},
	);
});

test("http: two that want one file at the same time download it once", async () => {
	await withServer(
		(_, response) => response.setHeader("ETag", '"x"').end("content"),
		async (world) => {
			await Promise.all([1, 2, 3].map(() => fetchFile(world, `${world.url}/x`)));
			assert.equal(world.requests.filter(({ line }) => line.startsWith("GET")).length, 1);
		},
	);
});

test("http: what cannot be asked for", async () => {
	await withServer(
		() => assert.fail("asked"),
		async ({ source }) => {
			const open = async (identifier: string, attrs: Record<string, string> = {}) =>
				source.open({ identifier, attrs, platform: undefined, sessions: () => [] });
			await rejects(open("http://"), "invalid-argument", 'invalid http source "http://"');
			await rejects(
				open("http://a/", { "http.perm": "0888" }),
				"invalid-argument",
				'invalid http.perm "0888", expected a number',
			);
			await rejects(
				open("http://a/", { "http.sig.pubkey": "x" }),
				"invalid-argument",
				"http signature verification requires both pubkey and signature",
			);
			await rejects(
				open("http://a/", { "http.sig.pubkey": "x", "http.sig.signature": "y" }),
				"unimplemented",
				/^verifying signatures of downloads/,
			);
		},
	);
});

test("http: a stream that a client uploads is taken once", async () => {
	await withServer(
		() => assert.fail("asked"),
		async (world) => {
			const upload = "http://buildkit-session/x";
			await rejects(
				fetchFile(world, upload),
				"not-found",
				`no client of this build offers to upload ${upload}`,
			);
			const pulled: string[] = [];
			const session = {
				secrets: { secret: async () => undefined },
				uploads: {
					async *pull({ host, path }: { readonly host: string; readonly path: string }) {
						pulled.push(host + path);
						yield Buffer.from("some ");
						yield Buffer.from("bytes");
					},
				},
			} as unknown as Session;
			const { tree } = await fetchFile(world, upload, {}, [session]);
			assert.deepEqual(tree, ["x 600 0:0 0 some bytes"]);
			assert.deepEqual(pulled, ["buildkit-session/x"]);
		},
	);
});
