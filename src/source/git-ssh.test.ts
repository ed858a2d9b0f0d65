import assert from "node:assert/strict";
import { test } from "node:test";
import { createMain, fetchTree, filesOne, filesTwo, rejects, withWorld } from "./git-world.ts";
import { fakeSession } from "./source-fixture.ts";

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
