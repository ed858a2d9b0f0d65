import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { type Credentials, createRegistryAuth, normalizeScopes } from "./auth.ts";
import { parseChallenges } from "./challenge.ts";
import { createRegistryClient } from "./client.ts";
import { isLoopback } from "./endpoint.ts";
import { type FakeRegistry, startFakeRegistry } from "./fake-registry.ts";
import type { RegistryClient } from "./registry.ts";

const signal = new AbortController().signal;
const retry = { delayMs: 0, maxDelayMs: 0 };
const document = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };
const basic: Credentials = { kind: "basic", username: "ann", password: "p:w" };
const basicHeader = `Basic ${Buffer.from("ann:p:w").toString("base64")}`;

interface Setup {
	readonly registry: FakeRegistry;
	readonly tokens: FakeRegistry;
	readonly client: RegistryClient;
}

/** A registry, and a server for tokens, which only answers as the test says. */
async function withServers(body: (setup: Setup) => Promise<void>): Promise<void> {
	await using registry = await startFakeRegistry();
	await using tokens = await startFakeRegistry();
	await using client = createRegistryClient({ retry });
	registry.addManifest("a/b", "v1", mediaTypes.ociIndex, document);
	registry.addManifest("c", "v1", mediaTypes.ociIndex, document);
	await body({ registry, tokens, client });
}

const resolve = ({ client, registry }: Setup, credentials: Credentials | undefined, path = "a/b") => {
	const asked: string[] = [];
	const auth = createRegistryAuth(async (host) => {
		asked.push(host);
		return credentials;
	});
	const of = (name: string) =>
		client.repository({ domain: registry.host, path: name }, { auth }).resolve("v1", { signal });
	return { asked, of, result: of(path) };
};

test("challenges: quoted, escaped, several in one header, bearer first", () => {
	assert.deepEqual(
		parseChallenges(['Basic realm="a, \\"b\\"", Bearer realm="https://t/x?y=z",service=s , scope="a:b:c,d"']),
		[
			{ scheme: "bearer", parameters: { realm: "https://t/x?y=z", service: "s", scope: "a:b:c,d" } },
			{ scheme: "basic", parameters: { realm: 'a, "b"' } },
		],
	);
	assert.deepEqual(parseChallenges(["Negotiate", "basic"]), [{ scheme: "basic", parameters: {} }]);
	assert.deepEqual(parseChallenges(['=,,;"', "", 'Bearer realm="unclosed']), [
		{ scheme: "bearer", parameters: {} },
	]);
	// Hostile headers take no more than linear time; with backtracking this would not end.
	parseChallenges([`Bearer ${'a="b'.repeat(20_000)}`, ",".repeat(50_000), "a ".repeat(30_000)]);
});

test("scopes: merged per resource and sorted", () => {
	assert.deepEqual(
		normalizeScopes([
			"repository:b:pull",
			"",
			"repository:a/b:push,pull",
			"registry:catalog:*",
			"repository:b:push",
		]),
		["registry:catalog:*", "repository:a/b:pull,push", "repository:b:pull,push"],
	);
});

test("loopback: names and addresses of this machine only", () => {
	for (const host of ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.8.7", "[::1]:5000", "::1"]) {
		assert.equal(isLoopback(host), true, host);
	}
	for (const host of [
		"docker.io",
		"localhost.example.com",
		"128.0.0.1",
		"[::2]",
		"127.0.0.1.example.com:80",
	]) {
		assert.equal(isLoopback(host), false, host);
	}
});

