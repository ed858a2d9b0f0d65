import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
	chmodSync,
	existsSync,
	lstatSync,
	mkdirSync,
	readdirSync,
	readFileSync,
	writeFileSync,
} from "node:fs";
import { test } from "node:test";
import { SlipwayError } from "../errors/errors.ts";
import { createGitSource } from "./git.ts";
import { commitDate, openRepositories, type ServeOptions } from "./git-fixture.ts";
import { createMain, fetchTree, filesOne, filesTwo, rejects, type Wanted, withWorld } from "./git-world.ts";
import { fakeSession, recordingOptions } from "./source-fixture.ts";

test("git: refs in all their forms, with BuildKit's keys", async () => {
	const umask = process.umask(0o077);
	try {
		await withWorld(async (world) => {
			const { one, two, feature, tag } = createMain(world.repositories);
			const server = await world.repositories.serve();
			const url = `${server.url}/main.git`;
			const cases: readonly (readonly [string, string, Readonly<Record<string, string>>, string])[] = [
				["", two, filesTwo, `${two}.git#refs/heads/main`],
				["#main", two, filesTwo, `${two}.git#refs/heads/main`],
				["#refs/heads/main", two, filesTwo, `${two}.git#refs/heads/main`],
				["#heads/main", two, filesTwo, `${two}.git#refs/heads/main`],
				["#feature/x", feature, { b: "644 feature" }, `${feature}.git#refs/heads/feature/x`],
				["#v1", one, filesOne, `${tag}.git#refs/tags/v1`],
				["#refs/tags/v1", one, filesOne, `${tag}.git#refs/tags/v1`],
				["#light", one, filesOne, `${one}.git#refs/tags/light`],
				[`#${one}`, one, filesOne, `${one}.git#${one}`],
			];
			for (const [fragment, key, files, keptKey] of cases) {
				const got = await fetchTree(world, url, { fragment });
				assert.deepEqual([got.key, got.files], [key, files], fragment);
				const kept = await fetchTree(world, url, { fragment, attrs: { "git.keepgitdir": "true" } });
				assert.deepEqual([kept.key, kept.files], [keptKey, files], fragment);
				assert.equal(await kept.git("status", "--porcelain"), "", fragment);
				assert.equal(await kept.git("rev-parse", "HEAD"), key, fragment);
				assert.equal(await kept.git("remote", "get-url", "origin"), url);
				const refs = await kept.git("for-each-ref", "--format=%(refname)");
				const expected = {
					"": "refs/heads/main",
					"#heads/main": "refs/heads/main",
					"#v1": "refs/tags/v1",
					"#light": "refs/heads/light\nrefs/tags/light",
					[`#${one}`]: "",
				}[fragment];
				assert.equal(
					refs,
					expected ?? (fragment.includes("refs/") ? fragment.slice(1) : `refs/heads/${fragment.slice(1)}`),
				);
			}
		});
	} finally {
		process.umask(umask);
	}
});

test("git: what is known is not fetched again", async () => {
	await withWorld(async (world) => {
		const { repository, one } = createMain(world.repositories);
		const server = await world.repositories.serve();
		const url = `${server.url}/main.git`;
		const first = await fetchTree(world, url);
		assert.match(first.log, /refs\/heads\/main/);
		server.requests();
		const second = await fetchTree(world, url);
		assert.equal(second.id, first.id);
		assert.equal(
			server.requests().some((line) => line.includes("POST") && !line.includes("git-upload-pack")),
			false,
		);
		// The same files for another key come out of the kept repository.
		await fetchTree(world, url, { attrs: { "git.mtime": "commit" } });
		assert.equal(server.requests().filter((line) => line.startsWith("GET")).length, 1);
		await fetchTree(world, url, { fragment: `#${one}` });
		server.requests();
		await fetchTree(world, url, { fragment: `#${one}` });
		await fetchTree(world, url, { fragment: `#${one}:dir` });
		assert.deepEqual(server.requests(), []);
		repository.commit({ c: "3" });
		assert.deepEqual((await fetchTree(world, url)).files, { ...filesTwo, c: "644 3" });
		const records = await world.fixture.cache.usage({ signal: world.fixture.signal });
		assert.deepEqual(records.map(({ description, recordType }) => `${recordType} ${description}`).sort(), [
			`regular shared git repo for ${url}`,
			`source.git.checkout git snapshot for ${url}#${one}`,
			`source.git.checkout git snapshot for ${url}#${one}`,
			`source.git.checkout git snapshot for ${url}#main`,
			`source.git.checkout git snapshot for ${url}#main`,
			`source.git.checkout git snapshot for ${url}#main`,
		]);
	});
});

