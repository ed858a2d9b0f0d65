import { createNode, type TreeNode } from "./content-digest-tree.ts";

/**
 * The form in which a tree's digests are kept: a version byte, a byte of flags, and the nodes in preorder. A node is a byte
 * (kind, and what follows), the length of its name and the name, a link's target likewise, its digests, and for a
 * directory the number of entries. Numbers are LEB128. A form that cannot be read is no form: the digests are computed anew.
 */
const version = 1;
const kindBits = { file: 0, directory: 1, symlink: 2 } as const;
const kindOfBits = ["file", "directory", "symlink"] as const;
const hasDigest = 4;
const hasContents = 8;
const isComplete = 16;

export interface KeptTree {
	readonly root: TreeNode;
	readonly omitsRoot: boolean;
	readonly nodes: number;
}

export function encodeTree(root: TreeNode, omitsRoot: boolean): Uint8Array {
	let into = Buffer.allocUnsafe(1 << 16);
	let at = 0;
	const reserve = (bytes: number): void => {
		if (at + bytes > into.length) {
			const larger = Buffer.allocUnsafe(Math.max(into.length * 2, at + bytes));
			into.copy(larger, 0, 0, at);
			into = larger;
		}
	};
	const writeNumber = (value: number): void => {
		while (value > 127) {
			into[at++] = (value & 127) | 128;
			value >>>= 7;
		}
		into[at++] = value;
	};
	const write = (node: TreeNode): void => {
		reserve(node.name.length + node.target.length + 100);
		into[at++] =
			kindBits[node.kind] |
			(node.digest === undefined ? 0 : hasDigest) |
			(node.contents === undefined ? 0 : hasContents) |
			(node.complete ? isComplete : 0);
		writeNumber(node.name.length);
		at += into.write(node.name, at, "latin1");
		if (node.kind === "symlink") {
			writeNumber(node.target.length);
			at += into.write(node.target, at, "latin1");
		}
		if (node.digest !== undefined) {
			at += into.write(node.digest, at, "hex");
		}
		if (node.contents !== undefined) {
			at += into.write(node.contents, at, "hex");
		}
		if (node.kind === "directory") {
			writeNumber(node.children.size);
			for (const child of node.children.values()) {
				write(child);
			}
		}
	};
	into[at++] = version;
	into[at++] = omitsRoot ? 1 : 0;
	write(root);
	return into.subarray(0, at);
}

/** Whether the root of a kept tree has no header of its own, without decoding the tree. */
export function omitsRoot(data: Uint8Array): boolean {
	return data[0] === version && data[1] === 1;
}

/** Undefined if the bytes are of another version or damaged. */
export function decodeTree(data: Uint8Array): KeptTree | undefined {
	const from = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
	let at = 2;
	let nodes = 0;
	const readNumber = (): number => {
		let value = 0;
		for (let shift = 0; ; shift += 7) {
			const byte = from[at++] ?? 0;
			value |= (byte & 127) << shift;
			if (byte < 128) {
				return value;
			}
		}
	};
	const readText = (): string => {
		const length = readNumber();
		at += length;
		return from.toString("latin1", at - length, at);
	};
	const readDigest = (): string => {
		at += 32;
		return from.toString("hex", at - 32, at);
	};
	const read = (parent: TreeNode | undefined): TreeNode => {
		const bits = from[at++] ?? 0;
		const kind = kindOfBits[bits & 3] ?? "file";
		const name = readText();
		const node = createNode(name, parent, kind, kind === "symlink" ? readText() : "");
		nodes++;
		node.digest = (bits & hasDigest) === 0 ? undefined : readDigest();
		node.contents = (bits & hasContents) === 0 ? undefined : readDigest();
		node.complete = (bits & isComplete) !== 0;
		if (kind === "directory") {
			for (let count = readNumber(); count > 0 && at < from.length; count--) {
				const child = read(node);
				node.children.set(child.name, child);
			}
		}
		return node;
	};
	if (from[0] !== version) {
		return undefined;
	}
	const root = read(undefined);
	return at === from.length && root.kind === "directory"
		? { root, omitsRoot: from[1] === 1, nodes }
		: undefined;
}
