import { hash } from "node:crypto";
import type { ThreadPool } from "../async/pool.ts";
import type { Database } from "../database/database.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { type Digest, encodedOf } from "../oci/digest.ts";
import { quoteGo } from "../oci/go-quote.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { bytesOf, textOf } from "../sys/byte-names.ts";
import type { MountSpec } from "../sys/sys.ts";
import type { DigestEntry, DigestOptions, MutableDigests, RefWorkOptions } from "./cache.ts";
import { decodeTree, encodeTree, omitsRoot } from "./content-digest-codec.ts";
import { createTree, needsFiles, TreeFiles } from "./content-digest-files.ts";
import { keyPath, resolveNode } from "./content-digest-lookup.ts";
import { type SelectionStart, select, startSelection } from "./content-digest-patterns.ts";
import {
	createNode,
	digestOf,
	emptyDigest,
	forget,
	headerOf,
	setEntry,
	type TreeNode,
} from "./content-digest-tree.ts";
import type { TemporaryMounts } from "./temporary-mounts.ts";

const schema = `
CREATE TABLE IF NOT EXISTS cache_digests (
	tree TEXT PRIMARY KEY,
	data BLOB NOT NULL,
	answers TEXT NOT NULL DEFAULT '{}',
	writing INTEGER NOT NULL DEFAULT 0
);
DELETE FROM cache_digests WHERE writing = 1 OR tree NOT IN (SELECT id FROM cache_record);
`;

export interface DigestCacheOptions {
	readonly database: Database;
	readonly pool: ThreadPool;
	readonly mounts: TemporaryMounts;
	readonly warn: (message: string) => void;
}

/** Trees in memory; one more is written out and forgotten. BuildKit keeps as many. */
const maxTrees = 20;
const saveDelayMs = 300;
/** Questions about one tree that are remembered; a build asks few. */
const maxAnswers = 64;

/**
 * Content digests of trees, by a key for each tree: in memory while in use, in the database for the next time. What is kept is
 * right as long as the tree is not written to; a tree that is being written to is in memory only, and is forgotten
 * unless its writer finishes in order.
 */
export class DigestCache {
	readonly #options: DigestCacheOptions;
	readonly #trees = new Map<string, Tree>();
	#timer: NodeJS.Timeout | undefined;

	/** After the table of records was brought together with what is on disk. */
	constructor(options: DigestCacheOptions) {
		this.#options = options;
		options.database.define(schema);
	}

	of(key: string, mounts: (options: RefWorkOptions) => Promise<readonly MountSpec[]>): MutableDigests {
		return {
			digest: async (path, options) => {
				const tree = this.#get(key);
				const digest = await tree.digest(path, options, mounts, this.#options);
				if (tree.dirty) {
					this.#scheduleSave();
				}
				return digest;
			},
			invalidate: (paths) => this.#get(key).invalidate(paths),
			set: (path, entry) => this.#get(key).set(path, entry),
			omitRoot: () => this.#get(key).omitRoot(),
		};
	}

	/** Somebody begins to write to the tree. Should he never end, what is kept is forgotten at the next start. */
	beginWriting(key: string): void {
		this.#get(key).writing = true;
		this.#options.database.run("UPDATE cache_digests SET writing = 1 WHERE tree = ?", key);
	}

	/** The writer has told of all changes, and writes no more. */
	endWriting(key: string): void {
		const tree = this.#trees.get(key);
		if (tree !== undefined) {
			tree.writing = false;
			if (tree.dirty) {
				this.#scheduleSave();
			} else {
				this.#options.database.run("UPDATE cache_digests SET writing = 0 WHERE tree = ?", key);
			}
		}
	}

	/** The same tree goes by another key. */
	rename(from: string, to: string): void {
		const tree = this.#get(from);
		this.delete([from]);
		this.#trees.set(to, tree);
		tree.dirty = true;
		this.#scheduleSave();
	}

	delete(keys: readonly string[]): void {
		for (const key of keys) {
			this.#trees.delete(key);
			this.#options.database.run("DELETE FROM cache_digests WHERE tree = ?", key);
		}
	}

	/** Writes what was learned. */
	save(): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
		for (const [key, tree] of this.#trees) {
			this.#saveTree(key, tree);
		}
	}

