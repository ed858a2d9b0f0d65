import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { TLSSocket } from "node:tls";
import type { SessionAuth } from "./session.ts";
import { createTokenAuthority, type TokenServerTls } from "./token-authority.ts";

const root = mkdtempSync(join(tmpdir(), "slipway-tokens-"));
after(() => rmSync(root, { recursive: true, force: true }));
const signal = new AbortController().signal;

const auth: SessionAuth = {
	credentials: async (host) =>
		host === "known" ? { kind: "basic", username: "u", password: "p" } : undefined,
};

test("the key of a host is the same for the same salt, and another for another", async () => {
	const env = { DOCKER_CONFIG: join(root, "config") };
	const keyOf = (host: string, salt: string): Promise<Uint8Array> =>
		createTokenAuthority({ auth, env }).publicKey(host, Buffer.from(salt), { signal });
	const key = await keyOf("known", "salt");
	assert.equal(key.length, 32);
	assert.deepEqual(await keyOf("known", "salt"), key);
	assert.notDeepEqual(await keyOf("known", "other"), key);
	// Everybody without a login is the same to a builder.
	assert.deepEqual(await keyOf("a", "salt"), await keyOf("b", "salt"));
	const file = join(root, "config/.token_seed");
	assert.equal(statSync(file).mode & 0o777, 0o600);
	const seeds = JSON.parse(readFileSync(file, "utf8")) as Record<string, { Seed: string }>;
	assert.deepEqual(Object.keys(seeds), ["a", "b", "known"]);
	assert.equal(Buffer.from(seeds["known"]?.Seed ?? "", "base64").length, 16);
	await assert.rejects(
		createTokenAuthority({ auth, env: { ...env, BUILDKIT_NO_CLIENT_TOKEN: "1" } }).publicKey(
			"known",
			Buffer.from("salt"),
			{ signal },
		),
		{ code: "unavailable" },
	);
});

test("fetch asks the realm in the newer form, then in the older one, and without a login in the older one only", async () => {
	const asked: string[] = [];
	const server = createServer((request, response) => {
		let body = "";
		request.on("data", (chunk) => {
			body += String(chunk);
		});
		request.on("end", () => {
			asked.push(`${request.method} ${request.url} ${request.headers.authorization ?? "-"} ${body}`);
			if (request.method === "POST") {
				response.writeHead(404).end();
			} else {
				response.end(JSON.stringify({ token: "t", expires_in: 300 }));
			}
		});
	});
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	try {
		const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
		const authority = createTokenAuthority({ auth, env: { DOCKER_CONFIG: join(root, "config") } });
		const request = { realm, service: "s", scopes: ["repository:a:pull"] };
		assert.deepEqual(await authority.fetch({ ...request, host: "known" }, { signal }), {
			token: "t",
			expiresInSeconds: 300,
		});
		assert.deepEqual(await authority.fetch({ ...request, host: "other" }, { signal }), {
			token: "t",
			expiresInSeconds: 300,
		});
		const query = "/token?service=s&scope=repository%3Aa%3Apull";
		assert.deepEqual(asked, [
			"POST /token - grant_type=password&username=u&password=p&service=s&client_id=buildkit-client&scope=repository%3Aa%3Apull",
			`GET ${query} Basic dTpw `,
			`GET ${query} - `,
		]);
		await assert.rejects(authority.fetch({ ...request, realm: "file:///x", host: "known" }, { signal }), {
			code: "invalid-argument",
		});
	} finally {
		server.close();
		server.closeAllConnections();
	}
});

test("fetch speaks to a token server as the settings of its registry say", async () => {
	const directory = mkdtempSync(join(tmpdir(), "slipway-token-tls-"));
	const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
	execFileSync(
		"openssl",
		[
			...[
				"req",
				"-x509",
				"-newkey",
				"ec",
				"-pkeyopt",
				"ec_paramgen_curve:prime256v1",
				"-nodes",
				"-days",
				"1",
			],
			...["-subj", "/CN=tokens", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
		],
		{ stdio: "pipe" },
	);
	const server = createHttpsServer(
		{
			key: readFileSync(key),
			cert: readFileSync(cert),
			ca: readFileSync(cert),
			requestCert: true,
			rejectUnauthorized: false,
		},
		(request, response) => {
			const { authorized } = request.socket as TLSSocket;
			response.end(JSON.stringify({ token: authorized ? "known" : "unknown" }));
		},
	).listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port } = server.address() as AddressInfo;
	const fetchWith = async (tls: TokenServerTls | undefined): Promise<string> => {
		const authority = createTokenAuthority({
			auth: { credentials: async () => undefined },
			env: { DOCKER_CONFIG: directory },
			...(tls === undefined ? {} : { tls: new Map([["registry", tls]]) }),
		});
		const realm = `https://127.0.0.1:${port}/token`;
		const request = { host: "registry", realm, service: "s", scopes: [] };
		return (await authority.fetch(request, { signal: new AbortController().signal })).token;
	};
	const none = { insecure: false, authorities: [], pairs: [] };
	try {
		await assert.rejects(fetchWith(undefined), /certificate/);
		await assert.rejects(fetchWith(none), /certificate/);
		assert.equal(await fetchWith({ ...none, insecure: true }), "unknown");
		assert.equal(await fetchWith({ ...none, authorities: [cert] }), "unknown");
		assert.equal(await fetchWith({ ...none, authorities: [cert], pairs: [{ cert, key }] }), "known");
		await assert.rejects(fetchWith({ ...none, authorities: [join(directory, "none")] }), /ENOENT.*none/);
	} finally {
		server.closeAllConnections();
		server.close();
		rmSync(directory, { recursive: true });
	}
});
