import { SlipwayError } from "../errors/errors.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { ByteString } from "../sys/byte-names.ts";
import type { TreeNode } from "./content-digest-tree.ts";

/** Linux's own limit for one path. */
const maxLinks = 255;

/** The entry of a directory, from what is known or from disk; undefined if there is none. */
export type EntryLookup = (directory: TreeNode, name: ByteString) => TreeNode | undefined;

/** The path as a key of the tree: absolute and clean, empty for the root. */
export function keyPath(path: ByteString): ByteString {
	const clean = cleanPath(`/${path}`);
	return clean === "/" ? "" : clean;
}

/** What is at a path none of whose parts is a link. */
export function nodeAt(root: TreeNode, path: ByteString, lookup: EntryLookup): TreeNode | undefined {
	let node: TreeNode | undefined = root;
	for (const name of path.split("/")) {
		if (name !== "") {
			node = node?.kind === "directory" ? lookup(node, name) : undefined;
		}
	}
	return node;
}

/**
 * What is at a path whose links are followed inside of the tree, the last one only if asked. Parts that do not exist are
 * passed over by text, as BuildKit does: `missing/../etc` is `etc`.
 */
export function resolveNode(
	root: TreeNode,
	path: ByteString,
	followLast: boolean,
	lookup: EntryLookup,
): TreeNode | undefined {
	const direct = nodeAt(root, path, lookup);
	if (direct !== undefined && !(followLast && direct.kind === "symlink")) {
		return direct;
	}
	let current = "";
	let remaining = path;
	let links = 0;
	let found: TreeNode | undefined;
	while (remaining !== "") {
		const slash = remaining.indexOf("/");
		const part = slash < 0 ? remaining : remaining.slice(0, slash);
		remaining = slash < 0 ? "" : remaining.slice(slash + 1);
		const next = keyPath(`${current}/${part}`);
		found = nodeAt(root, next, lookup);
		if (found?.kind !== "symlink") {
			current = next;
			continue;
		}
		if (!followLast && remaining === "") {
			break;
		}
		if (++links > maxLinks) {
			throw new SlipwayError("failed-precondition", "too many links");
		}
		remaining = `${found.target}/${remaining}`;
		if (found.target.startsWith("/")) {
			current = "";
		}
	}
	return found;
}
