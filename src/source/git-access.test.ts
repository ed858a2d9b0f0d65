import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { createGitSource } from "./git.ts";
import { openRepositories } from "./git-fixture.ts";
import { createMain, fetchTree, filesOne, filesTwo, rejects, withWorld } from "./git-world.ts";
import { fakeSession } from "./source-fixture.ts";

test("git: a token gets in, and is in no command line, log or repository", async () => {
	await using repositories = openRepositories();
	// A git that notes its arguments.
	const bin = `${repositories.folder}/bin`;
	mkdirSync(bin);
	const real = execFileSync("sh", ["-c", "command -v git"]).toString().trim();
	writeFileSync(`${bin}/git`, `#!/bin/sh\necho "$@" >> ${bin}/log\nexec ${real} "$@"\n`);
	chmodSync(`${bin}/git`, 0o755);
	await withWorld(
		async (world) => {
			createMain(repositories);
			const token = "s3cret-t0ken";
			const server = await repositories.serve({ token });
			const remote = `${server.url}/main.git`;
			const host = new URL(remote).host;
			const attrs = {
				"git.authtokensecret": "GIT_AUTH_TOKEN",
				"git.authheadersecret": "GIT_AUTH_HEADER",
				"git.keepgitdir": "true",
			};
			const encoded = Buffer.from(`x-access-token:${token}`).toString("base64");
			const secrets: readonly Readonly<Record<string, string>>[] = [
				{ GIT_AUTH_TOKEN: `${token}\n` },
				{ [`GIT_AUTH_TOKEN.${host}`]: token, GIT_AUTH_TOKEN: "wrong" },
				{ GIT_AUTH_HEADER: `basic ${encoded}`, GIT_AUTH_TOKEN: "wrong" },
			];
			for (const each of secrets) {
				const source = createGitSource({
					cache: world.fixture.cache,
					env: { PATH: `${bin}:${process.env["PATH"]}` },
				});
				const sessions = [fakeSession({}), fakeSession({ secrets: each })];
				const { files, log } = await fetchTree(world, remote, { attrs, sessions, source });
				assert.deepEqual(files, filesTwo);
				assert.ok(!log.includes(token) && !log.includes(encoded));
			}
			const noted = readFileSync(`${bin}/log`, "utf8");
			assert.match(noted, /fetch --depth=1/);
			assert.ok(!noted.includes(token) && !noted.includes(encoded));
			for (const each of [{}, { GIT_AUTH_TOKEN: "wrong" }]) {
				await rejects(
					fetchTree(world, remote, { attrs, sessions: [fakeSession({ secrets: each })] }),
					"unauthenticated",
					`failed to fetch remote ${remote}: the server wants a login, or the repository does not exist; pass a token as the secret "GIT_AUTH_TOKEN"`,
				);
			}
			// 1: nothing was found.
			const { status } = spawnSync("grep", ["-rqE", `${token}|${encoded}`, world.fixture.folder]);
			assert.equal(status, 1);
		},
		{ PATH: `${bin}:${process.env["PATH"]}` },
	);
});

test("git: nothing of the builder's own configuration is used", async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		const { url } = await world.repositories.serve();
		const own = world.repositories.create("own");
		own.git("config", `url.${url}/main.git.insteadOf`, `${url}/alias.git`);
		const before = process.cwd();
		process.chdir(own.path);
		try {
			await rejects(fetchTree(world, `${url}/alias.git`), "not-found", /: the repository does not exist/);
			assert.deepEqual((await fetchTree(world, `${url}/main.git`)).files, filesTwo);
		} finally {
			process.chdir(before);
		}
	});
});

test("git: a login in the URL is used and never shown", async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		const server = await world.repositories.serve({ token: "pw0rd" });
		const at = (login: string) => `${server.url.replace("//", `//${login}@`)}/main.git`;
		const got = await fetchTree(world, at("x-access-token:pw0rd"), { attrs: { "git.keepgitdir": "true" } });
		assert.deepEqual(got.files, filesTwo);
		assert.doesNotMatch(got.log, /pw0rd/);
		assert.equal(
			await got.git("remote", "get-url", "origin"),
			`${server.url.replace("//", "//xxxxx:xxxxx@")}/main.git`,
		);
		await assert.rejects(fetchTree(world, at("u:wr0ng")), (thrown: Error) => {
			assert.match(thrown.message, /^failed to fetch remote http:\/\/xxxxx:xxxxx@127/);
			assert.doesNotMatch(thrown.message, /wr0ng/);
			return true;
		});
	});
});

test("git: by ssh, with the client's agent and known hosts", async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		const ssh = await world.repositories.serveSsh();
		const remote = `${ssh.url}/main.git`;
		const sessions = [fakeSession({ agents: { default: ssh.agent, empty: ssh.emptyAgent } })];
		const attrs = { "git.mountsshsock": "default", "git.knownsshhosts": ssh.knownHosts };
		assert.deepEqual((await fetchTree(world, remote, { attrs, sessions })).files, filesTwo);
		// Without known hosts any key of the server will do, as in BuildKit.
		const trusting = { "git.mountsshsock": "default" };
		assert.deepEqual(
			(await fetchTree(world, remote, { attrs: trusting, sessions, fragment: "#v1" })).files,
			filesOne,
		);
		await rejects(
			fetchTree(world, remote, { attrs: { ...attrs, "git.mountsshsock": "empty" }, sessions }),
			"unauthenticated",
			/: the server does not accept the ssh keys that the client forwards$/,
		);
		await rejects(
			fetchTree(world, remote, { attrs }),
			"not-found",
			'no SSH key "default" forwarded from the client',
		);
		const otherHost = ssh.knownHosts.replace(/AAAA\S+/, (key) => `${key.slice(0, -6)}AAAAAA`);
		await rejects(
			fetchTree(world, remote, { attrs: { ...attrs, "git.knownsshhosts": otherHost }, sessions }),
			"permission-denied",
			/: the host key of the server is not the known one$/,
		);
		await rejects(
			fetchTree(world, `${ssh.url}/none.git`, { attrs, sessions }),
			"not-found",
			/: the repository does not exist, or may require authorization$/,
		);
	});
});