	#saveTree(key: string, tree: Tree): void {
		if (tree.dirty && !tree.writing) {
			this.#options.database.run(
				"INSERT OR REPLACE INTO cache_digests (tree, data, answers) VALUES (?, ?, ?)",
				key,
				tree.encode(),
				JSON.stringify(Object.fromEntries(tree.answers)),
			);
			tree.dirty = false;
		}
	}

	#scheduleSave(): void {
		this.#timer ??= setTimeout(() => {
			try {
				this.save();
			} catch (thrown) {
				this.#options.warn(wrap(thrown, "content digests could not be kept").message);
			}
		}, saveDelayMs).unref();
	}

	#get(key: string): Tree {
		let tree = this.#trees.get(key);
		if (tree === undefined) {
			const row = this.#options.database.get("SELECT data, answers FROM cache_digests WHERE tree = ?", key);
			const data = row?.["data"];
			tree = new Tree(data instanceof Uint8Array ? data : undefined, String(row?.["answers"] ?? "{}"));
			for (const [oldest, other] of this.#trees) {
				if (this.#trees.size < maxTrees) {
					break;
				}
				if (!other.writing) {
					this.#saveTree(oldest, other);
					this.#trees.delete(oldest);
				}
			}
		} else {
			this.#trees.delete(key);
		}
		this.#trees.set(key, tree);
		return tree;
	}
}

class Tree {
	/** As kept; decoded when something is asked that was not asked before. */
	#kept: Uint8Array | undefined;
	#decoded: TreeNode | undefined;
	#omitsRoot: boolean;
	#changes = 0;
	/** Answers to earlier questions, right as long as nothing of the tree has changed. */
	readonly answers: Map<string, Digest>;
	/** Questions that need files are answered one after the other: the second then knows what the first has read. */
	#busy: Promise<unknown> = Promise.resolve();
	dirty = false;
	writing = false;

	constructor(data: Uint8Array | undefined, answers: string) {
		this.#kept = data;
		this.#omitsRoot = data !== undefined && omitsRoot(data);
		this.answers = new Map(Object.entries(JSON.parse(answers) as Record<string, Digest>));
	}

