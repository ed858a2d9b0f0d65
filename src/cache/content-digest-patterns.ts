import { compileGlob, type Glob } from "../patterns/glob.ts";
import { createPatternMatcher } from "../patterns/pattern-matcher.ts";
import type { MatchState, PatternMatcher } from "../patterns/patterns.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf, textOf } from "../sys/byte-names.ts";
import type { DigestOptions } from "./cache.ts";
import { type EntryLookup, keyPath, resolveNode } from "./content-digest-lookup.ts";
import type { TreeNode } from "./content-digest-tree.ts";

/**
 * Which entries a digest with a wildcard or with patterns is made of. BuildKit walks the tree by its keys, in which a directory
 * comes twice, first for what it holds and then for its header; only headers, files and links are counted, and headers of
 * parents when something below them is.
 */
export interface SelectedEntry {
	readonly node: TreeNode;
	/** As the caller sees it: links in front of the first wildcard stay unresolved. */
	readonly path: ByteString;
	/** The path behind the prefix, with NUL in place of slashes, as the digest has it. */
	readonly key: ByteString;
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

/** A directory whose header counts once something in it does. */
interface OpenDirectory {
	readonly entry: SelectedEntry;
	included: boolean;
	readonly include: MatchState | undefined;
	readonly exclude: MatchState | undefined;
}

/** Walks what is known of the tree; `path` is the one that the caller gave. */
export function select(
	start: SelectionStart,
	path: string,
	options: SelectOptions,
): readonly SelectedEntry[] {
	const include = matcherOf(options.includePatterns);
	const exclude = matcherOf(options.excludePatterns);
	const whole =
		options.wildcard && start.path !== ""
			? compileGlob(textOf(start.path), { doubleStar: false })
			: undefined;
	const skipsOwnHeader = path.endsWith("/");
	const entries: SelectedEntry[] = [];
	const open: OpenDirectory[] = [];

	/** `relative` is the path behind what the wildcard matched, or behind the start; undefined while nothing matched. */
	const walk = (node: TreeNode, at: ByteString, key: ByteString, relative: ByteString | undefined): void => {
		if (relative === undefined && whole?.matches(textOf(at)) !== false) {
			relative = "";
		}
		let isOpen = false;
		if (relative !== undefined && !(node.kind === "directory" && skipsOwnHeader && at === start.path)) {
			const text = textOf(relative);
			const parent = open.at(-1);
			const included = include?.matchesWithParent(text, parent?.include);
			const passed = included?.matched ?? true;
			const excluded = passed ? exclude?.matchesWithParent(text, parent?.exclude) : undefined;
			const counts = passed && excluded?.matched !== true;
			const follow = parent === undefined && options.followLinks && node.kind === "symlink";
			const entry: SelectedEntry = { node, path: at, key, follow };
			if (counts) {
				for (const directory of open) {
					if (!directory.included) {
						entries.push(directory.entry);
						directory.included = true;
					}
				}
				entries.push(entry);
			}
			if (node.kind === "directory") {
				open.push({ entry, included: counts, include: included, exclude: excluded });
				isOpen = true;
			}
		}
		for (const child of node.children.values()) {
			const below = relative === undefined || relative === "" ? relative : `${relative}/`;
			walk(
				child,
				`${at}/${child.name}`,
				`${key}\0${child.name}`,
				below === undefined ? undefined : below + child.name,
			);
		}
		if (isOpen) {
			open.pop();
		}
	};
	if (start.node !== undefined) {
		walk(start.node, start.prefix, "", whole === undefined ? "" : undefined);
	}
	return entries;
}

function matcherOf(patterns: readonly string[]): PatternMatcher | undefined {
	return patterns.length === 0 ? undefined : createPatternMatcher(patterns);
}