test("git: subdirectories, never through a link", async () => {
	await withWorld(async (world) => {
		const repository = world.repositories.create("main");
		const commit = repository.commit({
			"a/b/c": "deep",
			"a/b/checkout": "x",
			out: "->/etc",
			"a/up": "->b",
			file: "text",
		});
		const { url } = await world.repositories.serve();
		const remote = `${url}/main.git`;
		const got = await fetchTree(world, remote, { fragment: "#main:/a/./x/../b/" });
		assert.deepEqual(got.files, { c: "644 deep", checkout: "644 x" });
		assert.equal(got.key, `${commit}:a/b`);
		assert.equal((await fetchTree(world, remote, { fragment: "#:../.." })).key, commit);
		await rejects(
			fetchTree(world, remote, { fragment: "#:out" }),
			"invalid-argument",
			'invalid subdir out: git subpath "out" contains non-directory "out"',
		);
		await rejects(
			fetchTree(world, remote, { fragment: "#:a/up" }),
			"invalid-argument",
			/contains non-directory "a\/up"$/,
		);
		await rejects(
			fetchTree(world, remote, { fragment: "#:file/x" }),
			"invalid-argument",
			/non-directory "file"$/,
		);
		await rejects(
			fetchTree(world, remote, { fragment: "#:a/none/x" }),
			"not-found",
			`invalid subdir a/none/x: "a/none" does not exist in ${remote}`,
		);
	});
});

test("git: submodules, by relative URLs, that move, and never from this machine's files", async () => {
	await withWorld(async (world) => {
		const { repositories } = world;
		const inner = repositories.create("inner");
		const innerCommit = inner.commit({ x: "innermost" });
		const sub = repositories.create("sub");
		const modules = (path: string, url: string): string =>
			`[submodule "s"]\n\tpath = ${path}\n\turl = ${url}\n`;
		const subCommit = sub.commit({
			y: "in sub",
			".gitmodules": modules("deeper", "../inner.git"),
			deeper: `submodule:${innerCommit}`,
		});
		const main = repositories.create("main");
		const commit = main.commit({
			".gitmodules": modules("lib/s", "../sub.git"),
			"lib/s": `submodule:${subCommit}`,
		});
		const { url } = await repositories.serve();
		const remote = `${url}/main.git`;
		for (const attrs of [{}, { "git.keepgitdir": "true" }]) {
			const { files } = await fetchTree(world, remote, { attrs });
			assert.deepEqual([files["lib/s/y"], files["lib/s/deeper/x"]], ["644 in sub", "644 innermost"]);
		}
		assert.deepEqual((await fetchTree(world, remote, { fragment: "#:lib/s/deeper" })).files, {
			x: "644 innermost",
		});
		const skipped = await fetchTree(world, remote, { attrs: { "git.skipsubmodules": "true" } });
		assert.deepEqual(Object.keys(skipped.files), [".gitmodules"]);
		assert.equal(skipped.key, `${commit}(skip-submodules)`);
		// The same name at another place.
		const other = repositories.create("other");
		const otherCommit = other.commit({ z: "other" });
		main.commit({ ".gitmodules": modules("lib/s", "../other.git"), "lib/s": `submodule:${otherCommit}` });
		assert.equal((await fetchTree(world, remote)).files["lib/s/z"], "644 other");
		main.commit({ ".gitmodules": modules("lib/s", `file://${sub.path}`), "lib/s": `submodule:${subCommit}` });
		await rejects(fetchTree(world, remote), "unknown", /transport 'file' not allowed|Failed to clone|fetch/i);
		// A repository inside of a repository, committed by mistake: nobody says where it is from.
		const stray = repositories.create("stray");
		stray.commit({ a: "x", inside: `submodule:${subCommit}` });
		assert.deepEqual((await fetchTree(world, `${url}/stray.git`)).files, { a: "644 x" });
	});
});

