import { hash } from "node:crypto";
import { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import type { PackedNames, ScannedEntry } from "./content-digest-scan.ts";

/**
 * What is known of a tree's names and digests. Names and paths are byte strings, whose order is that of bytes; digests are
 * SHA-256 in hex. The digests of what a directory holds depend on everything below and are forgotten upwards.
 */
export interface TreeNode {
	readonly name: ByteString;
	readonly parent: TreeNode | undefined;
	kind: "file" | "directory" | "symlink";
	/** Of a symbolic link. */
	target: ByteString;
	/** Of the file or link, or of the directory's own metadata. */
	digest: string | undefined;
	/** Of what the directory holds, its own metadata in front. */
	contents: string | undefined;
	/** Of a directory; in the order of names once `complete`. */
	children: Map<ByteString, TreeNode>;
	/** `children` has all that the directory has. */
	complete: boolean;
}

export const emptyDigest: string = hash("sha256", "");

export function createNode(
	name: ByteString,
	parent: TreeNode | undefined,
	kind: TreeNode["kind"],
	target: ByteString = "",
): TreeNode {
	return {
		name,
		parent,
		kind,
		target,
		digest: undefined,
		contents: undefined,
		children: kind === "directory" ? new Map() : noChildren,
		complete: false,
	};
}

const noChildren: Map<ByteString, TreeNode> = new Map();

/** Absolute; empty for the root. */
export function pathOf(node: TreeNode): ByteString {
	return node.parent === undefined ? "" : `${pathOf(node.parent)}/${node.name}`;
}

/** Takes over a listing of one directory; what is known of entries that are still there and of their kind is kept. */
export function setEntries(node: TreeNode, entries: readonly ScannedEntry[]): void {
	const old = node.children;
	node.children = new Map(entries.map((entry) => [entry.name, entryNode(node, old.get(entry.name), entry)]));
	node.complete = true;
}

/** Takes over a listing of a whole subtree. */
export function setSubtree(node: TreeNode, packed: PackedNames): void {
	let at = 0;
	const read = (): string => {
		const end = packed.indexOf("\0", at);
		const text = packed.slice(at, end);
		at = end + 1;
		return text;
	};
	const fill = (dir: TreeNode): void => {
		const old = dir.children;
		dir.children = new Map();
		dir.complete = true;
		while (at < packed.length) {
			const kind = packed[at++] as ScannedEntry["kind"] | "u";
			if (kind === "u") {
				return;
			}
			const name = read();
			const target = kind === "l" ? read() : "";
			const child = entryNode(dir, old.get(name), { name, kind, target });
			dir.children.set(name, child);
			if (kind === "d") {
				fill(child);
			}
		}
	};
	fill(node);
}

const kinds = { f: "file", l: "symlink", d: "directory" } as const;

function entryNode(parent: TreeNode, known: TreeNode | undefined, entry: ScannedEntry): TreeNode {
	const kind = kinds[entry.kind];
	return known?.kind === kind && known.target === entry.target
		? known
		: createNode(entry.name, parent, kind, entry.target);
}

/** Notes one entry, whether or not the directory's listing is known. */
export function setEntry(parent: TreeNode, entry: ScannedEntry): TreeNode {
	const node = entryNode(parent, parent.children.get(entry.name), entry);
	if (parent.children.get(entry.name) !== node) {
		// A new name may stand in the wrong place of the order.
		parent.complete &&= parent.children.has(entry.name);
		parent.children.set(entry.name, node);
	}
	return node;
}

/** Forgets a path that was made, changed or deleted. */
export function forget(root: TreeNode, path: ByteString): void {
	let node = root;
	node.contents = undefined;
	for (const name of path.split("/").filter((part) => part !== "")) {
		const child = node.children.get(name);
		if (child === undefined) {
			node.complete = false;
			return;
		}
		node = child;
		node.contents = undefined;
	}
	node.digest = undefined;
	if (node.parent !== undefined) {
		node.parent.complete = false;
		if (node.kind === "symlink") {
			// Its target may be another now.
			node.parent.children.delete(node.name);
		}
	}
}

/** Directories of the subtree whose entries are not all known. */
export function incompleteDirectories(node: TreeNode): readonly TreeNode[] {
	const found: TreeNode[] = [];
	const visit = (at: TreeNode): void => {
		if (at.kind !== "directory") {
			return;
		}
		if (!at.complete) {
			found.push(at);
			return;
		}
		for (const child of at.children.values()) {
			visit(child);
		}
	};
	visit(node);
	return found;
}

/** What must be hashed before `digestOf` can answer; the subtree's names are known. */
export function unknownDigests(node: TreeNode, into: TreeNode[]): void {
	if (node.kind === "directory") {
		if (node.contents !== undefined) {
			return;
		}
		for (const child of node.children.values()) {
			unknownDigests(child, into);
		}
	}
	if (node.digest === undefined) {
		into.push(node);
	}
}

/** The digest of a file, a link, or of all that a directory holds. All it is made of is known. */
export function digestOf(node: TreeNode): string {
	return node.kind === "directory" ? contentsOf(node) : headerOf(node);
}

/** The digest of a directory's metadata, or of a file or link. */
export function headerOf(node: TreeNode): string {
	if (node.digest === undefined) {
		throw new SlipwayError("internal", `content digest of ${pathOf(node)} was not computed`);
	}
	return node.digest;
}

/**
 * A directory's digest covers its header and, for each entry in the order of names, the name and the entry's digest, names
 * with NUL in place of slashes.
 */
function contentsOf(node: TreeNode): string {
	if (node.contents !== undefined) {
		return node.contents;
	}
	const parts: string[] = ["\0sha256:", headerOf(node)];
	const add = (child: TreeNode, prefix: string): void => {
		const key = `${prefix}\0${child.name}`;
		parts.push(key, "sha256:", digestOf(child));
		// BuildKit skips what is below an entry by seeking past "entry\0\xff", so that it lands on such names.
		for (const odd of child.children.values()) {
			if (odd.name.charCodeAt(0) === 0xff) {
				add(odd, key);
			}
		}
	};
	for (const child of node.children.values()) {
		add(child, "");
	}
	node.contents = hash("sha256", Buffer.from(parts.join(""), "latin1"));
	return node.contents;
}
