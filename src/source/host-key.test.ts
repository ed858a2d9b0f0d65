import assert from "node:assert/strict";
import { test } from "node:test";
import { openRepositories } from "./git-fixture.ts";
import { askHostKey } from "./host-key.ts";
import { startServer } from "./source-fixture.ts";

const { signal } = new AbortController();
const searchPath = process.env["PATH"] ?? "";

test("askHostKey gives the line of known_hosts that BuildKit's client has", async () => {
	await using repositories = openRepositories();
	const { url, knownHosts } = await repositories.serveSsh();
	const { host } = new URL(url);
	const [name, type, key] = knownHosts.trim().split(" ");
	assert.equal(await askHostKey(host, { searchPath, signal }), `${name} ${type} ${key}`);
});

test("askHostKey fails where nobody answers, where no ssh answers, without ssh-keyscan and for what is no server", async () => {
	await using web = await startServer((_, response) => response.end("no ssh"));
	const { host } = new URL(web.url);
	const options = { searchPath, signal, timeoutSeconds: 1 };
	await assert.rejects(askHostKey("127.0.0.1:1", options), { code: "unavailable" });
	await assert.rejects(askHostKey(host, options), { code: "unavailable" });
	await assert.rejects(askHostKey(host, { ...options, searchPath: "/nonexistent" }), { code: "not-found" });
	for (const server of ["-oProxyCommand=x", "", "a b", "[::1", "host/path", "host:22:22"]) {
		await assert.rejects(askHostKey(server, options), { code: "invalid-argument" }, server);
	}
	const aborted = AbortSignal.abort(new Error("enough"));
	await assert.rejects(askHostKey(host, { ...options, signal: aborted }), /enough/);
});