test("basic: sent after the challenge, then at once; missing and wrong logins say what to do", () =>
	withServers(async (setup) => {
		const { registry } = setup;
		registry.auth = { accepts: (header) => header === basicHeader, challenge: 'Basic realm="r"' };
		const { asked, of, result } = resolve(setup, basic);
		await result;
		await of("c");
		assert.deepEqual(asked, [registry.host]);
		assert.deepEqual(registry.log, [
			"HEAD /v2/a/b/manifests/v1",
			`HEAD /v2/a/b/manifests/v1 ${basicHeader}`,
			`HEAD /v2/c/manifests/v1 ${basicHeader}`,
		]);
		for (const credentials of [undefined, { ...basic, password: "wrong" }]) {
			registry.log.length = 0;
			await assert.rejects(resolve(setup, credentials).result, (thrown) => {
				assert.match(String(thrown), /401 Unauthorized: .*run "docker login 127\.0\.0\.1:\d+"/);
				assert.doesNotMatch(String(thrown), /wrong|Basic/);
				return hasCode(thrown, "unauthenticated");
			});
			assert.ok(registry.log.length <= 2);
		}
	}));

test("bearer: tokens per scope, shared by requests at the same time, kept until they expire", () =>
	withServers(async (setup) => {
		const { registry, tokens } = setup;
		let count = 0;
		tokens.lie = (_, response) => {
			count++;
			response.end(JSON.stringify({ token: `t${count}`, expires_in: 3600 }));
			return true;
		};
		registry.auth = {
			accepts: (header) => header === `Bearer t${count}`,
			challenge: `Bearer realm="http://${tokens.host}/token",service="s",scope="repository:a/b:pull"`,
		};
		const { of, result, asked } = resolve(setup, basic);
		await result;
		await Promise.all([of("a/b"), of("a/b"), of("a/b")]);
		assert.deepEqual(tokens.log, [`GET /token?service=s&scope=repository%3Aa%2Fb%3Apull ${basicHeader}`]);
		await of("c");
		assert.equal(tokens.log[1], `GET /token?service=s&scope=repository%3Ac%3Apull ${basicHeader}`);
		assert.deepEqual(asked, [registry.host]);
		assert.ok(registry.log.every((line) => !line.includes("Basic")));
		assert.equal(registry.log.filter((line) => !line.includes("Bearer")).length, 1, "one challenge");
	}));

test("bearer: a client that gets tokens itself is not asked for its login", () =>
	withServers(async ({ registry, tokens, client }) => {
		registry.auth = {
			accepts: (header) => header === "Bearer mine",
			challenge: `Bearer realm="http://${tokens.host}/token",service="s"`,
		};
		const requests: unknown[] = [];
		const auth = createRegistryAuth(
			() => assert.fail("the login stays with the client"),
			async (request) => {
				requests.push(request);
				return { token: "mine", expiresInSeconds: 0 };
			},
		);
		const repository = client.repository({ domain: registry.host, path: "a/b" }, { auth });
		await repository.resolve("v1", { signal });
		await repository.resolve("v1", { signal });
		assert.deepEqual(requests, [
			{
				host: registry.host,
				realm: `http://${tokens.host}/token`,
				service: "s",
				scopes: ["repository:a/b:pull"],
			},
		]);
		assert.deepEqual(tokens.log, []);
	}));

test("bearer: a token that is no longer accepted is got again, once", () =>
	withServers(async (setup) => {
		const { registry, tokens } = setup;
		let count = 0;
		let valid = "Bearer t1";
		tokens.lie = (_, response) => {
			response.end(JSON.stringify({ access_token: `t${++count}` }));
			return true;
		};
		registry.auth = {
			accepts: (header) => header === valid,
			challenge: `Bearer realm="http://${tokens.host}/token",service="s",error="invalid_token"`,
		};
		const { of, result } = resolve(setup, undefined);
		await result;
		valid = "Bearer t2";
		await of("a/b");
		assert.equal(count, 2);
		assert.ok(
			tokens.log.every((line) => !line.includes("Basic")),
			"anonymous",
		);
	}));

