import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { createSshAgents } from "./ssh-agent.ts";

const signal = new AbortController().signal;

/** An agent that answers every request with a message of type 12 holding the request's type. */
async function startAgent(path: string): Promise<AsyncDisposable> {
	const sockets = new Set<Socket>();
	const server = createServer((socket) => {
		sockets.add(socket);
		socket.on("data", (data) => socket.write(Uint8Array.of(0, 0, 0, 2, 12, data[4] ?? 0)));
	});
	await new Promise<void>((done) => server.listen(path, done));
	return {
		async [Symbol.asyncDispose]() {
			for (const socket of sockets) {
				socket.destroy();
			}
			await new Promise<void>((done) => server.close(() => done()));
		},
	};
}

function ask(path: string, request: Uint8Array, length: number): Promise<Buffer> {
	return new Promise((done, failed) => {
		let got = Buffer.alloc(0);
		const socket = createConnection(path, () => socket.write(request));
		socket.on("error", failed);
		socket.on("close", () => done(got));
		socket.on("data", (data: Buffer) => {
			got = Buffer.concat([got, data]);
			if (got.length >= length) {
				socket.destroy();
			}
		});
	});
}

test("an agent is lent with the wanted owner, for listing and signing only, until it is given back", async (t) => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-agent-"));
	t.after(() => rmSync(dir, { recursive: true }));
	const path = join(dir, "real");
	await using _agent = await startAgent(path);
	const ssh = createSshAgents(["default", `other=${path}`], { env: { SSH_AUTH_SOCK: path } });
	assert.equal(await ssh.agent("unknown", { uid: 0, gid: 0, mode: 0o600, signal }), undefined);
	const lent = await ssh.agent("other", { uid: 12, gid: 34, mode: 0o640, signal });
	assert.ok(lent !== undefined);
	const { uid, gid, mode } = statSync(lent.socketPath);
	assert.deepEqual([uid, gid, mode & 0o777], [12, 34, 0o640]);
	// Two requests at once: all identities, which is let through, and remove all, which is not.
	const both = Uint8Array.of(0, 0, 0, 1, 11, 0, 0, 0, 1, 19);
	assert.deepEqual([...(await ask(lent.socketPath, both, 11))], [0, 0, 0, 2, 12, 11, 0, 0, 0, 1, 5]);
	assert.equal((await ask(lent.socketPath, Uint8Array.of(0xff, 0, 0, 0, 11), 1)).length, 0, "too long");
	await lent[Symbol.asyncDispose]();
	assert.throws(() => statSync(dirname(lent.socketPath)), { code: "ENOENT" });
});

test("createSshAgents refuses what is no agent", () => {
	assert.throws(() => createSshAgents(["default"], { env: {} }), {
		message: /make sure SSH_AUTH_SOCK is set/,
	});
	assert.throws(() => createSshAgents(["a=/nonexistent"], { env: {} }), { code: "not-found" });
	assert.throws(() => createSshAgents(["a=/x,raw=perhaps"], { env: {} }), {
		message: /invalid value for 'raw'/,
	});
	assert.throws(() => createSshAgents([`a=${import.meta.filename},raw=true`], { env: {} }), {
		message: /raw mode must supply exactly one socket path/,
	});
	assert.throws(() => createSshAgents([`key=${import.meta.filename}`], { env: {} }), {
		code: "invalid-argument",
		message: /failed to parse .*ssh-agent\.test\.ts: ssh: no key found/,
	});
});
