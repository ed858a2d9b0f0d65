import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ImmutableRef } from "../cache/cache.ts";
import { openFixture } from "../cache/cache-fixture.ts";
import { hasCode } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import type { ProgressEvent } from "../progress/progress.ts";
import { createLocalSession, type LocalSession } from "../session/local-session.ts";
import { createLocalSource } from "./local.ts";
import type { SourceInstance } from "./source.ts";

const vertex = sha256("vertex");

interface World extends AsyncDisposable {
	readonly fixture: Awaited<ReturnType<typeof openFixture>>;
	readonly directory: string;
	readonly events: ProgressEvent[];
	session(id?: string, names?: readonly string[]): LocalSession;
	open(attrs?: Readonly<Record<string, string>>, sessions?: readonly LocalSession[]): SourceInstance;
	snapshot(instance: SourceInstance, signal?: AbortSignal): Promise<ImmutableRef>;
	content(ref: ImmutableRef, path: string): Promise<string | undefined>;
	digest(ref: ImmutableRef, path: string): Promise<string>;
}

async function createWorld(): Promise<World> {
	const fixture = await openFixture();
	const directory = mkdtempSync(join(tmpdir(), "slipway-local-"));
	const events: ProgressEvent[] = [];
	const sessions: LocalSession[] = [];
	const session = (id = "s1", names: readonly string[] = ["context"]): LocalSession => {
		const made = createLocalSession({
			id,
			sharedKey: "project:node",
			directories: Object.fromEntries(names.map((name) => [name, { path: directory }])),
			pool: fixture.pool,
		});
		sessions.push(made);
		return made;
	};
	return {
		fixture,
		directory,
		events,
		session,
		open: (attrs = {}, asked) =>
			createLocalSource({ cache: fixture.cache }).open({
				identifier: "local://context",
				attrs,
				platform: undefined,
				sessions: () => asked ?? [session()],
			}),
		async snapshot(instance, signal = fixture.signal) {
			const ref = await instance.snapshot({
				signal,
				vertex,
				progress: { write: (event) => events.push(event) },
			});
			assert.ok(ref !== undefined);
			return ref;
		},
		content: (ref, path) =>
			fixture.read(ref, (dir) =>
				existsSync(join(dir, path)) ? readFileSync(join(dir, path), "utf8") : undefined,
			),
		digest: (ref, path) =>
			ref.digests.digest(path, {
				signal: fixture.signal,
				followLinks: true,
				wildcard: false,
				includePatterns: [],
				excludePatterns: [],
			}),
		async [Symbol.asyncDispose]() {
			await Promise.all(sessions.map((each) => each[Symbol.asyncDispose]()));
			await fixture[Symbol.asyncDispose]();
			rmSync(directory, { recursive: true, force: true });
		},
	};
}

/** Until files written just now are old enough to be trusted by their times. */
const settle = (): Promise<void> => sleep(50);

test("cacheKey is BuildKit's", async () => {
	await using world = await createWorld();
	const { key, last } = await world
		.open({
			"local.session": "abc",
			"local.includepattern": '["a<b","*.go"]',
			"local.excludepatterns": "[]",
			"local.sharedkeyhint": "hint",
			"local.unique": "u",
		})
		.cacheKey(0, { signal: world.fixture.signal, vertex, progress: { write: () => {} } });
	const json =
		'{"SessionID":"abc","IncludePatterns":["a\\u003cb","*.go"],"ExcludePatterns":[],"FollowPaths":null}';
	assert.equal(key, `session:context:sha256:${createHash("sha256").update(json).digest("hex")}`);
	assert.equal(last, true);
});

test("open rejects attributes that mean nothing", async () => {
	await using world = await createWorld();
	for (const [attrs, expected] of [
		[{ "local.includepattern": "nope" }, /invalid JSON in local.includepattern: "nope"/],
		[{ "local.followpaths": "[1]" }, /local.followpaths must be a list of strings/],
		[{ "local.differ": "content" }, /invalid value for local.differ "content"/],
		[{ "local.metadatatransfer": "maybe" }, /invalid value for local.metadatatransfer "maybe"/],
		[{ "local.metadatatransfer": "true" }, /transfer of metadata alone is not supported/],
	] as const) {
		assert.throws(() => world.open(attrs), expected);
	}
});

test("a copy is made once, refreshed by the next build, and its known digests follow", async () => {
	await using world = await createWorld();
	mkdirSync(join(world.directory, "d"));
	writeFileSync(join(world.directory, "d/a"), "one");
	writeFileSync(join(world.directory, "b"), "same");
	await settle();
	const first = await world.snapshot(world.open());
	assert.equal(await world.content(first, "d/a"), "one");
	const digest = await world.digest(first, "/d");
	await first.release();

	const second = await world.snapshot(world.open());
	assert.equal(await world.digest(second, "/d"), digest);
	await second.release();

	writeFileSync(join(world.directory, "d/a"), "two");
	unlinkSync(join(world.directory, "b"));
	await settle();
	const third = await world.snapshot(world.open());
	assert.equal(await world.content(third, "d/a"), "two");
	assert.notEqual(await world.digest(third, "/d"), digest);
	await assert.rejects(world.digest(third, "/b"), (error) => hasCode(error, "not-found"));
	writeFileSync(join(world.directory, "b"), "same");
	await third.release();
	const fourth = await world.snapshot(world.open());
	assert.match(await world.digest(fourth, "/b"), /^sha256:/);
	await fourth.release();
	assert.equal(world.fixture.cache.search("local.sharedKey:context::project:node").length, 1);
});

