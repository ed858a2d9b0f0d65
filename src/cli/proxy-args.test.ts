import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { proxyArguments } from "./proxy-args.ts";

test("proxyArguments takes the proxies of Docker's configuration, unless they are given", (t) => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-proxies-"));
	t.after(() => rmSync(dir, { recursive: true }));
	const printed: string[] = [];
	const stderr = { write: (text: string) => printed.push(text), writeBytes: async () => {} };
	const read = (
		given: Readonly<Record<string, string>>,
		env: Readonly<Record<string, string>> = {},
	): Readonly<Record<string, string>> =>
		Object.fromEntries(
			proxyArguments(new Map(Object.entries(given)), { env: { DOCKER_CONFIG: dir, ...env }, stderr }),
		);
	assert.deepEqual(read({}), {});
	assert.deepEqual(printed, [], "no configuration is fine");
	writeFileSync(
		join(dir, "config.json"),
		JSON.stringify({
			proxies: {
				default: { httpProxy: "http://p:1", noProxy: "localhost", ftpProxy: "" },
				"tcp://other:1": { allProxy: "socks5://q" },
			},
		}),
	);
	const both = {
		HTTP_PROXY: "http://p:1",
		http_proxy: "http://p:1",
		NO_PROXY: "localhost",
		no_proxy: "localhost",
	};
	assert.deepEqual(read({}), both);
	assert.deepEqual(read({ Http_Proxy: "" }), { NO_PROXY: "localhost", no_proxy: "localhost" });
	assert.deepEqual(read({}, { DOCKER_HOST: "unix:///run/docker.sock" }), both);
	assert.deepEqual(read({}, { DOCKER_HOST: "tcp://other:1" }), {
		ALL_PROXY: "socks5://q",
		all_proxy: "socks5://q",
	});
	writeFileSync(join(dir, "config.json"), "{");
	assert.deepEqual(read({}), {});
	assert.match(printed.join(""), /^WARNING: Error loading config file: \S+config\.json: /);
});
