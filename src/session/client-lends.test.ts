import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { createDockerAuth } from "./docker-auth.ts";
import { createSecrets, maxSecretBytes, parseSecret } from "./secrets.ts";

const signal = new AbortController().signal;

function folder(): Disposable & { readonly path: string } {
	const path = mkdtempSync(join(tmpdir(), "slipway-client-"));
	return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

test("parseSecret takes buildx's forms", () => {
	assert.deepEqual(parseSecret("id=a,src=./f"), { id: "a", file: "./f", env: undefined });
	assert.deepEqual(parseSecret("ID=a,Source=f"), { id: "a", file: "f", env: undefined });
	assert.deepEqual(parseSecret("id=a,env=B"), { id: "a", file: undefined, env: "B" });
	assert.deepEqual(parseSecret("type=env,id=a,src=B"), { id: "a", file: undefined, env: "B" });
	assert.throws(() => parseSecret("id"), /invalid field 'id' must be a key=value pair/);
	assert.throws(() => parseSecret("id=a,kind=x"), /unexpected key 'kind' in 'kind=x'/);
	assert.throws(() => parseSecret("type=vault,id=a"), /unsupported secret type "vault"/);
	assert.throws(() => parseSecret("src=x"), /secret missing ID/);
});

test("createSecrets reads files when asked, and the environment", async () => {
	using here = folder();
	const file = join(here.path, "token");
	writeFileSync(file, "old");
	const secrets = createSecrets([`id=file,src=${file}`, "id=VAR", "id=gone,env=NOT_SET"], {
		env: { VAR: "value" },
	});
	writeFileSync(file, "new\0bytes");
	assert.deepEqual(Buffer.from((await secrets.secret("file", { signal })) ?? []), Buffer.from("new\0bytes"));
	assert.equal(Buffer.from((await secrets.secret("VAR", { signal })) ?? []).toString(), "value");
	assert.equal((await secrets.secret("gone", { signal }))?.length, 0);
	assert.equal(await secrets.secret("other", { signal }), undefined);
	writeFileSync(file, new Uint8Array(maxSecretBytes + 1));
	await assert.rejects(secrets.secret("file", { signal }), /secret file too big/);
	assert.throws(() => createSecrets([`id=x,src=${file}`], { env: {} }), /secret x too big/);
	assert.throws(
		() => createSecrets([`id=x,src=${here.path}/missing`], { env: {} }),
		(error) => hasCode(error, "not-found") && /failed to stat .*missing/.test((error as Error).message),
	);
});

test("createDockerAuth reads logins of the configuration file", async () => {
	using here = folder();
	const encode = (text: string): string => Buffer.from(text).toString("base64");
	writeFileSync(
		join(here.path, "config.json"),
		JSON.stringify({
			auths: {
				"https://index.docker.io/v1/": { auth: encode("hub:pass:word") },
				"ghcr.io": { auth: encode("me:secret\0\0") },
				"https://old.example.com:5000/v2/": { auth: encode("o:p") },
				"token.example.com": { auth: encode("x:y"), identitytoken: "id-token" },
				"empty.example.com": {},
				"bad.example.com": { auth: encode("nothing") },
			},
		}),
	);
	const auth = createDockerAuth({ env: { DOCKER_CONFIG: here.path } });
	const ask = (host: string) => auth.credentials(host, { signal });
	assert.deepEqual(await ask("registry-1.docker.io"), {
		kind: "basic",
		username: "hub",
		password: "pass:word",
	});
	assert.deepEqual(await ask("ghcr.io"), { kind: "basic", username: "me", password: "secret" });
	assert.deepEqual(await ask("old.example.com:5000"), { kind: "basic", username: "o", password: "p" });
	assert.deepEqual(await ask("token.example.com"), { kind: "identity-token", token: "id-token" });
	assert.equal(await ask("empty.example.com"), undefined);
	assert.equal(await ask("unknown.example.com"), undefined);
	await assert.rejects(ask("bad.example.com"), /invalid login for bad.example.com/);
});

test("createDockerAuth without a file is anonymous, with a broken one fails and shows none of it", async () => {
	using here = folder();
	const ask = (env: Readonly<Record<string, string>>) =>
		createDockerAuth({ env }).credentials("ghcr.io", { signal });
	assert.equal(await ask({ HOME: here.path }), undefined);
	mkdirSync(join(here.path, ".docker"));
	writeFileSync(join(here.path, ".docker/config.json"), 'hunter2 {"auths"');
	await assert.rejects(
		ask({ HOME: here.path }),
		(error) =>
			/could not read Docker's configuration .*config.json: not valid JSON/.test((error as Error).message) &&
			!/hunter2/.test((error as Error).message),
	);
	rmSync(join(here.path, ".docker/config.json"));
	const override = JSON.stringify({ auths: { "ghcr.io": { auth: Buffer.from("e:f").toString("base64") } } });
	assert.deepEqual(await ask({ HOME: here.path, DOCKER_AUTH_CONFIG: override }), {
		kind: "basic",
		username: "e",
		password: "f",
	});
});

test("createDockerAuth asks credential helpers, each registry once", async () => {
	using here = folder();
	const log = join(here.path, "log");
	const helper = join(here.path, "docker-credential-fake");
	writeFileSync(
		helper,
		`#!/bin/sh
read -r host
echo "$1 $host" >> ${log}
case "$host" in
	none) echo "credentials not found in native keychain"; exit 1 ;;
	broken) echo "the keychain is locked"; exit 1 ;;
	token) echo '{"ServerURL":"token","Username":"<token>","Secret":"t"}' ;;
	*) echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"for $host\\"}" ;;
esac
`,
	);
	chmodSync(helper, 0o755);
	writeFileSync(
		join(here.path, "config.json"),
		JSON.stringify({
			auths: { "plain.example.com": { auth: Buffer.from("a:b").toString("base64") } },
			credsStore: "fake",
			credHelpers: { "plain.example.com": "", "gone.example.com": "missing" },
		}),
	);
	const auth = createDockerAuth({
		env: { DOCKER_CONFIG: here.path, PATH: `${here.path}:${process.env["PATH"]}` },
	});
	const ask = (host: string) => auth.credentials(host, { signal });
	const [one, two] = await Promise.all([ask("registry-1.docker.io"), ask("registry-1.docker.io")]);
	assert.deepEqual(one, { kind: "basic", username: "u", password: "for https://index.docker.io/v1/" });
	assert.deepEqual(two, one);
	assert.equal(readFileSync(log, "utf8"), "get https://index.docker.io/v1/\n");
	assert.deepEqual(await ask("token"), { kind: "identity-token", token: "t" });
	assert.equal(await ask("none"), undefined);
	assert.deepEqual(await ask("plain.example.com"), { kind: "basic", username: "a", password: "b" });
	await assert.rejects(ask("broken"), /error getting credentials for broken: .*the keychain is locked/);
	await assert.rejects(ask("gone.example.com"), /docker-credential-missing/);
});