test("builds at the same time get copies of their own", async () => {
	await using world = await createWorld();
	writeFileSync(join(world.directory, "a"), "1");
	const [one, two] = await Promise.all([world.snapshot(world.open()), world.snapshot(world.open())]);
	assert.notEqual(one.id, two.id);
	assert.equal(await world.content(one, "a"), "1");
	assert.equal(await world.content(two, "a"), "1");
	await one.release();
	await two.release();
});

test("a builder that died while it copied leaves a copy that is looked at before it is used", async () => {
	await using world = await createWorld();
	writeFileSync(join(world.directory, "a"), "1");
	writeFileSync(join(world.directory, "b"), "2");
	await settle();
	const ref = await world.snapshot(world.open());
	await ref.release();
	// The state is taken away first, and then the copy is written to.
	const [id] = world.fixture.cache.search("local.sharedKey:context::project:node");
	assert.ok(id !== undefined);
	const kept = await world.fixture.cache.getMutable(id);
	assert.ok(kept !== undefined);
	assert.ok(existsSync(`${kept.directory()}.sync`));
	rmSync(`${kept.directory()}.sync`);
	writeFileSync(join(kept.directory(), "a"), "half");
	writeFileSync(join(kept.directory(), "stray"), "");
	await kept.release();
	await world.fixture.reopen({ kill: true });
	const again = await world.snapshot(world.open());
	assert.equal(await world.content(again, "a"), "1");
	assert.equal(await world.content(again, "stray"), undefined);
	assert.deepEqual(world.fixture.cache.search("local.sharedKey:context::project:node").length, 1);
	await again.release();
});

test("a copy that is not what was remembered is made anew", async () => {
	await using world = await createWorld();
	mkdirSync(join(world.directory, "d"));
	writeFileSync(join(world.directory, "d/a"), "1");
	await settle();
	const ref = await world.snapshot(world.open());
	await ref.release();
	const [id] = world.fixture.cache.search("local.sharedKey:context::project:node");
	assert.ok(id !== undefined);
	const kept = await world.fixture.cache.getMutable(id);
	assert.ok(kept !== undefined);
	rmSync(join(kept.directory(), "d"), { recursive: true });
	await kept.release();
	writeFileSync(join(world.directory, "d/b"), "2");
	const again = await world.snapshot(world.open());
	assert.equal(await world.content(again, "d/a"), "1");
	assert.equal(await world.content(again, "d/b"), "2");
	await again.release();
});

test("a session that lends no such directory is passed over; none at all is an error", async () => {
	await using world = await createWorld();
	writeFileSync(join(world.directory, "a"), "1");
	const other = world.session("other", ["elsewhere"]);
	const good = world.session("good");
	const ref = await world.snapshot(world.open({ "local.session": "other" }, [good, other]));
	assert.equal(await world.content(ref, "a"), "1");
	await ref.release();
	await assert.rejects(
		world.snapshot(world.open({}, [other])),
		(error) =>
			hasCode(error, "not-found") && /no access allowed to dir "context"/.test((error as Error).message),
	);
	await assert.rejects(world.snapshot(world.open({}, [])), /could not access local files without session/);
});

test("the transfer is reported with its bytes", async () => {
	await using world = await createWorld();
	writeFileSync(join(world.directory, "a"), "12345");
	const ref = await world.snapshot(world.open());
	await ref.release();
	const statuses = world.events.flatMap((event) => (event.kind === "status" ? [event.status] : []));
	const last = statuses.at(-1);
	assert.equal(statuses[0]?.id, "transferring context:");
	assert.equal(statuses[0]?.completed, undefined);
	assert.equal(last?.current, 5);
	assert.ok((last?.completed ?? 0) >= (last?.started ?? Number.POSITIVE_INFINITY));
});

test("an aborted transfer ends with the reason, and the next build goes on", async () => {
	await using world = await createWorld();
	for (let index = 0; index < 1200; index++) {
		writeFileSync(join(world.directory, `f${index}`), `${index}`);
	}
	const controller = new AbortController();
	const running = world.snapshot(world.open(), controller.signal);
	controller.abort();
	await assert.rejects(running, (error) => hasCode(error, "canceled"));
	const ref = await world.snapshot(world.open());
	assert.equal(await world.content(ref, "f1199"), "1199");
	await ref.release();
});
