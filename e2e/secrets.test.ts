import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type RealRegistry, startRealRegistry } from "../src/registry/real-registry.ts";
import { ghaToken } from "../src/remotecache/fake-clouds.fixture.ts";
import { filesBelow } from "./support/image.ts";
import { busyboxBase, busyboxLayout, type Finished, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/**
 * What nobody may find again: values of secrets, logins and tokens, in all that a builder keeps (layers, logs, keys, history), writes
 * and says. Each value is like no other text, so that it can be looked for as bytes.
 */
const bench = new Workbench({ background: true });
const values = new Map<string, string>();
const said: Finished[] = [];
let locked: RealRegistry;
let server: Server;
let origin: string;

function value(name: string): string {
	const made = `${name}-${randomBytes(12).toString("hex")}`;
	values.set(name, made);
	return made;
}

/** User tester, password secret, as `htpasswd -nbB` hashes it. */
const users = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

before(async () => {
	locked = await startRealRegistry({ htpasswd: users });
	values.set("login", Buffer.from("tester:secret").toString("base64").replace(/=+$/, ""));
	const image = `docker://${locked.host}/private/busybox:1`;
	const login = ["--dest-tls-verify=false", "--dest-creds", "tester:secret"];
	tool("skopeo", ["copy", ...login, `oci:${busyboxLayout}:latest`, image]);
	// A server that wants a login and takes none.
	server = createServer((_, response) => {
		response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end("who are you?");
	});
	await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
	origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(async () => {
	bench[Symbol.dispose]();
	server.close();
	await locked[Symbol.asyncDispose]();
});

async function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Finished> {
	const result = await bench.run(["--debug", ...args], { env });
	said.push(result);
	return result;
}

test("secrets of steps, logins of registries and servers, and keys of caches are found nowhere", async () => {
	const config = bench.path("docker-config");
	mkdirSync(config);
	const auth = Buffer.from("tester:secret").toString("base64");
	writeFileSync(join(config, "config.json"), JSON.stringify({ auths: { [locked.host]: { auth } } }));
	const [file, text] = [value("file"), value("env")];
	writeFileSync(bench.path("secret"), file);
	const secrets = ["--secret", `id=file,src=${bench.path("secret")}`, "--secret", "id=env,env=SECRET"];
	const mounts = "--mount=type=secret,id=file,required --mount=type=secret,id=env,env=SECRET,required";
	const s3 = `type=s3,bucket=b,region=eu,endpoint_url=${origin},access_key_id=${value("id")},secret_access_key=${value("key")},session_token=${value("session")}`;
	const azblob = `type=azblob,account_url=${origin}/a,account_name=a,secret_access_key=${value("azure")}`;
	const claims = ghaToken();
	values.set("gha", claims);
	const gha = `type=gha,version=2,url_v2=${origin}/,token=${claims}`;
	const good = await run(
		[
			...secrets,
			...["--metadata-file", bench.path("metadata.json"), "-t", `${locked.host}/private/out:1`, "--push"],
			...[s3, azblob, gha].flatMap((place) => ["--cache-to", `${place},mode=max`, "--cache-from", place]),
			bench.context({
				Dockerfile: `FROM ${locked.host}/private/busybox:1\nRUN ${mounts} wc -c /run/secrets/file > /counted && test "\${#SECRET}" = ${text.length}\n`,
			}),
		],
		{ DOCKER_CONFIG: config, SECRET: text },
	);
	assert.equal(good.code, 0, good.stderr);

	const failing = await run(
		[
			...secrets,
			...busyboxBase,
			bench.context({ Dockerfile: `FROM base\nRUN ${mounts} test "$SECRET" = other\n` }),
		],
		{ SECRET: text },
	);
	assert.match(failing.stderr, /did not complete successfully: exit code: 1/);

	const tokens = [
		"--secret",
		"id=GIT_AUTH_TOKEN,env=TOKEN",
		"--secret",
		"id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN",
	];
	const token = value("token");
	values.set("token in base64", Buffer.from(`x-access-token:${token}`).toString("base64").replace(/=+$/, ""));
	for (const source of [`${origin}/repository.git`, `${origin}/file`]) {
		const refused = await run([...tokens, bench.context({ Dockerfile: `FROM scratch\nADD ${source} /\n` })], {
			TOKEN: token,
		});
		assert.equal(refused.code, 1, "the server takes no token");
	}

	bench.stop();
	const kept = filesBelow(bench.root).map((name) => join(bench.root, name));
	assert(
		kept.some((path) => path.endsWith("metadata.db")) && kept.length > 20,
		`looked at ${kept.length} files`,
	);
	const places = [...kept, bench.path("metadata.json")].map((path) => [path, readFileSync(path)] as const);
	const outputs = said.map(
		({ stdout, stderr }, at) => [`output ${at}`, Buffer.concat([stdout, Buffer.from(stderr)])] as const,
	);
	const found = [...places, ...outputs].flatMap(([place, bytes]) =>
		[...values].filter(([, secret]) => bytes.includes(secret)).map(([name]) => `${name} in ${place}`),
	);
	assert.deepEqual(found, []);
});
