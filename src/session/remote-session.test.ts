import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	statSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { duplexPair } from "node:stream";
import { after, test } from "node:test";
import type { Channel } from "../api/grpc.ts";
import { openChannel } from "../api/grpc-client.ts";
import { serve, serveGrpc } from "../api/grpc-server.ts";
import { control } from "../api/services/control.ts";
import { createThreadPool } from "../async/pool.ts";
import type { ContentReader } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { LocalSessionOptions } from "./local-session.ts";
import { directoryOutput, fileOutput } from "./outputs.ts";
import { acceptSession, type RemoteSession } from "./remote-session.ts";
import { serveSession } from "./serve-session.ts";
import type { SessionOutput } from "./session.ts";
import { createTokenAuthority } from "./token-authority.ts";

const pool = createThreadPool({ size: 1 });
const root = mkdtempSync(join(tmpdir(), "slipway-remote-"));
after(async () => {
	await pool[Symbol.asyncDispose]();
	rmSync(root, { recursive: true, force: true });
});
const never = new AbortController().signal;
const signal = never;

let counter = 0;
function directory(): string {
	const path = join(root, `d${counter++}`);
	mkdirSync(path);
	return path;
}

interface Both extends AsyncDisposable {
	readonly session: RemoteSession;
	readonly channel: Channel;
	readonly served: AsyncDisposable;
}

/** A client and a daemon in this process, with everything between them that there is in life but the network. */
async function connect(
	lends: Partial<LocalSessionOptions>,
	/** Told of bytes that come to the daemon; false breaks the connection. */
	passes: (bytes: number) => boolean = () => true,
): Promise<Both> {
	const accepted = Promise.withResolvers<RemoteSession>();
	const daemon = serveGrpc([
		serve(control.session, async (stream, call) => {
			call.sendHeaders();
			await using session = acceptSession(stream, { metadata: call.metadata, pool });
			accepted.resolve(session);
			broken = passes;
			await new Promise<void>((resolve) => {
				session.closed.addEventListener("abort", () => resolve());
				call.signal.addEventListener("abort", () => resolve());
			});
		}),
	]);
	let broken: (bytes: number) => boolean = () => true;
	const [a, b] = duplexPair();
	b.on("data", (chunk: Uint8Array) => {
		if (!broken(chunk.length)) {
			a.destroy();
			b.destroy();
		}
	});
	const running = daemon.accept(b);
	const channel = openChannel(a);
	const served = await serveSession(
		channel,
		{ id: "session-1", sharedKey: "key", directories: {}, pool, ...lends },
		{ signal },
	);
	return {
		session: await accepted.promise,
		channel,
		served,
		async [Symbol.asyncDispose]() {
			await served[Symbol.asyncDispose]();
			await channel[Symbol.asyncDispose]();
			await daemon[Symbol.asyncDispose]();
			await running;
		},
	};
}

function request(name: string, target: string) {
	return {
		name,
		target,
		includePatterns: [],
		excludePatterns: [],
		followPaths: [],
		differ: "metadata",
	} as const;
}

test("a session says who it is, what it offers, and that what it does not offer is not there", async () => {
	await using both = await connect({});
	const { session } = both;
	assert.equal(session.id, "session-1");
	assert.equal(session.sharedKey, "key");
	assert.ok(session.supports("/grpc.health.v1.Health/check"));
	assert.equal(session.supports("/moby.filesync.v1.FileSync/DiffCopy"), false);
	assert.equal(session.output(0), undefined);
	assert.equal(session.contentStore("x"), undefined);
	assert.equal(await session.auth.credentials("h", { signal }), undefined);
	assert.equal(await session.secrets.secret("s", { signal }), undefined);
	assert.equal(await session.ssh.agent("default", { uid: 0, gid: 0, mode: 0o600, signal }), undefined);
	await assert.rejects(session.files.sync(request("context", directory()), { signal }), {
		code: "not-found",
	});
});

