import {
	existsSync,
	lstatSync,
	lutimesSync,
	mkdtempSync,
	readdirSync,
	renameSync,
	rmSync,
	type Stats,
} from "node:fs";
import { redactUrl, SlipwayError } from "../errors/errors.ts";
import { type GitTree, isCommitSha } from "./git-attrs.ts";
import { type Git, gitFailureOf, tryGit } from "./git-command.ts";
import type { SharedRepository } from "./git-repository.ts";
import type { ResolvedGit } from "./git-resolve.ts";

/** Writes the wanted tree into `target`, an empty directory. */
export async function checkOut(
	{ git, gitDir, wantedRef }: SharedRepository,
	{ tree, wanted, target }: { readonly tree: GitTree; readonly wanted: ResolvedGit; readonly target: string },
): Promise<void> {
	const hasSubdir = tree.subdir !== "";
	const workTree = hasSubdir ? mkdtempSync(`${target}/checkout`) : target;
	let place = { gitDir, workTree };
	if (tree.keepGitDir && !hasSubdir) {
		place = { gitDir: `${target}/.git`, workTree };
		await cloneInto(git, place, { tree, wanted, from: gitDir, wantedRef });
	} else {
		await git.run(["checkout", "--quiet", "--no-overlay", wantedRef, "--", "."], place);
	}
	// Without the file no submodule has a URL; asking git costs as much as a checkout.
	if (!tree.skipSubmodules && existsSync(`${workTree}/.gitmodules`)) {
		await updateSubmodules(git, place);
	}
	if (hasSubdir) {
		takeSubdir(workTree, tree, target);
	}
	if (tree.mtime === "commit") {
		const seconds = Number(await git.run(["log", "-1", "--format=%ct", `${wantedRef}^{commit}`], { gitDir }));
		await setTimes(target, seconds);
	}
}

/** A repository of its own with one commit, as a shallow clone of the remote would be. */
async function cloneInto(
	git: Git,
	place: { readonly gitDir: string; readonly workTree: string },
	{
		tree,
		wanted,
		from,
		wantedRef,
	}: {
		readonly tree: GitTree;
		readonly wanted: ResolvedGit;
		readonly from: string;
		readonly wantedRef: string;
	},
): Promise<void> {
	const format = wanted.object.length === 64 ? ["--object-format=sha256"] : [];
	const quiet = ["-c", "core.logAllRefUpdates=false"];
	await git.run(["-c", "init.defaultBranch=master", "init", "--quiet", ...format], place);
	await git.run(["remote", "add", "--", "origin", redactUrl(tree.remote)], place);
	const type = (await git.run(["cat-file", "-t", wantedRef], { gitDir: from })).trim();
	const names = localNames(wanted, type === "tag");
	// By the file protocol: a clone by links can be led to other files of this machine.
	await git.run(
		[
			...quiet,
			"fetch",
			"--quiet",
			"--update-head-ok",
			"--depth=1",
			"--no-tags",
			"--",
			`file://${from}`,
			...(names.length === 0 ? [wantedRef] : names.map((name) => `${wantedRef}:${name}`)),
		],
		place,
	);
	await git.run([...quiet, "checkout", "--quiet", "FETCH_HEAD"], place);
	rmSync(`${place.gitDir}/FETCH_HEAD`, { force: true });
}

/** Under which the commit is found in the new repository; by git's rules, short names become branches. */
function localNames({ ref, name }: ResolvedGit, isTagObject: boolean): readonly string[] {
	if (isCommitSha(ref)) {
		return [];
	}
	if (isTagObject) {
		return [ref.startsWith("refs/tags/") ? ref : `refs/tags/${ref}`];
	}
	const full = ref.startsWith("refs/")
		? ref
		: /^(?:heads|tags|remotes)\//.test(ref)
			? `refs/${ref}`
			: `refs/heads/${ref}`;
	// What is a tag is to be found as one, by `git describe` for example.
	return name.startsWith("refs/tags/") && name !== full ? [full, name] : [full];
}

async function updateSubmodules(
	git: Git,
	place: { readonly gitDir: string; readonly workTree: string },
): Promise<void> {
	const update = ["submodule", "update", "--init", "--recursive", "--depth=1"];
	const modules = `${place.gitDir}/modules`;
	const wereKept = existsSync(modules);
	try {
		await git.run(update, place);
	} catch (thrown) {
		if (!wereKept || gitFailureOf(thrown) === undefined) {
			throw thrown;
		}
		// Where another commit had its submodules is remembered, and what was fetched of them may be damaged.
		await tryGit(git, ["submodule", "--quiet", "deinit", "--all", "--force"], place);
		rmSync(modules, { recursive: true, force: true });
		await git.run(update, place);
	}
}

/** Moves what is in the subdirectory up, and removes the rest. */
function takeSubdir(workTree: string, tree: GitTree, target: string): void {
	let path = "";
	for (const part of tree.subdir.split("/")) {
		path = path === "" ? part : `${path}/${part}`;
		let stat: Stats | undefined;
		try {
			stat = lstatSync(`${workTree}/${path}`, { throwIfNoEntry: false });
		} catch {
			// Below a file.
		}
		// A link may lead out of the repository.
		if (!stat?.isDirectory()) {
			throw new SlipwayError(
				stat === undefined ? "not-found" : "invalid-argument",
				`invalid subdir ${tree.subdir}: ${
					stat === undefined
						? `${JSON.stringify(path)} does not exist in ${redactUrl(tree.remote)}`
						: `git subpath ${JSON.stringify(tree.subdir)} contains non-directory ${JSON.stringify(path)}`
				}`,
			);
		}
	}
	const from = Buffer.from(`${workTree}/${tree.subdir}/`);
	const to = Buffer.from(`${target}/`);
	// Bytes, as names in a repository need not be UTF-8.
	for (const name of readdirSync(from, { encoding: "buffer" })) {
		renameSync(Buffer.concat([from, name]), Buffer.concat([to, name]));
	}
	rmSync(workTree, { recursive: true, force: true });
}

/** Entries between two turns of the event loop. */
const batch = 500;

/** Everything in `root`, and itself; links not followed, directories after what is in them. */
async function setTimes(root: string, seconds: number): Promise<void> {
	let count = 0;
	const visit = async (path: Buffer, isDirectory: boolean): Promise<void> => {
		if (isDirectory) {
			for (const entry of readdirSync(path, { encoding: "buffer", withFileTypes: true })) {
				await visit(Buffer.concat([path, Buffer.from("/"), entry.name]), entry.isDirectory());
			}
		}
		lutimesSync(path, seconds, seconds);
		if (++count % batch === 0) {
			await new Promise((resolve) => setImmediate(resolve));
		}
	};
	await visit(Buffer.from(root), true);
}