	get #root(): TreeNode {
		if (this.#decoded === undefined) {
			const kept = this.#kept === undefined ? undefined : decodeTree(this.#kept);
			this.#decoded = kept?.root ?? createTree(false);
			this.#kept = undefined;
		}
		return this.#decoded;
	}

	encode(): Uint8Array {
		return encodeTree(this.#root, this.#omitsRoot);
	}

	invalidate(paths: Iterable<string>): void {
		let any = false;
		for (const path of paths) {
			forget(this.#root, keyPath(bytesOf(path)));
			any = true;
		}
		if (any) {
			this.#changed();
		}
	}

	set(path: string, { kind, digest, target }: DigestEntry): void {
		const parts = keyPath(bytesOf(path)).split("/").slice(1);
		const name = parts.pop();
		let node = this.#root;
		node.contents = undefined;
		for (const part of parts) {
			const child = node.children.get(part);
			if (child?.kind !== "directory") {
				node.complete = false;
				node.children.set(part, createNode(part, node, "directory"));
			}
			node = node.children.get(part) ?? node;
			node.contents = undefined;
		}
		if (name === undefined) {
			node.digest = encodedOf(digest);
		} else {
			const letter = kind === "directory" ? "d" : kind === "symlink" ? "l" : "f";
			const entry = setEntry(node, { name, kind: letter, target: bytesOf(target ?? "") });
			entry.digest = encodedOf(digest);
			entry.contents = undefined;
		}
		this.#changed();
	}

	omitRoot(): void {
		if (this.#omitsRoot) {
			return;
		}
		this.#omitsRoot = true;
		this.#root.contents = undefined;
		this.#changed();
	}

	async digest(
		path: string,
		options: DigestOptions,
		mounts: (options: RefWorkOptions) => Promise<readonly MountSpec[]>,
		cache: DigestCacheOptions,
	): Promise<Digest> {
		const { followLinks, wildcard, includePatterns, excludePatterns, requiredPaths = [] } = options;
		const question = JSON.stringify([
			path,
			followLinks,
			wildcard,
			includePatterns,
			excludePatterns,
			requiredPaths,
		]);
		const known = this.answers.get(question);
		if (known !== undefined) {
			return known;
		}
		const changes = this.#changes;
		const answer = await this.#answer(path, options, mounts, cache);
		if (changes === this.#changes && this.answers.size < maxAnswers) {
			this.answers.set(question, answer);
			this.dirty = true;
		}
		return answer;
	}

	async #answer(
		path: string,
		options: DigestOptions,
		mounts: (options: RefWorkOptions) => Promise<readonly MountSpec[]>,
		cache: DigestCacheOptions,
	): Promise<Digest> {
		try {
			return await this.#compute(path, options, new TreeFiles(undefined, cache.pool, options.signal));
		} catch (thrown) {
			if (thrown !== needsFiles) {
				throw thrown;
			}
		}
		const before = this.#busy;
		const work = (async (): Promise<Digest> => {
			await before.catch(() => {});
			options.signal.throwIfAborted();
			return cache.mounts.use(await mounts(options), async (dir) => {
				const files = new TreeFiles(bytesOf(dir), cache.pool, options.signal);
				try {
					return await this.#compute(path, options, files);
				} finally {
					this.dirty ||= files.changed;
				}
			});
		})();
		this.#busy = work;
		return work;
	}

	async #compute(path: string, options: DigestOptions, files: TreeFiles): Promise<Digest> {
		const { wildcard, includePatterns, excludePatterns, followLinks } = options;
		// As BuildKit's ops ask: a slash at the end is lost, and only the root has one.
		path = cleanPath(`/${path}`);
		if (!wildcard && includePatterns.length === 0 && excludePatterns.length === 0) {
			return digest(await this.#plain(keyPath(bytesOf(path)), followLinks, files));
		}
		const start = startSelection(this.#root, path, options, files.lookup);
		await loadNames(start, files);
		const entries = select(start, path, options);
		for (const required of options.requiredPaths ?? []) {
			if (!entries.some((entry) => entry.path.startsWith(bytesOf(required)))) {
				throw notFound(required);
			}
		}
		await files.hash(
			entries.filter(({ follow }) => !follow).map(({ node }) => node),
			true,
		);
		const parts: string[] = [];
		let single = "";
		for (const entry of entries) {
			const found = entry.follow ? await this.#plain(entry.path, followLinks, files) : headerOf(entry.node);
			parts.push(entry.key === "" ? "\0" : entry.key, "sha256:", found);
			single = found;
		}
		const [only, ...more] = entries;
		if (only === undefined) {
			return digest(emptyDigest);
		}
		return more.length === 0 && baseName(path) === baseName(textOf(only.path))
			? digest(single)
			: digest(hash("sha256", Buffer.from(parts.join(""), "latin1")));
	}

	/** The digest of one path, in hex. */
	async #plain(path: ByteString, followLinks: boolean, files: TreeFiles): Promise<string> {
		const node = resolveNode(this.#root, path, followLinks, files.lookup);
		if (node === undefined) {
			throw notFound(textOf(path));
		}
		if (node.kind === "directory" && node.contents === undefined) {
			await files.scan(node);
		}
		await files.hash([node], false);
		return digestOf(node);
	}

	/** After every change of the tree. */
	#changed(): void {
		this.#changes++;
		this.answers.clear();
		this.dirty = true;
		if (this.#omitsRoot) {
			this.#root.digest = emptyDigest;
		}
	}
}

/** Lists as few directories as can hold what is looked for. */
async function loadNames({ node, parts }: SelectionStart, files: TreeFiles): Promise<void> {
	if (node === undefined) {
		return;
	}
	const whole: TreeNode[] = [];
	const visit = (at: TreeNode, depth: number): void => {
		const glob = parts?.[depth];
		if (glob === undefined) {
			whole.push(at);
			return;
		}
		if (at.kind !== "directory") {
			return;
		}
		files.list(at);
		for (const child of at.children.values()) {
			if (glob.matches(textOf(child.name))) {
				visit(child, depth + 1);
			}
		}
	};
	visit(node, 0);
	for (const each of whole) {
		await files.scan(each);
	}
}

function notFound(path: string): SlipwayError {
	return new SlipwayError("not-found", `${quoteGo(path)}: not found`);
}

function digest(hex: string): Digest {
	return `sha256:${hex}` as Digest;
}

/** Go's `path.Base`. */
function baseName(path: string): string {
	const trimmed = path.replace(/\/+$/, "");
	return trimmed === "" ? (path === "" ? "." : "/") : trimmed.slice(trimmed.lastIndexOf("/") + 1);
}
