import { existsSync, rmSync } from "node:fs";
import type { CacheManager, MutableRef } from "../cache/cache.ts";
import { hasCode, redactUrl, SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { type GitTree, isCommitSha } from "./git-attrs.ts";
import { type Git, type GitFailure, gitFailureOf, tryGit } from "./git-command.ts";
import { isLocalDamage } from "./git-error.ts";
import type { ResolvedGit } from "./git-resolve.ts";
import type { SourceOptions } from "./source.ts";

/**
 * A bare repository with what was fetched of one remote, kept from build to build. One build at a time uses it. All that it
 * holds can be fetched again, so a broken one is thrown away.
 */
export interface SharedRepository {
	readonly git: Git;
	readonly gitDir: string;
	/** A ref in it that points to the wanted object. */
	readonly wantedRef: string;
}

const indexOf = (remote: string): string => `git-remote::${remote}`;

/** Locks that a killed git left; the caller alone has the repository. */
const staleLocks = ["shallow.lock", "index.lock", "config.lock", "packed-refs.lock", "HEAD.lock"];

/** Gives `work` the repository with the wanted object; once more with a new one, if the kept one seems to be broken. */
export async function withRepository<T>(
	tree: GitTree,
	wanted: ResolvedGit,
	options: SourceOptions & {
		readonly cache: Pick<CacheManager, "createMutable" | "getMutable" | "search">;
		readonly git: Git;
	},
	work: (repository: SharedRepository) => Promise<T>,
): Promise<T> {
	const { cache, git } = options;
	const attempt = async (ref: MutableRef, isNew: boolean): Promise<T> => {
		const gitDir = ref.directory();
		if (isNew) {
			await initialize(git, gitDir, tree, wanted);
			ref.setIndex(indexOf(tree.remote));
		}
		for (const name of staleLocks) {
			rmSync(`${gitDir}/${name}`, { force: true });
		}
		const wantedRef = await fetchWanted(git, gitDir, tree, wanted);
		return work({ git, gitDir, wantedRef });
	};
	const kept = await findKept(cache, tree.remote);
	if (kept !== undefined) {
		let failure: GitFailure | undefined;
		try {
			return await attempt(kept, false);
		} catch (thrown) {
			failure = gitFailureOf(thrown);
			if (failure === undefined || !isLocalDamage(failure)) {
				failure = undefined;
				throw thrown;
			}
		} finally {
			await (failure === undefined ? kept.release() : kept.discard());
		}
	}
	const fresh = await cache.createMutable({
		description: `shared git repo for ${redactUrl(tree.remote)}`,
		retain: true,
		signal: options.signal,
	});
	try {
		const result = await attempt(fresh, true);
		await fresh.release();
		return result;
	} catch (thrown) {
		await fresh.discard();
		throw thrown;
	}
}

async function findKept(
	cache: Pick<CacheManager, "getMutable" | "search">,
	remote: string,
): Promise<MutableRef | undefined> {
	for (const id of cache.search(indexOf(remote))) {
		try {
			const ref = await cache.getMutable(id);
			if (ref !== undefined) {
				return ref;
			}
		} catch (thrown) {
			// Another one has it: do without.
			if (!hasCode(thrown, "failed-precondition")) {
				throw thrown;
			}
		}
	}
	return undefined;
}

async function initialize(git: Git, gitDir: string, tree: GitTree, wanted: ResolvedGit): Promise<void> {
	const format = wanted.object.length === 64 ? ["--object-format=sha256"] : [];
	await git.run(["-c", "init.defaultBranch=master", "init", "--quiet", "--bare", "--template=", ...format], {
		gitDir,
	});
	await git.run(["remote", "add", "--", "origin", tree.remote], { gitDir });
}

/**
 * Fetches the wanted object with no more history than needed: by its name, then by itself where the name has moved on or is
 * not known, then with all there is for servers that give nothing by its object name. The ref is set last and means that
 * nothing is missing.
 */
async function fetchWanted(git: Git, gitDir: string, tree: GitTree, wanted: ResolvedGit): Promise<string> {
	// By digest: names of one time may be directories of names of another time.
	const wantedRef = `refs/slipway/${sha256(wanted.ref).slice("sha256:".length)}`;
	const at = { gitDir };
	const points = async (): Promise<boolean> =>
		(await tryGit(git, ["rev-parse", "--verify", "--quiet", wantedRef], at))?.trim() === wanted.object;
	if (await points()) {
		return wantedRef;
	}
	const byName = !isCommitSha(wanted.name) && !tree.fetchByCommit;
	if (byName) {
		await fetch(git, gitDir, ["--depth=1", "--no-tags"], [`+${wanted.name}:${wantedRef}`]);
		if (await points()) {
			return wantedRef;
		}
	}
	try {
		await fetch(git, gitDir, ["--depth=1", "--no-tags"], [`+${wanted.object}:${wantedRef}`]);
	} catch (thrown) {
		if (!isRefused(thrown)) {
			throw thrown;
		}
		const all = existsSync(`${gitDir}/shallow`) ? ["--unshallow"] : [];
		// Names on the server may have become directories of names, and the other way round.
		const flags = ["--tags", "--force", "--prune", ...all];
		await fetch(git, gitDir, flags, ["+refs/heads/*:refs/remotes/origin/*"]);
		if ((await tryGit(git, ["cat-file", "-e", wanted.object], at)) === undefined) {
			throw new SlipwayError(
				"not-found",
				byName
					? `fetched ref ${wanted.ref} of ${redactUrl(tree.remote)} does not match expected commit ${wanted.object} and commit can not be found in the repository`
					: `failed to fetch remote ${redactUrl(tree.remote)}: repository does not contain commit ${wanted.object}`,
				{ cause: thrown },
			);
		}
		await git.run(["update-ref", "--no-deref", wantedRef, wanted.object], at);
	}
	return wantedRef;
}

/** Without `--depth` where the server, or its plain file transport, cannot. */
async function fetch(
	git: Git,
	gitDir: string,
	flags: readonly string[],
	refspecs: readonly string[],
): Promise<void> {
	const run = (some: readonly string[]): Promise<string> =>
		git.run(["fetch", ...some, "--refmap=", "--", "origin", ...refspecs], { gitDir });
	try {
		await run(flags);
	} catch (thrown) {
		const { stderr = "" } = gitFailureOf(thrown) ?? {};
		if (!flags.includes("--depth=1") || !/--depth|shallow/.test(stderr)) {
			throw thrown;
		}
		await run(flags.filter((flag) => flag !== "--depth=1"));
	}
}

/** In upload-pack.c and fetch-pack.c of git: objects are given only by the names that point to them. */
function isRefused(thrown: unknown): boolean {
	return /not our ref|unadvertised object|does not allow request for/.test(
		gitFailureOf(thrown)?.stderr ?? "",
	);
}
