import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { type CacheFixture, openFixture } from "../cache/cache-fixture.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";
import { createGitSource } from "./git.ts";
import { openRepositories, type Repositories, type Repository } from "./git-fixture.ts";
import type { Source } from "./source.ts";
import { recordingOptions } from "./source-fixture.ts";

/** For tests of the git source: a cache, repositories, and what comes out. */
export interface World {
	readonly fixture: CacheFixture;
	readonly repositories: Repositories;
	readonly source: Source;
}

export async function withWorld(
	body: (world: World) => Promise<void>,
	env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<void> {
	await using fixture = await openFixture("native");
	await using repositories = openRepositories();
	await body({ fixture, repositories, source: createGitSource({ cache: fixture.cache, env }) });
}

export interface Wanted {
	/** `#ref:subdir`. */
	readonly fragment?: string;
	readonly attrs?: Readonly<Record<string, string>>;
	readonly sessions?: readonly Session[];
	/** Between the key and the files. */
	readonly meanwhile?: () => void;
	readonly signal?: AbortSignal;
	readonly source?: Source;
}

export interface Got {
	readonly key: string;
	/** Paths, with what they are and hold; `.git` is left out. */
	readonly files: Readonly<Record<string, string>>;
	readonly log: string;
	/** What git says in the tree. */
	git(...args: readonly string[]): Promise<string>;
	readonly id: string;
}

export async function fetchTree(world: World, remote: string, wanted: Wanted = {}): Promise<Got> {
	const { fixture } = world;
	const instance = (wanted.source ?? world.source).open({
		identifier: `git://host/path${wanted.fragment ?? ""}`,
		attrs: { "git.fullurl": remote, ...wanted.attrs },
		platform: undefined,
		sessions: () => wanted.sessions ?? [],
	});
	const options = recordingOptions(wanted.signal);
	const { key, last } = await instance.cacheKey(0, options);
	assert.equal(last, true);
	wanted.meanwhile?.();
	await using ref = await instance.snapshot(options);
	assert.ok(ref !== undefined);
	const { id } = ref;
	const files: Record<string, string> = {};
	const visit = (dir: string, prefix: string): void => {
		for (const name of readdirSync(dir)) {
			const path = `${dir}/${name}`;
			const stat = lstatSync(path);
			assert.deepEqual([stat.uid, stat.gid], [process.getuid?.(), process.getgid?.()]);
			const mode = (stat.mode & 0o7777).toString(8);
			if (name === ".git") {
				continue;
			}
			if (stat.isDirectory()) {
				assert.equal(mode, "755");
				visit(path, `${prefix}${name}/`);
			} else {
				files[prefix + name] = stat.isSymbolicLink()
					? `->${readlinkSync(path)}`
					: `${mode} ${readFileSync(path, "utf8")}`;
			}
		}
	};
	await fixture.read(ref, (dir) => visit(dir, ""));
	return {
		key,
		files,
		id,
		log: options.log(),
		git: async (...args) => {
			const again = await fixture.cache.get(ref.id);
			assert.ok(again !== undefined);
			await using held = again;
			return fixture.read(held, (dir) =>
				execFileSync("git", ["-c", `safe.directory=${dir}`, ...args], {
					cwd: dir,
					env: { PATH: process.env["PATH"] ?? "", HOME: "/nonexistent", GIT_CONFIG_NOSYSTEM: "1" },
				})
					.toString()
					.trim(),
			);
		},
	};
}

export async function rejects(work: Promise<unknown>, code: string, message: RegExp | string): Promise<void> {
	await assert.rejects(work, (thrown) => {
		assert.ok(thrown instanceof SlipwayError, String(thrown));
		if (typeof message === "string") {
			assert.equal(thrown.message, message);
		} else {
			assert.match(thrown.message, message);
		}
		assert.equal(thrown.code, code);
		return true;
	});
}

/** main: one, then two; feature/x; annotated v1 and light at one. */
export function createMain(repositories: Repositories): {
	readonly repository: Repository;
	readonly one: string;
	readonly two: string;
	readonly feature: string;
	readonly tag: string;
} {
	const repository = repositories.create("main");
	const one = repository.commit({ "a.txt": "one", "dir/run.sh": "#!/bin/sh", "dir/link": "->../a.txt" });
	repository.git("tag", "-a", "-m", "x", "v1", "main");
	repository.git("tag", "light", "main");
	const two = repository.commit({ "a.txt": "two" });
	const feature = repository.commit({ b: "feature" }, "feature/x");
	return { repository, one, two, feature, tag: repository.git("rev-parse", "v1") };
}

export const filesOne: Readonly<Record<string, string>> = {
	"a.txt": "644 one",
	"dir/run.sh": "755 #!/bin/sh",
	"dir/link": "->../a.txt",
};
export const filesTwo: Readonly<Record<string, string>> = { ...filesOne, "a.txt": "644 two" };