test("git: checksums, and fetching by commit without asking for the ref", async () => {
	await withWorld(async (world) => {
		const { one, two, tag } = createMain(world.repositories);
		const server = await world.repositories.serve();
		const url = `${server.url}/main.git`;
		const at = (fragment: string, checksum: string, attrs: Record<string, string> = {}) =>
			fetchTree(world, url, { fragment, attrs: { "git.checksum": checksum, ...attrs } });
		assert.equal((await at("#main", two.slice(0, 8))).key, two);
		assert.equal((await at("", two.toUpperCase())).key, two);
		// Of an annotated tag, the object or the commit.
		assert.equal((await at("#v1", tag)).key, one);
		assert.equal((await at("#v1", one)).key, one);
		assert.equal((await at(`#${one}`, one)).key, one);
		await rejects(at("#main", one), "failed-precondition", `expected checksum to match ${one}, got ${two}`);
		await rejects(
			at("#v1", two),
			"failed-precondition",
			`expected checksum to match ${two}, got ${tag} or ${one}`,
		);
		await rejects(at(`#${one}`, two), "failed-precondition", `expected checksum to match ${two}, got ${one}`);
		await rejects(
			at("#main", "xyz"),
			"invalid-argument",
			"invalid checksum xyz for Git URL, expected hex commit hash",
		);
		server.requests();
		const byCommit = { "git.fetchbycommit": "true", "git.keepgitdir": "true" };
		const got = await at("#feature/x", two, byCommit);
		assert.deepEqual([got.key, got.files], [`${two}.git#refs/heads/feature/x`, filesTwo]);
		assert.equal(await got.git("for-each-ref", "--format=%(refname)"), "refs/heads/feature/x");
		assert.equal((await at("", one, byCommit)).key, `${one}.git#${one}`);
		await rejects(
			at("", one.slice(1), byCommit),
			"invalid-argument",
			/requires a full commit SHA checksum, got "/,
		);
		await rejects(
			fetchTree(world, url, { attrs: byCommit }),
			"invalid-argument",
			"fetch-by-commit requires a checksum or a commit SHA ref",
		);
	});
});

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

test("git: SHA-256 repositories", async () => {
	await withWorld(async (world) => {
		const repository = world.repositories.create("main", ["--object-format=sha256"]);
		const commit = repository.commit({ a: "x" });
		const { url } = await world.repositories.serve();
		for (const fragment of ["", `#${commit}`]) {
			const got = await fetchTree(world, `${url}/main.git`, {
				fragment,
				attrs: { "git.keepgitdir": "true" },
			});
			assert.deepEqual([got.key.slice(0, 64), got.files], [commit, { a: "644 x" }]);
			assert.equal(await got.git("rev-parse", "HEAD"), commit);
		}
	});
});

test("git: times of the commit", async () => {
	await withWorld(async (world) => {
		createMain(world.repositories);
		const { url } = await world.repositories.serve();
		const instance = world.source.open({
			identifier: `git://${url.slice("http://".length)}/main.git#v1`,
			attrs: { "git.fullurl": `${url}/main.git`, "git.mtime": "commit" },
			platform: undefined,
			sessions: () => [],
		});
		const options = recordingOptions();
		assert.match((await instance.cacheKey(0, options)).key, /^[0-9a-f]{40}\(mtime=commit\)$/);
		await using ref = await instance.snapshot(options);
		assert.ok(ref !== undefined);
		await world.fixture.read(ref, (dir) => {
			for (const path of ["", "a.txt", "dir", "dir/link", "dir/run.sh"]) {
				assert.equal(
					lstatSync(`${dir}/${path}`).mtime.toISOString(),
					new Date(commitDate).toISOString(),
					path,
				);
			}
		});
	});
});

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
