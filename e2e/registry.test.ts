import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type RealRegistry, startRealRegistry } from "../src/registry/real-registry.ts";
import { busyboxLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/** User tester, password secret, as `htpasswd -nbB` hashes it. */
const users = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
const bench = new Workbench();
let open: RealRegistry;

before(async () => {
	open = await startRealRegistry();
	tool("skopeo", [
		"copy",
		"--dest-tls-verify=false",
		`oci:${busyboxLayout}:latest`,
		`docker://${open.host}/team/busybox:1`,
	]);
});

after(async () => {
	await open[Symbol.asyncDispose]();
	bench[Symbol.dispose]();
});

test("a base image is pulled from a registry, and not again when the step above it is cached", async () => {
	const context = bench.context({ Dockerfile: `FROM ${open.host}/team/busybox:1\nRUN echo ran > /ran\n` });
	await bench.build(["-o", bench.path("first"), context]);
	assert.equal(readFileSync(bench.path("first/ran"), "utf8"), "ran\n");
	const blobs = join(bench.root, "content/blobs/sha256");
	const layer = readdirSync(blobs).find((name) => readFileSync(join(blobs, name)).length > 500_000);
	assert.ok(layer !== undefined);
	const second = await bench.build([context]);
	assert.match(second.stderr, /CACHED/);
});

test("a base whose files nobody needs is never fetched", async () => {
	using other = new Workbench();
	const context = other.context({ Dockerfile: `FROM ${open.host}/team/busybox:1\nENV only=metadata\n` });
	await other.build([context]);
	const blobs = join(other.root, "content/blobs/sha256");
	const sizes = readdirSync(blobs).map((name) => readFileSync(join(blobs, name)).length);
	assert.ok(Math.max(...sizes) < 100_000, `only documents are here: ${sizes}`);
});

test("an image that is not there is one clear sentence with host and name", async () => {
	const context = bench.context({ Dockerfile: `FROM ${open.host}/team/none:1\n` });
	const result = await bench.run([context]);
	assert.equal(result.code, 1);
	assert.match(result.stderr, new RegExp(`^ERROR: .*${open.host}/team/none:1: not found`, "m"));
});

test("basic auth is taken from Docker's configuration, and its lack is explained", async () => {
	await using locked = await startRealRegistry({ htpasswd: users });
	tool("skopeo", [
		"copy",
		"--dest-tls-verify=false",
		"--dest-creds",
		"tester:secret",
		`oci:${busyboxLayout}:latest`,
		`docker://${locked.host}/private/busybox:1`,
	]);
	const context = bench.context({ Dockerfile: `FROM ${locked.host}/private/busybox:1\nRUN true\n` });
	const refused = await bench.run([context]);
	assert.equal(refused.code, 1);
	assert.match(refused.stderr, new RegExp(`ERROR: .*${locked.host}`));
	const config = bench.path("docker-config");
	mkdirSync(config);
	const auth = Buffer.from("tester:secret").toString("base64");
	writeFileSync(join(config, "config.json"), JSON.stringify({ auths: { [locked.host]: { auth } } }));
	const result = await bench.build([context], { env: { DOCKER_CONFIG: config } });
	assert.doesNotMatch(result.stderr, /secret/);
});
