import { redactUrl, SlipwayError } from "../errors/errors.ts";
import { checkBranch, type GitTree, isCommitSha } from "./git-attrs.ts";
import type { Git } from "./git-command.ts";

/** What the ref of a tree stands for now. */
export interface ResolvedGit {
	/** The full name on the server, or the commit itself. */
	readonly name: string;
	/** As the user writes it; the default branch if he wrote nothing. */
	readonly ref: string;
	/** The object that the name points to: a commit, or the object of an annotated tag. */
	readonly object: string;
	/** The commit behind an annotated tag, where it is known. */
	readonly commit: string | undefined;
}

/** Without asking the server, where the build says it all; else undefined. */
export function resolveByItself(tree: GitTree): ResolvedGit | undefined {
	const { ref, checksum } = tree;
	if (isCommitSha(ref)) {
		if (!ref.startsWith(checksum)) {
			throw mismatch(checksum, ref);
		}
		return { name: ref, ref, object: ref, commit: undefined };
	}
	if (!tree.fetchByCommit) {
		return undefined;
	}
	if (!isCommitSha(checksum)) {
		throw new SlipwayError(
			"invalid-argument",
			checksum === ""
				? "fetch-by-commit requires a checksum or a commit SHA ref"
				: `fetch-by-commit requires a full commit SHA checksum, got ${JSON.stringify(checksum)}`,
		);
	}
	// A short name is a branch, so that the key is the one that asking the server would give.
	const name = ref === "" ? checksum : ref.startsWith("refs/") ? ref : `refs/heads/${ref}`;
	return { name, ref: name, object: checksum, commit: undefined };
}

/** Asks the server. */
export async function resolveByServer(git: Git, tree: GitTree): Promise<ResolvedGit> {
	return tree.ref === "" ? resolveDefaultBranch(git, tree) : resolveName(git, tree);
}

async function resolveDefaultBranch(git: Git, { remote, checksum }: GitTree): Promise<ResolvedGit> {
	const output = await git.run(["ls-remote", "--symref", "--", remote, "HEAD"], { show: true });
	const branch = /^ref: refs\/heads\/(\S+)\tHEAD$/m.exec(output)?.[1];
	const object = /^([0-9a-f]+)\tHEAD$/m.exec(output)?.[1];
	if (branch === undefined || object === undefined) {
		throw new SlipwayError("not-found", `could not find default branch for repository: ${redactUrl(remote)}`);
	}
	checkObject(object);
	if (!object.startsWith(checksum)) {
		throw mismatch(checksum, object);
	}
	return { name: `refs/heads/${branch}`, ref: checkBranch(branch), object, commit: undefined };
}

/** Of equal names the exact one under `refs/` goes first, then the branch, then the tag, as in git's checkout. */
async function resolveName(git: Git, tree: GitTree): Promise<ResolvedGit> {
	const { remote, ref, checksum, keepGitDir } = tree;
	const output = await git.run(["ls-remote", "--", remote, ref, `${ref}^{}`], { show: true });
	const objects = new Map<string, string>();
	for (const line of output.split("\n")) {
		const tab = line.indexOf("\t");
		objects.set(line.slice(tab + 1), line.slice(0, tab));
	}
	const under = (prefix: string): string =>
		prefix + (ref.startsWith(prefix) ? ref.slice(prefix.length) : ref);
	const tag = under("refs/tags/");
	const name = [under("refs/"), under("refs/heads/"), tag].find((each) => objects.has(each));
	const object = objects.get(name ?? "");
	if (name === undefined || object === undefined) {
		throw new SlipwayError(
			"not-found",
			`failed to fetch remote ${redactUrl(remote)}: repository does not contain ref ${ref}`,
		);
	}
	checkObject(object);
	const commit = name === tag ? objects.get(`${tag}^{}`) : undefined;
	if (!object.startsWith(checksum) && !commit?.startsWith(checksum)) {
		throw mismatch(checksum, commit === undefined ? object : `${object} or ${commit}`);
	}
	// With the history kept, the tag's object is part of the result.
	return { name, ref, object, commit: keepGitDir ? undefined : commit };
}

function checkObject(object: string): void {
	if (!isCommitSha(object)) {
		throw new SlipwayError("data-loss", `invalid commit sha ${JSON.stringify(object)}`);
	}
}

function mismatch(checksum: string, got: string): SlipwayError {
	return new SlipwayError("failed-precondition", `expected checksum to match ${checksum}, got ${got}`);
}

/** BuildKit's key, so that caches travel. */
export function gitCacheKey(tree: GitTree, { name, object, commit }: ResolvedGit): string {
	return [
		isCommitSha(name) ? name : (commit ?? object),
		tree.keepGitDir ? `.git#${name}` : "",
		tree.subdir === "" ? "" : `:${tree.subdir}`,
		tree.skipSubmodules ? "(skip-submodules)" : "",
		tree.mtime === "commit" ? "(mtime=commit)" : "",
	].join("");
}
