import { lstatSync, readlinkSync } from "node:fs";
import type { ThreadPool } from "../async/pool.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath } from "../sys/byte-names.ts";
import { digestFile } from "./content-digest-file.ts";
import { listDirectory, type ScannedEntry, scanTree } from "./content-digest-scan.ts";
import {
	createNode,
	emptyDigest,
	incompleteDirectories,
	pathOf,
	setEntries,
	setEntry,
	setSubtree,
	type TreeNode,
	unknownDigests,
} from "./content-digest-tree.ts";
import type { DigestTask } from "./digest.job.ts";

/** Up to here the work stays on the calling thread: a trip to another costs as much. */
const smallScan = 300;
const smallFiles = 24;
const smallBytes = 128 << 10;
/** Files that one job hashes: few enough to share big trees fairly, many enough for the trip to cost nothing. */
const batchFiles = 400;

/** Thrown where only files can answer and none are at hand. */
export const needsFiles: unique symbol = Symbol("needs files");

/**
 * The files of one tree while they are mounted: what is not known yet is read from here. Without files (`dir` undefined) all
 * but what is known throws `needsFiles`.
 */
export class TreeFiles {
	readonly #dir: ByteString | undefined;
	readonly #pool: ThreadPool;
	readonly #signal: AbortSignal;
	/** Something was learned that is worth keeping. */
	changed = false;

	constructor(dir: ByteString | undefined, pool: ThreadPool, signal: AbortSignal) {
		this.#dir = dir;
		this.#pool = pool;
		this.#signal = signal;
	}

	/** One entry of a directory. */
	readonly lookup = (directory: TreeNode, name: ByteString): TreeNode | undefined => {
		const known = directory.children.get(name);
		// A name in a listing that is out of date may be gone.
		if (directory.complete || (known !== undefined && known.digest !== undefined)) {
			return known;
		}
		const entry = readEntry(`${this.#root()}${pathOf(directory)}`, name);
		if (entry === undefined) {
			directory.children.delete(name);
			return undefined;
		}
		this.changed = true;
		return setEntry(directory, entry);
	};

	/** The names in one directory. */
	list(directory: TreeNode): void {
		if (!directory.complete) {
			setEntries(directory, listDirectory(`${this.#root()}${pathOf(directory)}`));
			this.changed = true;
		}
	}

	/** All names below a node. */
	async scan(node: TreeNode): Promise<void> {
		for (const directory of incompleteDirectories(node)) {
			const root = this.#root();
			const path = pathOf(directory);
			const packed =
				scanTree(root + path, smallScan) ??
				(await this.#pool.run<DigestTask, string>(
					"cache/digest",
					{ kind: "scan", root, path },
					{ signal: this.#signal },
				));
			setSubtree(directory, packed);
			this.changed = true;
		}
	}

	/** The digests of nodes, and of all that they hold. Their names are known. */
	async hash(nodes: readonly TreeNode[], headersOnly: boolean): Promise<void> {
		const unknown: TreeNode[] = [];
		for (const node of nodes) {
			if (!headersOnly) {
				unknownDigests(node, unknown);
			} else if (node.digest === undefined) {
				unknown.push(node);
			}
		}
		if (unknown.length === 0) {
			return;
		}
		const root = this.#root();
		this.changed = true;
		const large =
			unknown.length > smallFiles ? unknown : unknown.filter((node) => !this.#hashSmall(root, node));
		const batches: TreeNode[][] = [];
		const size = Math.min(batchFiles, Math.ceil(large.length / this.#pool.size));
		for (let at = 0; at < large.length; at += size) {
			batches.push(large.slice(at, at + size));
		}
		await Promise.all(
			batches.map(async (batch) => {
				const paths = batch.map(pathOf).join("\0");
				const digests = await this.#pool.run<DigestTask, string>(
					"cache/digest",
					{ kind: "hash", root, paths },
					{ signal: this.#signal },
				);
				for (const [index, node] of batch.entries()) {
					node.digest = digests.slice(index * 64, index * 64 + 64);
				}
			}),
		);
	}

	#hashSmall(root: ByteString, node: TreeNode): boolean {
		node.digest = digestFile(root + pathOf(node), smallBytes);
		return node.digest !== undefined;
	}

	#root(): ByteString {
		if (this.#dir === undefined) {
			throw needsFiles;
		}
		return this.#dir;
	}
}

function readEntry(dir: ByteString, name: ByteString): ScannedEntry | undefined {
	const path = fsPath(`${dir}/${name}`);
	const stat = lstatSync(path, { throwIfNoEntry: false });
	if (stat === undefined) {
		return undefined;
	}
	if (stat.isSymbolicLink()) {
		return { name, kind: "l", target: readlinkSync(path, { encoding: "latin1" }) };
	}
	return { name, kind: stat.isDirectory() ? "d" : "f", target: "" };
}

/** A tree of which nothing is known but that it has a root. */
export function createTree(omitsRoot: boolean): TreeNode {
	const root = createNode("", undefined, "directory");
	root.digest = omitsRoot ? emptyDigest : undefined;
	return root;
}
