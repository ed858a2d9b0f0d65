import assert from "node:assert/strict";
import { lstatSync } from "node:fs";
import { test } from "node:test";
import { commitDate } from "./git-fixture.ts";
import { createMain, fetchTree, filesOne, filesTwo, rejects, withWorld } from "./git-world.ts";
import { recordingOptions } from "./source-fixture.ts";

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
				if (!fragment.includes("/")) {
					const got = await fetchTree(world, url, { fragment });
					assert.deepEqual([got.key, got.files], [key, files], fragment);
				}
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