test("files.sync copies what the patterns show, of names that no header can carry too", async () => {
	const [source, target] = [directory(), directory()];
	mkdirSync(join(source, "päth, with + %41"));
	writeFileSync(join(source, "päth, with + %41/file"), "1");
	writeFileSync(join(source, "plain,comma"), "2");
	writeFileSync(join(source, "other"), "3");
	symlinkSync("päth, with + %41/file", join(source, "link"));
	await using both = await connect({ directories: { cöntext: { path: source } } });
	const { files } = both.session;
	const progress: number[] = [];
	const { state, changed } = await files.sync(
		{ ...request("cöntext", target), followPaths: ["link"] },
		{ signal, onProgress: (bytes) => progress.push(bytes) },
	);
	assert.deepEqual(readdirSync(target).sort(), ["link", "päth, with + %41"]);
	assert.ok(progress.length > 0);
	assert.ok(changed.includes("link"));
	await files.sync(
		{ ...request("cöntext", target), includePatterns: ["plain,comma", "other"], previous: state },
		{ signal },
	);
	assert.deepEqual(readdirSync(target).sort(), ["other", "plain,comma"]);
	await files.sync({ ...request("cöntext", target), excludePatterns: ["*", "!pl*"] }, { signal });
	assert.deepEqual(readdirSync(target), ["plain,comma"]);
	await assert.rejects(files.sync(request("no", target), { signal }), (error: SlipwayError) => {
		assert.equal(error.code, "not-found");
		assert.equal(error.message, 'no access allowed to dir "no"');
		return true;
	});
});

test("an abort in the middle of a transfer ends it on both sides", async () => {
	const [source, target] = [directory(), directory()];
	for (let each = 0; each < 500; each++) {
		writeFileSync(join(source, `f${each}`), Buffer.alloc(10_000));
	}
	await using both = await connect({ directories: { context: { path: source } } });
	const aborted = new AbortController();
	await assert.rejects(
		both.session.files.sync(request("context", target), {
			signal: aborted.signal,
			onProgress: () => aborted.abort(new SlipwayError("canceled", "enough")),
		}),
		{ code: "canceled" },
	);
	// The session goes on.
	await both.session.files.sync(request("context", target), { signal });
	assert.equal(readdirSync(target).length, 500);
});

test("logins and secrets come from the client", async () => {
	await using both = await connect({
		auth: {
			credentials: async (host) =>
				host === "a"
					? { kind: "basic", username: "u", password: "p" }
					: host === "b"
						? { kind: "identity-token", token: "t" }
						: undefined,
		},
		secrets: { secret: async (id) => (id === "s" ? Buffer.from("\0secret") : undefined) },
	});
	const { auth, secrets } = both.session;
	assert.deepEqual(await auth.credentials("a", { signal }), {
		kind: "basic",
		username: "u",
		password: "p",
	});
	assert.deepEqual(await auth.credentials("b", { signal }), { kind: "identity-token", token: "t" });
	assert.equal(await auth.credentials("c", { signal }), undefined);
	assert.equal(auth.tokens, undefined);
	assert.equal(Buffer.from((await secrets.secret("s", { signal })) ?? []).toString(), "\0secret");
	assert.equal(await secrets.secret("t", { signal }), undefined);
});

test("a client that gets tokens itself proves that it has the login, and gives no more than tokens", async () => {
	const auth = {
		credentials: async () => ({ kind: "basic", username: "u", password: "p" }) as const,
	};
	const authority = createTokenAuthority({ auth, env: { DOCKER_CONFIG: directory() } });
	await using both = await connect({
		auth,
		tokenAuthority: {
			...authority,
			fetch: async ({ scopes }) => ({ token: scopes.join(), expiresInSeconds: 9 }),
		},
	});
	const { tokens } = both.session.auth;
	assert.ok(tokens !== undefined);
	const key = await tokens.authority("host", { signal });
	assert.ok(key !== undefined);
	assert.equal(await tokens.verify("host", key, { signal }), true);
	assert.equal(await tokens.verify("other", key, { signal }), false);
	const request = { host: "host", realm: "https://realm", service: "s", scopes: ["a", "b"] };
	assert.deepEqual(await tokens.fetch(request, { signal }), { token: "a,b", expiresInSeconds: 9 });
});

