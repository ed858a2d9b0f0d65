import { createKeyedLock, type KeyedLock } from "../async/keyed-lock.ts";
import type { CacheManager, ImmutableRef } from "../cache/cache.ts";
import { redactUrl, SlipwayError } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";
import { type GitAccessOptions, openGit } from "./git-access.ts";
import { type GitTree, parseGitTree } from "./git-attrs.ts";
import { checkOut } from "./git-checkout.ts";
import type { Git } from "./git-command.ts";
import { type SharedRepository, withRepository } from "./git-repository.ts";
import { gitCacheKey, type ResolvedGit, resolveByItself, resolveByServer } from "./git-resolve.ts";
import type {
	DescribeSourceOptions,
	Source,
	SourceDescription,
	SourceInstance,
	SourceOptions,
} from "./source.ts";

export interface GitSourceOptions {
	readonly cache: Pick<CacheManager, "createMutable" | "get" | "getMutable" | "search">;
	/** `PATH`, where git and ssh are, and the proxies; nothing else reaches git. */
	readonly env: Readonly<Record<string, string | undefined>>;
	/** The longest time of one git command; default one hour. */
	readonly timeoutMs?: number;
}

/** `git://`: the files of a commit, by http, https, ssh or git's own protocol. */
export function createGitSource(options: GitSourceOptions): Source {
	const services: Services = {
		cache: options.cache,
		access: { env: options.env, timeoutMs: options.timeoutMs ?? 3_600_000 },
		lock: createKeyedLock(),
	};
	return {
		schemes: ["git"],
		open: (request) => new GitInstance(parseGitTree(request), request.sessions, services),
	};
}

interface Services {
	readonly cache: GitSourceOptions["cache"];
	readonly access: GitAccessOptions;
	/** By remote, whose repository has one user at a time, and by tree, which is checked out once. */
	readonly lock: KeyedLock;
}

class GitInstance implements SourceInstance {
	readonly #tree: GitTree;
	readonly #sessions: () => readonly Session[];
	readonly #services: Services;
	#resolved: ResolvedGit | undefined;

	constructor(tree: GitTree, sessions: () => readonly Session[], services: Services) {
		this.#tree = tree;
		this.#sessions = sessions;
		this.#services = services;
	}

	async cacheKey(
		_: number,
		options: SourceOptions,
	): Promise<{ readonly key: string; readonly last: boolean }> {
		return { key: gitCacheKey(this.#tree, await this.#resolve(options)), last: true };
	}

	async snapshot(options: SourceOptions): Promise<ImmutableRef> {
		const { cache, lock } = this.#services;
		const { signal } = options;
		const wanted = await this.#resolve(options);
		const index = `git-snapshot::${gitCacheKey(this.#tree, wanted)}:${this.#tree.subdir}`;
		return lock.run(index, { signal }, async () => {
			for (const id of cache.search(index)) {
				const known = await cache.get(id);
				if (known !== undefined) {
					return known;
				}
			}
			const ref = await this.#fetched(wanted, options, (repository) =>
				this.#checkOut(repository, wanted, options),
			);
			ref.setIndex(index);
			return ref;
		});
	}

	/** The committer's time, behind a tag too. */
	async modified(options: SourceOptions): Promise<number> {
		const wanted = await this.#resolve(options);
		const text = await this.#fetched(wanted, options, ({ git, gitDir, wantedRef }) =>
			git.run(["log", "-1", "--format=%ct", `${wantedRef}^{commit}`], { gitDir }),
		);
		return Number(text);
	}

	async describe({ gitObject, ...options }: DescribeSourceOptions): Promise<SourceDescription> {
		const wanted = await this.#resolve(options);
		const { name: ref, object: checksum, commit: commitChecksum = "" } = wanted;
		if (!gitObject) {
			return { git: { checksum, ref, commitChecksum } };
		}
		const objects = await this.#fetched(wanted, options, async ({ git, gitDir }) => {
			const show = (...args: readonly string[]): Promise<string> => git.run(args, { gitDir });
			const type = (await show("cat-file", "-t", checksum)).trim();
			if (type !== "commit" && type !== "tag") {
				throw new SlipwayError("unknown", `expected commit or tag object, got ${type}`);
			}
			const commit = type === "commit" ? "" : (await show("rev-parse", `${checksum}^{commit}`)).trim();
			const encoder = new TextEncoder();
			return {
				commitChecksum: commit,
				commitObject: encoder.encode(await show("cat-file", "commit", commit || checksum)),
				...(commit === "" ? {} : { tagObject: encoder.encode(await show("cat-file", "tag", checksum)) }),
			};
		});
		return { git: { checksum, ref, ...objects } };
	}

	#fetched<T>(
		wanted: ResolvedGit,
		options: SourceOptions,
		work: (repository: SharedRepository) => Promise<T>,
	): Promise<T> {
		const { cache, lock } = this.#services;
		const { signal } = options;
		return lock.run(`remote ${this.#tree.remote}`, { signal }, () =>
			this.#withGit(options, (git) => withRepository(this.#tree, wanted, { ...options, cache, git }, work)),
		);
	}

	async #resolve(options: SourceOptions): Promise<ResolvedGit> {
		this.#resolved ??=
			resolveByItself(this.#tree) ??
			(await this.#withGit(options, (git) => resolveByServer(git, this.#tree)));
		return this.#resolved;
	}

	async #withGit<T>(options: SourceOptions, work: (git: Git) => Promise<T>): Promise<T> {
		const { access } = this.#services;
		await using git = await openGit(this.#tree, this.#sessions(), { ...access, ...options });
		return await work(git);
	}

	async #checkOut(
		repository: SharedRepository,
		wanted: ResolvedGit,
		{ signal }: SourceOptions,
	): Promise<ImmutableRef> {
		const ref = await this.#services.cache.createMutable({
			description: `git snapshot for ${redactUrl(this.#tree.remote)}#${wanted.ref}`,
			recordType: "source.git.checkout",
			signal,
		});
		try {
			await checkOut(repository, { tree: this.#tree, wanted, target: ref.directory() });
			return await ref.commit();
		} catch (thrown) {
			await ref.discard();
			throw thrown;
		}
	}
}
