import assert from "node:assert/strict";
import { chmodSync, existsSync, readdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { SlipwayError } from "../errors/errors.ts";
import { createGitSource } from "./git.ts";
import type { ServeOptions } from "./git-fixture.ts";
import { createMain, fetchTree, filesOne, filesTwo, rejects, type Wanted, withWorld } from "./git-world.ts";

test("git: a ref that moves between key and files gives what the key says, as long as the server has it", async () => {
	const serve: readonly ServeOptions[] = [{}, { old: true }];
	for (const options of serve) {
		await withWorld(async (world) => {
			const { repository, two } = createMain(world.repositories);
			const { url } = await world.repositories.serve(options);
			await rejects(
				fetchTree(world, `${url}/main.git`, {
					fragment: "#feature/x",
					meanwhile: () => {
						repository.git("update-ref", "refs/heads/feature/x", "main");
						repository.git("reflog", "expire", "--all", "--expire=now");
						repository.git("gc", "--quiet", "--prune=now");
					},
				}),
				"not-found",
				/^fetched ref feature\/x of \S+ does not match expected commit [0-9a-f]{40} and commit can not be found/,
			);
			const got = await fetchTree(world, `${url}/main.git`, {
				meanwhile: () => void repository.commit({ "a.txt": "three" }),
			});
			assert.deepEqual([got.key, got.files], [two, filesTwo]);
		});
	}
});

test("git: servers that give nothing by commit, and those that are plain files", async () => {
	await withWorld(async (world) => {
		const { repository, one } = createMain(world.repositories);
		const old = await world.repositories.serve({ old: true });
		assert.deepEqual((await fetchTree(world, `${old.url}/main.git`)).files, filesTwo);
		assert.deepEqual(
			(await fetchTree(world, `${old.url}/main.git`, { fragment: `#${one}` })).files,
			filesOne,
		);
		await rejects(
			fetchTree(world, `${old.url}/main.git`, { fragment: `#${"1".repeat(40)}` }),
			"not-found",
			/: repository does not contain commit 1{40}$/,
		);
		repository.git("update-server-info");
		const dumb = await world.repositories.serve({ dumb: true });
		const fresh = createGitSource({ cache: world.fixture.cache, env: process.env });
		assert.deepEqual((await fetchTree(world, `${dumb.url}/main.git`, { source: fresh })).files, filesTwo);
	});
});

test("git: what goes wrong is said in a sentence", async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		world.repositories.create("empty");
		const server = await world.repositories.serve({
			intercept: (request, response) => {
				const forbidden = request.url?.startsWith("/forbidden") === true;
				if (forbidden) {
					response.writeHead(403).end();
				}
				return forbidden;
			},
		});
		const remote = `${server.url}/main.git`;
		await rejects(
			fetchTree(world, remote, { fragment: "#nope" }),
			"not-found",
			`failed to fetch remote ${remote}: repository does not contain ref nope`,
		);
		await rejects(
			fetchTree(world, `${server.url}/none.git`),
			"not-found",
			`failed to fetch remote ${server.url}/none.git: the repository does not exist, or may require authorization`,
		);
		await rejects(
			fetchTree(world, `${server.url}/forbidden.git`),
			"permission-denied",
			/: the server does not let this login read the repository$/,
		);
		await rejects(
			fetchTree(world, `${server.url}/empty.git`),
			"not-found",
			`could not find default branch for repository: ${server.url}/empty.git`,
		);
		await rejects(
			fetchTree(world, "http://127.0.0.1:1/x.git"),
			"unavailable",
			/: no connection to the server$/,
		);
		const bare = createGitSource({ cache: world.fixture.cache, env: { PATH: "/nonexistent" } });
		await rejects(
			fetchTree(world, remote, { source: bare }),
			"failed-precondition",
			`failed to fetch remote ${remote}: git is not installed on the builder`,
		);
	});
});