test("an agent of the client answers at a socket of the builder", async () => {
	const path = join(directory(), "agent.sock");
	await using echo = createServer((socket) => socket.pipe(socket)).listen(path);
	echo.unref();
	await using both = await connect({
		ssh: {
			agent: async (id) =>
				id === "default" ? { socketPath: path, [Symbol.asyncDispose]: async () => {} } : undefined,
		},
	});
	const owner = { uid: 0, gid: 0, mode: 0o640, signal };
	assert.equal(await both.session.ssh.agent("other", owner), undefined);
	{
		await using agent = await both.session.ssh.agent("", owner);
		assert.ok(agent !== undefined);
		assert.equal(statSync(agent.socketPath).mode & 0o777, 0o640);
		const socket = createConnection(agent.socketPath);
		socket.end(Buffer.alloc(1_000_000, "x"));
		let size = 0;
		for await (const chunk of socket) {
			size += (chunk as Buffer).length;
		}
		assert.equal(size, 1_000_000);
		assert.ok(existsSync(agent.socketPath));
	}
});

function digestOf(bytes: Uint8Array): Digest {
	return `sha256:${createHash("sha256").update(bytes).digest("hex")}` as Digest;
}

async function* chunksOf(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void> {
	for (let at = 0; at < bytes.length; at += size) {
		yield bytes.subarray(at, at + size);
	}
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
	const all: Uint8Array[] = [];
	for await (const chunk of chunks) {
		all.push(Buffer.from(chunk));
	}
	return Buffer.concat(all);
}

test("content stores are read, and take blobs", async () => {
	const blob = Buffer.alloc(3_000_000, "blob");
	const digest = digestOf(blob);
	const reader: ContentReader = {
		info: async (asked) => (asked === digest ? { digest, size: blob.length } : undefined),
		read: (asked, { offset = 0, length }) => {
			assert.equal(asked, digest);
			return chunksOf(blob.subarray(offset, length === undefined ? undefined : offset + length), 70_000);
		},
	};
	const taken = new Map<string, Buffer>();
	await using both = await connect({
		contentStores: { layout: reader },
		contentWriters: {
			"local:/cache": {
				has: async (asked) => taken.has(asked),
				async write(descriptor, chunks) {
					const bytes = await collect(chunks);
					if (digestOf(bytes) !== descriptor.digest) {
						throw new SlipwayError("data-loss", "wrong digest");
					}
					taken.set(descriptor.digest, bytes);
				},
			},
		},
	});
	const store = both.session.contentStore("layout");
	assert.ok(store !== undefined);
	assert.deepEqual(await store.info(digest), { digest, size: blob.length });
	const missing = digestOf(Buffer.from("missing"));
	assert.equal(await store.info(missing), undefined);
	assert.ok((await collect(store.read(digest, { signal }))).equals(blob));
	assert.equal((await collect(store.read(digest, { signal, offset: 4, length: 8 }))).toString(), "blobblob");
	const unknown = both.session.contentStore("nothing");
	assert.equal(await unknown?.info(digest), undefined);

	const writer = both.session.contentWriter?.("local:/cache");
	assert.ok(writer !== undefined);
	await writer.write({ digest, size: blob.length }, chunksOf(blob, 100_000), { signal });
	assert.ok(taken.get(digest)?.equals(blob));
	assert.equal(await writer.has(digest), true);
	assert.equal(await writer.has(missing), false);
	// Known already: nothing to do.
	await writer.write({ digest, size: blob.length }, chunksOf(blob, 100_000), { signal });
	await assert.rejects(
		writer.write({ digest: missing, size: 5 }, chunksOf(Buffer.from("wrong"), 2), { signal }),
		{ code: "data-loss" },
	);
});

function remote(output: SessionOutput | undefined): Extract<SessionOutput, { kind: "remote" }> {
	assert.equal(output?.kind, "remote");
	return output as Extract<SessionOutput, { kind: "remote" }>;
}

test("results go to files and directories of the client", async () => {
	const [tree, second, target] = [directory(), directory(), directory()];
	const file = join(directory(), "out.tar");
	mkdirSync(join(tree, "sub"));
	writeFileSync(join(tree, "sub/a"), "a");
	symlinkSync("sub/a", join(tree, "link"));
	mkdirSync(join(second, "sub"));
	writeFileSync(join(second, "sub/b"), "b");
	writeFileSync(join(target, "mine"), "mine");
	const metadata: Record<string, string>[] = [];
	const output = fileOutput(file);
	await using both = await connect({
		outputs: [
			{
				...output,
				open: (response) => {
					metadata.push({ ...response });
					return output.open(response);
				},
			},
			directoryOutput(target),
			directoryOutput(target, "delete"),
		],
	});
	const { session } = both;
	const stream = await remote(session.output(0)).stream.open({ "containerimage.digest": "sha256:1" });
	await stream.write(Buffer.alloc(5_000_000, "t"));
	assert.equal(existsSync(file), false);
	await stream.close();
	assert.equal(statSync(file).size, 5_000_000);
	assert.deepEqual(metadata, [{ "containerimage.digest": "sha256:1" }]);

	await remote(session.output(1)).tree.send(
		[
			{ id: "linux/amd64", root: tree, prefix: "", modifiedSeconds: 1000 },
			{ id: "linux/arm64", root: second, prefix: "", modifiedSeconds: 1000 },
		],
		{ mirror: false, signal },
	);
	assert.deepEqual(readdirSync(target).sort(), ["link", "mine", "sub"]);
	assert.deepEqual(readdirSync(join(target, "sub")).sort(), ["a", "b"]);
	assert.equal(statSync(join(target, "sub/b")).mtimeMs, 1_000_000);

	await remote(session.output(2)).tree.send(
		[
			{ id: "linux/amd64", root: tree, prefix: "linux_amd64" },
			{ id: "linux/arm64", root: undefined, prefix: "linux_arm64" },
		],
		{ mirror: true, signal },
	);
	assert.deepEqual(readdirSync(target).sort(), ["linux_amd64", "linux_arm64"]);
	assert.equal(readFileSync(join(target, "linux_amd64/link"), "utf8"), "a");
	await assert.rejects(
		remote(session.output(1)).tree.send(
			[
				{ id: "linux/amd64", root: tree, prefix: "" },
				{ id: "linux/arm64", root: tree, prefix: "" },
			],
			{ mirror: false, signal },
		),
		{
			message: "cannot overwrite link from linux/amd64 with linux/arm64 when split option is disabled",
		},
	);
	await assert.rejects(
		remote(session.output(7)).tree.send([{ id: "x", root: tree, prefix: "" }], { mirror: false, signal }),
		{ message: "exporter 7 not found" },
	);
	const refused = await remote(session.output(7)).stream.open({});
	await assert.rejects(refused.close(), { message: "exporter 7 not found" });
});

test("a client that goes away closes its session, and what waits for it fails", async () => {
	const asked = Promise.withResolvers<void>();
	await using both = await connect({
		secrets: {
			secret: (_id, { signal }) => {
				asked.resolve();
				return new Promise((_done, failed) => {
					signal.addEventListener("abort", () => failed(signal.reason));
				});
			},
		},
	});
	const waiting = both.session.secrets.secret("s", { signal });
	waiting.catch(() => undefined);
	await asked.promise;
	await both.served[Symbol.asyncDispose]();
	await assert.rejects(waiting);
	if (!both.session.closed.aborted) {
		await new Promise<void>((resolve) => both.session.closed.addEventListener("abort", () => resolve()));
	}
	assert.ok(both.session.closed.reason instanceof SlipwayError);
	await assert.rejects(both.session.secrets.secret("s", { signal }), { code: "canceled" });
});

test("a connection that breaks after any number of bytes ends what is under way, and nothing else", async () => {
	const [source, file] = [directory(), join(directory(), "out")];
	for (let each = 0; each < 40; each++) {
		writeFileSync(join(source, `f${each}`), Buffer.alloc(3000 * each, "x"));
	}
	for (let cut = 0; cut < 40; cut++) {
		const target = directory();
		let left = cut ** 3 * 40;
		await using both = await connect(
			{ directories: { context: { path: source } }, outputs: [fileOutput(file)] },
			(bytes) => {
				left -= bytes;
				return left >= 0;
			},
		);
		const work = Promise.allSettled([
			both.session.files.sync(request("context", target), { signal }),
			(async () => {
				const stream = await remote(both.session.output(0)).stream.open({});
				await stream.write(Buffer.alloc(100_000));
				await stream.close();
			})(),
		]);
		const [synced] = await work;
		if (synced.status === "fulfilled") {
			assert.equal(readdirSync(target).length, 40);
		} else {
			assert.ok(synced.reason instanceof SlipwayError, String(synced.reason));
		}
	}
});
