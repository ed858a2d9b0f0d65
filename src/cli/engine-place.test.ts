import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { findEngine } from "./engine-place.ts";

async function inFolder(body: (folder: string) => void | Promise<void>): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), "slipway-engine-"));
	try {
		await body(folder);
	} finally {
		rmSync(folder, { recursive: true });
	}
}

const find = (env: Readonly<Record<string, string>>, context?: string, sockets: readonly string[] = []) =>
	findEngine({ env, context, sockets });

test("findEngine: DOCKER_HOST in each of its forms", () =>
	inFolder((folder) => {
		const env = (host: string) => ({ DOCKER_HOST: host, HOME: folder });
		assert.deepEqual(find(env("unix:///run/x.sock")), {
			kind: "socket",
			path: "/run/x.sock",
			shown: "unix:///run/x.sock",
		});
		assert.deepEqual(find(env("tcp://host.example")), {
			kind: "tcp",
			host: "host.example",
			port: 2375,
			tls: undefined,
			shown: "tcp://host.example",
		});
		writeFileSync(join(folder, "ca.pem"), "authority");
		assert.deepEqual(find({ ...env("tcp://[::1]:2"), DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: folder }), {
			kind: "tcp",
			host: "::1",
			port: 2,
			tls: { ca: "authority", certificate: undefined, key: undefined, skipVerify: false },
			shown: "tcp://[::1]:2",
		});
		assert.deepEqual(find(env("ssh://me@host:22")), {
			kind: "ssh",
			target: ["-l", "me", "-p", "22", "--", "host"],
			shown: "ssh://host:22",
		});
		for (const bad of ["npipe:////./pipe/docker", "host", "ssh://-oProxyCommand=x", "tcp://"]) {
			assert.throws(() => find(env(bad)), /cannot talk to a container engine at/, bad);
		}
	}));

test("findEngine: Docker contexts, by name and the current one", () =>
	inFolder((folder) => {
		const id = createHash("sha256").update("far").digest("hex");
		const meta = join(folder, "contexts/meta", id);
		mkdirSync(meta, { recursive: true });
		const write = (document: object): void =>
			writeFileSync(join(meta, "meta.json"), JSON.stringify(document));
		write({ Name: "far", Endpoints: { docker: { Host: "tcp://far:1", SkipTLSVerify: true } } });
		const env = { DOCKER_CONFIG: folder };
		assert.equal(find(env, "far").shown, "tcp://far:1");
		assert.equal(find({ ...env, DOCKER_CONTEXT: "far" }).shown, "tcp://far:1");
		assert.equal(find({ ...env, DOCKER_CONTEXT: "far", DOCKER_HOST: "unix:///x" }).shown, "unix:///x");
		writeFileSync(join(folder, "config.json"), JSON.stringify({ currentContext: "far" }));
		assert.equal(find(env).shown, "tcp://far:1");
		const tls = join(folder, "contexts/tls", id, "docker");
		mkdirSync(tls, { recursive: true });
		writeFileSync(join(tls, "key.pem"), "key");
		const place = find(env);
		assert.deepEqual(place.kind === "tcp" && place.tls, {
			ca: undefined,
			certificate: undefined,
			key: "key",
			skipVerify: true,
		});
		assert.throws(() => find(env, "none"), /context "none" does not exist/);
		write({ Name: "far" });
		assert.throws(() => find(env), /context "far" names no Docker host/);
		writeFileSync(join(folder, "config.json"), "{");
		assert.throws(() => find(env), /config\.json is not valid JSON/);
	}));

test("findEngine: sockets, then podman's program, then an error that says what to do", () =>
	inFolder(async (folder) => {
		const env = { HOME: folder, PATH: folder };
		const socket = join(folder, "podman.sock");
		const server = createServer();
		await new Promise<void>((resolve) => {
			server.listen(socket, resolve);
		});
		try {
			assert.equal(find(env, undefined, [join(folder, "none"), socket]).shown, `unix://${socket}`);
		} finally {
			server.close();
		}
		assert.throws(() => find(env), /no container engine to load the image into: .*set DOCKER_HOST, or write/);
		writeFileSync(join(folder, "podman"), "");
		assert.deepEqual(find(env), {
			kind: "program",
			path: join(folder, "podman"),
			shown: join(folder, "podman"),
		});
	}));