test("git: what is no repository's name is never an option or a file of this machine", async () => {
	await withWorld(async (world) => {
		const made = `${world.repositories.folder}/made`;
		const { repository } = createMain(world.repositories);
		const open = (remote: string, wanted: Wanted = {}) => fetchTree(world, remote, wanted);
		const program = `--upload-pack=touch ${made}`;
		await rejects(open("-x@host:path"), "invalid-argument", 'invalid git remote "-x@host:path"');
		await rejects(open("http://a/b\nc"), "invalid-argument", 'invalid git remote "http://a/b\\nc"');
		await rejects(
			open("http://a/b", { fragment: `#${program}` }),
			"invalid-argument",
			/^invalid git ref "--upload-pack/,
		);
		await rejects(open("http://a/b", { fragment: "#-x" }), "invalid-argument", 'invalid git ref "-x"');
		for (const remote of [
			program,
			repository.path,
			`file://${repository.path}`,
			`ext::sh -c touch% ${made}`,
		]) {
			await assert.rejects(open(remote), SlipwayError, remote);
		}
		await assert.rejects(open(`ssh://-oProxyCommand=touch%20${made}/x`), SlipwayError);
		assert.equal(existsSync(made), false);
		for (const key of ["git.bundle", "git.checkoutbundle", "git.sig.pubkey"]) {
			await rejects(
				open("http://a/b", { attrs: { [key]: "true" } }),
				"unimplemented",
				new RegExp(`\\(${key}\\) is not supported$`),
			);
		}
		await rejects(
			open("http://a/b", { attrs: { "git.mtime": "now" } }),
			"invalid-argument",
			'invalid git.mtime "now", expected "checkout" or "commit"',
		);
	});
});

test("git: a kept repository that is damaged, locked or in the way is healed", async () => {
	await withWorld(async (world) => {
		const { repository } = createMain(world.repositories);
		const { url } = await world.repositories.serve();
		const remote = `${url}/main.git`;
		const { cache } = world.fixture;
		const kept = async (spoil: (dir: string) => void): Promise<void> => {
			const [id] = cache.search(`git-remote::${remote}`);
			assert.ok(id !== undefined);
			await using ref = await cache.getMutable(id);
			assert.ok(ref !== undefined);
			spoil(ref.directory());
		};
		await fetchTree(world, remote);
		await kept((dir) => {
			writeFileSync(`${dir}/index.lock`, "");
			writeFileSync(`${dir}/shallow.lock`, "");
		});
		repository.commit({ n: "1" });
		assert.equal((await fetchTree(world, remote)).files["n"], "644 1");
		await kept((dir) => {
			for (const file of readdirSync(`${dir}/objects`, { recursive: true, withFileTypes: true })) {
				if (file.isFile()) {
					chmodSync(`${file.parentPath}/${file.name}`, 0o644);
					writeFileSync(`${file.parentPath}/${file.name}`, "damaged");
				}
			}
		});
		repository.commit({ n: "2" });
		assert.equal((await fetchTree(world, remote)).files["n"], "644 2");
		// One name, then a directory of that name.
		repository.commit({ d: "1" }, "topic");
		await fetchTree(world, remote, { fragment: "#topic" });
		repository.git("update-ref", "-d", "refs/heads/topic");
		repository.commit({ d: "2" }, "topic/sub");
		assert.deepEqual((await fetchTree(world, remote, { fragment: "#topic/sub" })).files, { d: "644 2" });
	});
});

test("git: cancelling ends git and its helpers", { timeout: 20_000 }, async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		const controller = new AbortController();
		const closed = Promise.withResolvers<void>();
		const server = await world.repositories.serve({
			intercept: (request) => {
				if (request.method !== "POST") {
					return false;
				}
				// The connection ends with the process that has it.
				request.socket.once("close", () => closed.resolve());
				controller.abort(new SlipwayError("canceled", "enough"));
				return true;
			},
		});
		await rejects(
			fetchTree(world, `${server.url}/main.git`, { signal: controller.signal }),
			"canceled",
			"enough",
		);
		await closed.promise;
	});
});

test("git: a server that hangs is given up", { timeout: 20_000 }, async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		const server = await world.repositories.serve({ intercept: () => true });
		const source = createGitSource({ cache: world.fixture.cache, env: process.env, timeoutMs: 100 });
		await rejects(
			fetchTree(world, `${server.url}/main.git`, { source }),
			"deadline-exceeded",
			`failed to fetch remote ${server.url}/main.git: git did not end within 0.1 seconds`,
		);
	});
});
