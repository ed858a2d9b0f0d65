import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { type RealRegistry, startRealRegistry } from "../src/registry/real-registry.ts";
import { busyboxLayout, type Finished, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/** `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY`, as docker buildx reads it. */

const bench = new Workbench();
let registry: RealRegistry;

before(async () => {
	registry = await startRealRegistry();
	const target = `docker://${registry.host}/busybox:1`;
	tool("skopeo", ["copy", "--dest-tls-verify=false", `oci:${busyboxLayout}:latest`, target]);
});

after(async () => {
	await registry?.[Symbol.asyncDispose]();
	bench[Symbol.dispose]();
});

function run(rules: readonly object[], dockerfile: string, args: readonly string[] = []): Promise<Finished> {
	const file = bench.path("policy.json");
	writeFileSync(file, JSON.stringify({ version: 1, rules }));
	const context = bench.context({ Dockerfile: dockerfile });
	return bench.run([...args, context], { env: { EXPERIMENTAL_BUILDKIT_SOURCE_POLICY: file } });
}

test("an image that is denied is not even asked for", async () => {
	const rules = [{ action: "DENY", selector: { identifier: "docker-image://docker.io/library/alpine:*" } }];
	const { code, stderr } = await run(rules, "FROM alpine:3\n");
	assert.equal(code, 1);
	assert.match(
		stderr,
		/^ERROR: .*source "docker-image:\/\/docker.io\/library\/alpine:3" denied by policy: source denied by policy/m,
	);
	assert.doesNotMatch(stderr, /no such host|timeout/);
});

test("an image is taken in another's place, and the last word counts", async () => {
	const out = bench.path("converted");
	const rules = [
		{ action: "DENY", selector: { identifier: "*" } },
		{ action: "ALLOW", selector: { identifier: "local://*" } },
		{ action: "ALLOW", selector: { identifier: `docker-image://${registry.host}/*` } },
		{
			action: "CONVERT",
			selector: { identifier: "docker-image://docker.io/library/*" },
			updates: { identifier: `docker-image://${registry.host}/\${1}` },
		},
	];
	const dockerfile = "FROM busybox:1 AS b\nRUN echo ran > /ran\nFROM scratch\nCOPY --from=b /ran /\n";
	const { code, stderr } = await run(rules, dockerfile, ["-o", out]);
	assert.equal(code, 0, stderr);
	assert.equal(readFileSync(`${out}/ran`, "utf8"), "ran\n");
});

test("a policy that can't be read is an error", async () => {
	const file = bench.path("broken.json");
	writeFileSync(file, "{");
	const context = bench.context({ Dockerfile: "FROM scratch\n" });
	const { code, stderr } = await bench.run([context], { env: { EXPERIMENTAL_BUILDKIT_SOURCE_POLICY: file } });
	assert.equal(code, 1);
	assert.match(stderr, /ERROR: failed to parse source policy .*broken.json/);
});
