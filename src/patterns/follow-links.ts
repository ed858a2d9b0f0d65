import { cleanPath, joinPath } from "./clean-path.ts";
import { compileGlob, hasWildcard } from "./glob.ts";

/** A tree as link resolution sees it; paths are relative to its root, `.` is the root. Missing entries are undefined. */
export interface LinkTree {
	/** Target of the symbolic link at the path; undefined if there is none or it is something else. */
	readLink(path: string): string | undefined;
	/** Names in a directory; undefined if it is none. */
	readDirectory(path: string): readonly string[] | undefined;
}

/** How many links one call follows at most; a tree that needs more is somebody's attack. */
const maxLinks = 10_000;

/**
 * The include patterns that bring the given paths and everything that their symbolic links lead to, links in the middle of a
 * path and wildcards included. Links never lead out of the tree. Undefined: the whole tree is needed.
 */
export function followLinks(tree: LinkTree, paths: readonly string[]): readonly string[] | undefined {
	const resolved = new Set<string>();
	const pending = paths.map((path) => relative(path)).reverse();
	let budget = maxLinks;
	for (let path = pending.pop(); path !== undefined && budget > 0; path = pending.pop()) {
		budget -= 1;
		pending.push(...resolveOne(tree, path, resolved).reverse());
	}
	return withoutNested([...resolved].sort());
}

/** Adds what one path needs by itself; gives the paths that its first link leads to. */
function resolveOne(tree: LinkTree, path: string, resolved: Set<string>): string[] {
	const parts = path.split("/");
	let current = ".";
	for (const [index, part] of parts.entries()) {
		current = joinPath(current, part);
		const rest = parts.slice(index + 1).join("/");
		const targets = linkTargets(tree, current);
		if (targets.length > 0) {
			if (resolved.has(current)) {
				return [];
			}
			resolved.add(current);
			return targets.map((target) => relative(joinPath(target, rest)));
		}
	}
	resolved.add(current);
	return [];
}

function linkTargets(tree: LinkTree, path: string): string[] {
	const slash = path.lastIndexOf("/");
	const directory = slash === -1 ? "." : path.slice(0, slash);
	const base = path.slice(slash + 1);
	if (!hasWildcard(base)) {
		return targetOf(tree, path);
	}
	const glob = compileGlob(base, { doubleStar: false });
	const names = tree.readDirectory(directory) ?? [];
	return names
		.filter((name) => glob.matches(name))
		.flatMap((name) => targetOf(tree, joinPath(directory, name)));
}

function targetOf(tree: LinkTree, path: string): string[] {
	if (path === ".") {
		return [];
	}
	const target = tree.readLink(path);
	if (target === undefined) {
		return [];
	}
	const slash = path.lastIndexOf("/");
	const base = target.startsWith("/") || slash === -1 ? "" : path.slice(0, slash);
	return [cleanPath(`/${joinPath(base, target)}`)];
}

/** Rooted at the tree: `..` cannot leave it. */
function relative(path: string): string {
	const cleaned = cleanPath(`/${path}`).slice(1);
	return cleaned === "" ? "." : cleaned;
}

function withoutNested(sorted: readonly string[]): readonly string[] | undefined {
	const kept: string[] = [];
	for (const path of sorted) {
		if (path === ".") {
			return undefined;
		}
		const last = kept.at(-1);
		if (last === undefined || !path.startsWith(`${last}/`)) {
			kept.push(path);
		}
	}
	return kept;
}
