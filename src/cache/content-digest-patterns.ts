import type { ByteString } from "../archive/archive.ts";
import { bytesOf, textOf } from "../archive/names.ts";
import { compileGlob, type Glob } from "../patterns/glob.ts";
import { createPatternMatcher } from "../patterns/pattern-matcher.ts";
import type { MatchState, PatternMatcher } from "../patterns/patterns.ts";
import type { DigestOptions } from "./cache.ts";
import { type EntryLookup, keyPath, resolveNode } from "./content-digest-lookup.ts";
import type { TreeNode } from "./content-digest-tree.ts";

/**
 * Which entries a digest with a wildcard or with patterns is made of. BuildKit walks the tree by its keys, in which a directory
 * comes twice, first for what it holds and then for its header; only headers, files and links are counted, and headers of
 * parents when something below them is.
 */
export interface Selection {
	/** Paths are as the caller sees them: links in front of the first wildcard stay unresolved. */
	readonly entries: readonly SelectedEntry[];
	/** Left out of the paths in the digest. */
	readonly prefix: ByteString;
}

export interface SelectedEntry {
	readonly path: ByteString;
	readonly node: TreeNode;
	/** A link that counts as what it leads to. */
	readonly follow: boolean;
}

export type SelectOptions = Pick<
	DigestOptions,
	"wildcard" | "followLinks" | "includePatterns" | "excludePatterns"
>;

/** What a wildcard or patterns look through; its names are loaded before the selection. */
export interface SelectionStart {
	/** Where the walk begins; undefined if there is nothing. */
	readonly node: TreeNode | undefined;
	/** The path of `node` as the caller sees it, links unresolved. */
	readonly prefix: ByteString;
	/** The clean path as a whole, perhaps with a wildcard. */
	readonly path: ByteString;
	/**
	 * One glob per part of the path behind the prefix. Undefined if the walk has to see everything: without a wildcard,
	 * or with a class, which may match a slash.
	 */
	readonly parts: readonly Glob[] | undefined;
}

export function startSelection(
	root: TreeNode,
	path: string,
	options: SelectOptions,
	lookup: EntryLookup,
): SelectionStart {
	const key = keyPath(bytesOf(path));
	if (!options.wildcard) {
		const node = key === "" ? root : resolveNode(root, key, false, lookup);
		return { node, prefix: key, path: key, parts: undefined };
	}
	const parts = key.split("/").filter((part) => part !== "");
	const first = parts.findIndex(hasWildcard);
	const plain = first < 0 ? parts : parts.slice(0, first);
	const wild = first < 0 ? [] : parts.slice(first);
	const prefix = plain.map((part) => `/${part}`).join("");
	const node = prefix === "" ? root : resolveNode(root, prefix, wild.length > 0, lookup);
	const globs = key.includes("[")
		? undefined
		: wild.map((part) => compileGlob(textOf(part), { doubleStar: false }));
	return { node, prefix, path: key, parts: globs };
}

/** A class and an escape as `path.Match` has them, not those that are escaped themselves. */
function hasWildcard(part: ByteString): boolean {
	return /^(?:[^\\*?[]|\\.)*[*?[]/.test(part);
}

/** An entry whose own children may have to be counted with it. */
interface OpenDirectory {
	readonly entry: SelectedEntry;
	included: boolean;
	readonly include: MatchState | undefined;
	readonly exclude: MatchState | undefined;
}

/** Walks what is known of the tree; `path` is the one that the caller gave. */
export function select(start: SelectionStart, path: string, options: SelectOptions): Selection {
	const { node: first, prefix, path: key } = start;
	const include = matcherOf(options.includePatterns);
	const exclude = matcherOf(options.excludePatterns);
	const whole = options.wildcard && key !== "" ? compileGlob(textOf(key), { doubleStar: false }) : undefined;
	const skipsOwnHeader = path.endsWith("/");
	const entries: SelectedEntry[] = [];
	const open: OpenDirectory[] = [];
	let matched = "";

	const visit = (node: TreeNode, at: ByteString, header: boolean): void => {
		while (open.length > 0 && !isBelow(header ? `${at}/` : at, open.at(-1)?.entry.path ?? "")) {
			open.pop();
		}
		const parent = open.at(-1);
		if (header && at === key && skipsOwnHeader) {
			return;
		}
		let base = key;
		if (options.wildcard) {
			if (whole !== undefined && (matched === "" || !isBelow(at, matched))) {
				if (!whole.matches(textOf(at))) {
					return;
				}
				matched = at;
			}
			base = matched;
		}
		const relative = textOf(trimEnd(trimStart(`${at}/`, `${base}/`)));
		const included = include?.matchesWithParent(relative, parent?.include);
		const passed = included?.matched ?? true;
		const excluded = passed ? exclude?.matchesWithParent(relative, parent?.exclude) : undefined;
		const counts = passed && excluded?.matched !== true;
		if (node.kind === "directory" && !header) {
			return;
		}
		if (!counts && !header) {
			return;
		}
		const follow = parent === undefined && options.followLinks && node.kind === "symlink";
		const entry: SelectedEntry = { path: at, node, follow };
		if (counts) {
			for (const directory of open) {
				if (!directory.included) {
					entries.push(directory.entry);
					directory.included = true;
				}
			}
			entries.push(entry);
		}
		if (header) {
			open.push({ entry, included: counts, include: included, exclude: excluded });
		}
	};
	const walk = (node: TreeNode, at: ByteString): void => {
		visit(node, at, false);
		if (node.kind === "directory") {
			visit(node, at, true);
			for (const child of node.children.values()) {
				walk(child, `${at}/${child.name}`);
			}
		}
	};
	if (first !== undefined) {
		walk(first, prefix);
	}
	return { entries, prefix };
}

function matcherOf(patterns: readonly string[]): PatternMatcher | undefined {
	return patterns.length === 0 ? undefined : createPatternMatcher(patterns);
}

function isBelow(path: ByteString, directory: ByteString): boolean {
	return path.startsWith(`${directory}/`);
}

function trimStart(text: string, prefix: string): string {
	return text.startsWith(prefix) ? text.slice(prefix.length) : text;
}

function trimEnd(text: string): string {
	return text.endsWith("/") ? text.slice(0, -1) : text;
}
