import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { hasCode, toError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import type { ContentDigests, ImmutableRef } from "./cache.ts";
import { type CacheFixture, openFixture } from "./cache-fixture.ts";
import { digestHeader } from "./content-digest-header.ts";
import { type DigestQuery, digestQueries, writeDigestTree } from "./digest-tree.fixture.ts";

/** BuildKit's digests for `digestQueries`, of the tree as it lies on disk and as a local source receives it. */
const expected = JSON.parse(
	readFileSync(new URL("corpus/content-digests.json", import.meta.url), "utf8"),
) as Readonly<Record<"scanned" | "received", readonly string[]>>;

const { signal } = new AbortController();

async function ask(digests: ContentDigests, query: DigestQuery): Promise<string> {
	try {
		return await digests.digest(query.path, {
			wildcard: query.wildcard ?? false,
			followLinks: query.follow ?? false,
			includePatterns: query.include ?? [],
			excludePatterns: query.exclude ?? [],
			requiredPaths: query.required ?? [],
			signal,
		});
	} catch (thrown) {
		return `error: ${toError(thrown).message}`;
	}
}

async function askAll(
	digests: ContentDigests,
	queries: readonly DigestQuery[],
): Promise<ReadonlyMap<DigestQuery, string>> {
	const answers = new Map<DigestQuery, string>();
	for (const query of queries) {
		answers.set(query, await ask(digests, query));
	}
	return answers;
}

function check(answers: ReadonlyMap<DigestQuery, string>, kind: "scanned" | "received"): void {
	for (const [index, query] of digestQueries.entries()) {
		assert.equal(answers.get(query), expected[kind][index], JSON.stringify(query));
	}
}

const deviceDigest = sha256(
	digestHeader({
		kind: "character-device",
		mode: 0o666,
		uid: 0,
		gid: 0,
		size: 0,
		target: "",
		deviceMajor: 1,
		deviceMinor: 3,
		xattrs: new Map(),
	}),
);

async function makeTree(fixture: CacheFixture): Promise<ImmutableRef> {
	return fixture.make(undefined, writeDigestTree);
}

describe("content digests", () => {
	it("are BuildKit's, whatever is asked first, and after a restart without files", async () => {
		await using fixture = await openFixture();
		const ref = await makeTree(fixture);
		const shuffled = digestQueries.map((query, index) => ({
			query,
			at: (index * 29) % digestQueries.length,
		}));
		const order = shuffled.sort((a, b) => a.at - b.at).map(({ query }) => query);
		check(await askAll(ref.digests, order), "scanned");
		await fixture.reopen();
		const again = (await fixture.cache.get(ref.id)) as ImmutableRef;
		// Nothing of it is read again.
		const [layer] = await again.layers({ signal });
		const files = `${fixture.folder}/snapshots/${layer?.snapshot}/fs`;
		renameSync(files, `${files}-away`);
		mkdirSync(files);
		const found = await askAll(
			again.digests,
			digestQueries.filter((_, index) => !expected.scanned[index]?.startsWith("error")),
		);
		for (const [index, query] of digestQueries.entries()) {
			if (found.has(query)) {
				assert.equal(found.get(query), expected.scanned[index], JSON.stringify(query));
			}
		}
	});

	it("are the same for a tree in layers, through a mount", async () => {
		await using fixture = await openFixture();
		const base = await fixture.make(undefined, (dir) => {
			writeDigestTree(dir);
			writeFileSync(`${dir}/extra`, "");
			rmSync(`${dir}/app/main.go`);
			writeFileSync(`${dir}/app/main.go`, "old");
		});
		const top = await fixture.make(base, (dir) => {
			rmSync(`${dir}/extra`);
			rmSync(`${dir}/app`, { recursive: true });
			writeFileSync(`${dir}/app.txt`, "beside\n");
			mkdirSync(`${dir}/again`);
			chmodSync(`${dir}/again`, 0o755);
			writeDigestTree(`${dir}/again`);
			renameSync(`${dir}/again/app`, `${dir}/app`);
			rmSync(`${dir}/again`, { recursive: true });
		});
		check(await askAll(top.digests, digestQueries), "scanned");
	});

	it("of what a client sent are BuildKit's of local sources", async () => {
		await using fixture = await openFixture();
		const source = await fixture.cache.createMutable({ retain: true, description: "local", signal });
		fixture.write(source, (dir) => {
			writeDigestTree(dir);
			chownSync(`${dir}/bin/owned`, 0, 0);
		});
		source.digests.omitRoot();
		source.digests.set("/bin/null", { kind: "file", digest: deviceDigest });
		const ref = await source.freeze();
		check(await askAll(ref.digests, digestQueries), "received");
	});

	it("follow a local source's changes, and only read those", async () => {
		await using fixture = await openFixture();
		const source = await fixture.cache.createMutable({ retain: true, description: "local", signal });
		fixture.write(source, (dir) => {
			mkdirSync(`${dir}/d/e`, { recursive: true });
			writeFileSync(`${dir}/d/a`, "1");
			writeFileSync(`${dir}/d/e/b`, "1");
			writeFileSync(`${dir}/c`, "1");
		});
		const first = await source.freeze();
		const whole = { path: "/" };
		const before = await ask(first.digests, whole);
		const other = await ask(first.digests, { path: "/d/e" });
		await first.release();
		await fixture.reopen();

		const next = await fixture.cache.getMutable(source.id);
		assert.ok(next);
		fixture.write(next, (dir) => {
			writeFileSync(`${dir}/d/a`, "2");
			writeFileSync(`${dir}/new`, "2");
			rmSync(`${dir}/c`);
			// Not told, and so not seen.
			writeFileSync(`${dir}/d/e/b`, "2");
		});
		next.digests.invalidate(["/d/a", "/new", "/c"]);
		const second = await next.freeze();
		assert.notEqual(await ask(second.digests, whole), before);
		assert.equal(await ask(second.digests, { path: "/d/e" }), other);
		assert.match(await ask(second.digests, { path: "/c" }), /"\/c": not found/);
		assert.match(await ask(second.digests, { path: "/new" }), /^sha256:/);
		await second.release();

		const third = await fixture.cache.getMutable(source.id);
		assert.ok(third);
		fixture.write(third, (dir) => {
			writeFileSync(`${dir}/d/a`, "1");
			writeFileSync(`${dir}/d/e/b`, "1");
			writeFileSync(`${dir}/c`, "1");
			rmSync(`${dir}/new`);
		});
		third.digests.invalidate(["/d/a", "/d/e/b", "/c", "/new"]);
		assert.equal(await ask((await third.freeze()).digests, whole), before);
	});

	it("that were set while writing are believed", async () => {
		await using fixture = await openFixture();
		const source = await fixture.cache.createMutable({ retain: true, description: "local", signal });
		fixture.write(source, (dir) => {
			mkdirSync(`${dir}/d`);
			writeFileSync(`${dir}/d/a`, "1");
		});
		source.digests.set("/d/a", { kind: "file", digest: sha256("a") });
		assert.equal(await ask(source.digests, { path: "/d/a" }), sha256("a"));
	});

	it("of a source whose writer was killed or gave up are forgotten", async () => {
		for (const kill of [true, false]) {
			await using fixture = await openFixture();
			const source = await fixture.cache.createMutable({ retain: true, description: "local", signal });
			fixture.write(source, (dir) => writeFileSync(`${dir}/a`, "1"));
			const first = await source.freeze();
			const before = await ask(first.digests, { path: "/a" });
			await first.release();
			const next = await fixture.cache.getMutable(source.id);
			assert.ok(next);
			fixture.write(next, (dir) => writeFileSync(`${dir}/a`, "2"));
			if (kill) {
				await fixture.reopen({ kill: true });
			} else {
				await next.release();
			}
			const last = await fixture.cache.getMutable(source.id);
			assert.ok(last);
			assert.notEqual(await ask((await last.freeze()).digests, { path: "/a" }), before);
		}
	});

	it("stay with the files when something is built on a local source", async () => {
		await using fixture = await openFixture();
		const source = await fixture.cache.createMutable({ retain: true, description: "local", signal });
		fixture.write(source, (dir) => writeFileSync(`${dir}/a`, "1"));
		source.digests.omitRoot();
		const ref = await source.freeze();
		const before = await ask(ref.digests, { path: "/" });
		await (await fixture.make(ref, () => {})).release();
		assert.equal(await ask(ref.digests, { path: "/" }), before);
	});

	it("reject a bad pattern, and stop when told", async () => {
		await using fixture = await openFixture();
		const ref = await fixture.make(undefined, (dir) => {
			for (let index = 0; index < 100; index++) {
				writeFileSync(`${dir}/${index}`, "");
			}
		});
		assert.match(await ask(ref.digests, { path: "/", include: ["[a"] }), /^error: /);
		const controller = new AbortController();
		const asked = ref.digests.digest("/", {
			wildcard: false,
			followLinks: false,
			includePatterns: [],
			excludePatterns: [],
			signal: controller.signal,
		});
		controller.abort();
		await assert.rejects(asked, (error) => hasCode(toError(error), "canceled"));
		assert.match(await ask(ref.digests, { path: "/" }), /^sha256:/);
	});
});