test("bearer: endless refusals end as BuildKit says it, with few requests", () =>
	withServers(async (setup) => {
		const { registry, tokens } = setup;
		tokens.lie = (_, response) => {
			response.end(JSON.stringify({ token: "t" }));
			return true;
		};
		let n = 0;
		registry.auth = {
			accepts: () => false,
			get challenge() {
				return `Bearer realm="http://${tokens.host}/token",scope="repository:x${n++}:pull",error="insufficient_scope"`;
			},
		};
		await assert.rejects(resolve(setup, basic).result, (thrown) => {
			assert.match(
				String(thrown),
				/pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed \(registry/,
			);
			return hasCode(thrown, "permission-denied");
		});
		// The refusal of a HEAD is looked into with one GET.
		assert.ok(registry.log.length <= 6, String(registry.log.length));
	}));

test("bearer: identity tokens and services that take passwords only by POST", () =>
	withServers(async (setup) => {
		const { registry, tokens } = setup;
		const bodies: string[] = [];
		tokens.lie = async (request, response) => {
			if (request.method === "GET") {
				response.writeHead(404).end();
				return true;
			}
			bodies.push(Buffer.concat(await Array.fromAsync(request)).toString());
			response.end(JSON.stringify({ access_token: "t", expires_in: 100 }));
			return true;
		};
		registry.auth = {
			accepts: (header) => header === "Bearer t",
			challenge: `Bearer realm="http://${tokens.host}/token",service="s"`,
		};
		await resolve(setup, { kind: "identity-token", token: "id" }).result;
		await resolve(setup, basic).result;
		assert.deepEqual(bodies, [
			"grant_type=refresh_token&refresh_token=id&service=s&client_id=buildkit-client&scope=repository%3Aa%2Fb%3Apull",
			"grant_type=password&username=ann&password=p%3Aw&service=s&client_id=buildkit-client&scope=repository%3Aa%2Fb%3Apull",
		]);
	}));

test("bearer: token services that fail, redirect, or send rubbish", () =>
	withServers(async (setup) => {
		const { registry, tokens } = setup;
		registry.auth = { accepts: () => false, challenge: `Bearer realm="http://${tokens.host}/token"` };
		const answers: readonly [string, string, RegExp][] = [
			["not json secret", "200", /failed to fetch anonymous token: token response of .* is not JSON/],
			["{}", "200", /has no token/],
			['{"token":"a\\r\\nX: y"}', "200", /has no token/],
			['{"errors":[{"code":"DENIED","message":"no\\u0007 way"}]}', "403", /403 Forbidden: denied: no way/],
			["x".repeat(2 << 20), "200", /larger than 1048576 bytes/],
		];
		for (const [body, status, message] of answers) {
			tokens.lie = (_, response) => {
				response.writeHead(Number(status)).end(body);
				return true;
			};
			await assert.rejects(resolve(setup, undefined).result, (thrown) => {
				assert.match(String(thrown), message);
				assert.doesNotMatch(String(thrown), /secret/);
				return true;
			});
		}
		tokens.lie = (request, response) => {
			response.writeHead(302, { location: request.url ?? "" }).end();
			return true;
		};
		await assert.rejects(resolve(setup, undefined).result, /stopped after 10 redirects/);
	}));

test("logins are sent neither to where a registry redirects nor to where its token service does", () =>
	withServers(async (setup) => {
		const { registry, tokens } = setup;
		await using thief = await startFakeRegistry();
		thief.lie = (_, response) => {
			response.writeHead(401, { "www-authenticate": 'Basic realm="give"' }).end();
			return true;
		};
		registry.auth = { accepts: (header) => header === basicHeader, challenge: 'Basic realm="r"' };
		registry.lie = (request, response) => {
			if (request.headers.authorization === undefined) {
				return false;
			}
			response.writeHead(307, { location: `http://user:pw@${thief.host}/v2/x` }).end();
			return true;
		};
		await assert.rejects(resolve(setup, basic).result, /401/);
		registry.lie = undefined;
		registry.auth = { accepts: () => false, challenge: `Bearer realm="http://${tokens.host}/token"` };
		tokens.lie = (_, response) => {
			response.writeHead(307, { location: `http://${thief.host}/token` }).end();
			return true;
		};
		await assert.rejects(resolve(setup, basic).result, /failed to fetch oauth token/);
		assert.ok(thief.log.length > 0);
		assert.ok(
			thief.log.every((line) => !/Basic|Bearer/.test(line)),
			thief.log.join("\n"),
		);
	}));
