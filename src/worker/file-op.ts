import { lstatSync, type Stats, statSync } from "node:fs";
import type { ImmutableRef, MutableRef } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import { findGroup, findUser } from "../executor/passwd.ts";
import { fileCacheDigest, fileDependencies } from "../llb/cache-digest.ts";
import type { LoadedOp } from "../llb/llb.ts";
import type { CopyAction, FileAction, FileOp, Owner, UserRef } from "../llb/op.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { Op, StepContext } from "../solver/solver.ts";
import { timestampOf } from "../sys/node.ts";
import { resolveInRoot } from "../sys/root-path.ts";
import type { Timestamp } from "../sys/sys.ts";
import { contentDigestOf } from "./content-input.ts";
import {
	type CopyRequest,
	copyPath,
	type FileOwner,
	findMatches,
	makeAll,
	makeDirectory,
	makeFile,
	makeSymlink,
	removePath,
} from "./file-actions.ts";
import { keepFailed } from "./keep-failed.ts";
import { type MountedTree, mountTree } from "./mounted-tree.ts";
import { emptyTree } from "./ref-reader.ts";
import type { Output, WorkerServices } from "./worker.ts";

/** Changes trees without running a process: COPY, ADD, WORKDIR and what programs ask for. */
export function fileOp(op: FileOp, loaded: LoadedOp, services: WorkerServices): Op<Output> {
	return {
		cacheMap: async () => ({
			map: {
				digest: fileCacheDigest(op),
				inputs: fileDependencies(op).map((each, index) => contentDigestOf(each, { op: loaded, index })),
			},
			last: true,
		}),
		execute: async (inputs, context) => {
			await using run = new FileRun({ op, loaded, inputs, services, context });
			return await run.outputs();
		},
	};
}

interface FileRunInput {
	readonly op: FileOp;
	readonly loaded: LoadedOp;
	readonly inputs: readonly Output[];
	readonly services: WorkerServices;
	readonly context: StepContext;
}

/** A tree that an action wrote or will write: still writable, or finished. */
type Result =
	| { readonly kind: "open"; readonly ref: MutableRef; readonly tree: MountedTree }
	| { readonly kind: "finished"; readonly ref: ImmutableRef };

/**
 * One execution. Each action continues the tree of the action before it when nobody else needs that one; otherwise that
 * tree is finished first and the action begins a new one on top of it.
 */
class FileRun implements AsyncDisposable {
	readonly #input: FileRunInput;
	readonly #results: Result[] = [];
	readonly #stack = new AsyncDisposableStack();

	constructor(input: FileRunInput) {
		this.#input = input;
	}

	async outputs(): Promise<readonly Output[]> {
		const { op } = this.#input;
		for (const [index, action] of op.actions.entries()) {
			this.#input.context.signal.throwIfAborted();
			const result = await this.#begin(action, index);
			this.#results.push(result);
			try {
				await this.#apply(action, result.tree.path);
			} catch (error) {
				await this.#keepFailed(index);
				throw error;
			}
		}
		const outputs: Output[] = [];
		for (const [index, action] of op.actions.entries()) {
			if (action.output !== undefined) {
				outputs[action.output] = (await this.#finish(index)).clone();
			}
		}
		return outputs;
	}

	async #keepFailed(index: number): Promise<void> {
		const { loaded, context, inputs, op } = this.#input;
		await keepFailed({ op: loaded, subject: { kind: "action", index } }, context, async () => {
			const left = await this.#finish(index);
			return { inputs, mounts: op.actions.map((_, at) => (at === index ? left : undefined)) };
		});
	}

	[Symbol.asyncDispose](): Promise<void> {
		return this.#stack.disposeAsync();
	}

	/** The writable tree of an action. */
	async #begin(action: FileAction, index: number): Promise<Extract<Result, { kind: "open" }>> {
		const previous = this.#actionIndex(action.input);
		if (previous !== undefined && this.#isOnlyUse(previous, index)) {
			const result = this.#results[previous];
			if (result?.kind === "open") {
				return result;
			}
		}
		const base = await this.#treeOf(action.input);
		const { services, context, loaded } = this.#input;
		const ref = this.#stack.use(
			await services.cache.createMutable({
				...(base === undefined ? {} : { parent: base }),
				description: loaded.name,
				signal: context.signal,
				progress: context.progress,
				vertex: context.vertex,
			}),
		);
		return { kind: "open", ref, tree: this.#stack.use(mountTree(ref.mounts(), services)) };
	}

	/** The tree of an input or of an earlier action, finished. */
	async #treeOf(index: number | undefined): Promise<Output> {
		const action = this.#actionIndex(index);
		if (action !== undefined) {
			return await this.#finish(action);
		}
		return index === undefined ? undefined : this.#input.inputs[index];
	}

	async #finish(action: number): Promise<ImmutableRef> {
		const result = this.#results[action];
		if (result === undefined) {
			throw new SlipwayError("invalid-argument", `file action ${action} is used before it is made`);
		}
		if (result.kind === "finished") {
			return result.ref;
		}
		result.tree[Symbol.dispose]();
		const finished = { kind: "finished", ref: this.#stack.use(await result.ref.commit()) } as const;
		for (const [index, other] of this.#results.entries()) {
			if (other === result) {
				this.#results[index] = finished;
			}
		}
		return finished.ref;
	}

	#actionIndex(index: number | undefined): number | undefined {
		const inputs = this.#input.op.inputs.length;
		return index === undefined || index < inputs ? undefined : index - inputs;
	}

	/** No output, and no other action reads or continues it. */
	#isOnlyUse(result: number, user: number): boolean {
		const { op } = this.#input;
		const number = op.inputs.length + result;
		return (
			op.actions[result]?.output === undefined &&
			op.actions[user]?.secondaryInput !== number &&
			op.actions.every(
				(action, index) => index === user || (action.input !== number && action.secondaryInput !== number),
			)
		);
	}

	async #apply(action: FileAction, root: string): Promise<void> {
		switch (action.kind) {
			case "mkdir":
				makeDirectory(root, cleanPath(`/${action.path}`), {
					mode: action.mode,
					makeParents: action.makeParents,
					owner: await this.#ownerOf(action.owner),
					time: createdTime(action.createdNs),
				});
				return;
			case "mkfile":
				makeFile(root, cleanPath(`/${action.path}`), {
					mode: action.mode,
					data: action.data,
					owner: await this.#ownerOf(action.owner),
					time: createdTime(action.createdNs),
				});
				return;
			case "symlink":
				makeSymlink(root, action.oldPath, cleanPath(`/${action.newPath}`), {
					owner: await this.#ownerOf(action.owner),
					time: createdTime(action.createdNs),
				});
				return;
			case "rm":
				removePath(root, action.path, action);
				return;
			case "copy":
				return await this.#copy(action, root);
		}
	}

	async #copy(action: CopyAction, root: string): Promise<void> {
		const { services, context } = this.#input;
		const from = await this.#treeOf(action.secondaryInput);
		// A second action could copy the same file again, or change the first one's copy.
		const mayLink = this.#input.op.actions.length === 1;
		using _sharing = mayLink ? from?.shareFiles() : undefined;
		using source = mountTree((await from?.mounts(context)) ?? emptyTree, services);
		const pattern = rootedPath(action.src);
		const matches = action.allowWildcard
			? findMatches(source.path, pattern, action.followSymlink)
			: [pattern];
		if (matches.length === 0 && !action.allowEmptyWildcard) {
			throw new SlipwayError("not-found", `${pattern} not found`);
		}
		if (!action.createDestPath) {
			requireParent(root, action.dest);
		}
		const owner = await this.#ownerOf(action.owner);
		const time = createdTime(action.createdNs);
		const requests: CopyRequest[] = [];
		for (const match of matches) {
			const request: CopyRequest = {
				sourceRoot: source.path,
				root,
				source: match,
				dest: rootedPath(action.dest),
				...(owner === undefined ? {} : { owner }),
				...(action.mode === undefined ? {} : { mode: action.mode }),
				...(time === undefined ? {} : { time }),
				modeText: action.modeText,
				followSymlink: action.followSymlink,
				contentsOnly: action.dirCopyContents,
				includePatterns: action.includePatterns,
				excludePatterns: action.excludePatterns,
				replaceExisting: action.alwaysReplaceExistingDestPaths,
				mayLink,
			};
			if (!(action.attemptUnpack && (await this.#unpack(request)))) {
				requests.push(request);
			}
		}
		await this.#runCopies(requests);
	}

	/** One small file is copied sooner than a thread is asked. */
	async #runCopies(requests: readonly CopyRequest[]): Promise<void> {
		const { services, context } = this.#input;
		if (requests.length === 0) {
			return;
		}
		if (requests.length <= 4 && requests.every(isSmallFile)) {
			for (const request of requests) {
				copyPath(request, () => context.signal.throwIfAborted());
			}
			return;
		}
		await services.pool.run("worker/copy", requests, { signal: context.signal });
	}

	/** False if the source is no archive. */
	async #unpack(request: CopyRequest): Promise<boolean> {
		const { services, context } = this.#input;
		const { signal } = context;
		const found = findSource(request);
		if (found?.stat.isFile() !== true) {
			return false;
		}
		const { path } = found;
		if (!(await services.archiver.isArchive(path, { signal }))) {
			return false;
		}
		const dest = resolveInRoot(request.root, cleanPath(request.dest));
		makeAll(dest, { mode: 0o755, owner: request.owner, time: request.time });
		await services.archiver.unpack(
			{ path, dest, ...(request.owner === undefined ? {} : { owner: request.owner }) },
			{ signal },
		);
		return true;
	}

	/** A name that the tree's files do not have is root, as in BuildKit. */
	async #ownerOf(owner: Owner | undefined): Promise<FileOwner | undefined> {
		if (owner === undefined) {
			return undefined;
		}
		let uid = 0;
		let gid = 0;
		if (owner.user?.kind === "id") {
			uid = owner.user.id;
			gid = owner.user.id;
		} else if (owner.user !== undefined) {
			const user = await this.#lookup(owner.user, (root, name) => findUser(root, name));
			uid = user?.uid ?? 0;
			gid = user?.gid ?? 0;
		}
		if (owner.group?.kind === "id") {
			gid = owner.group.id;
		} else if (owner.group !== undefined) {
			gid = (await this.#lookup(owner.group, (root, name) => findGroup(root, name))) ?? gid;
		}
		return { uid, gid };
	}

	async #lookup<T>(
		ref: Extract<UserRef, { kind: "name" }>,
		find: (root: string, name: string) => T | undefined,
	): Promise<T | undefined> {
		const { services, context } = this.#input;
		if (ref.input === undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`invalid user index: -1: an empty file system has no user or group ${JSON.stringify(ref.name)}, use numbers`,
			);
		}
		const action = this.#actionIndex(ref.input);
		const result = action === undefined ? undefined : this.#results[action];
		if (result?.kind === "open") {
			return find(result.tree.path, ref.name);
		}
		const tree = await this.#treeOf(ref.input);
		if (tree === undefined) {
			return undefined;
		}
		using mounted = mountTree(await tree.mounts(context), services);
		return find(mounted.path, ref.name);
	}
}

function requireParent(root: string, dest: string): void {
	if (statSync(resolveInRoot(root, cleanPath(`/${dest}/..`)), { throwIfNoEntry: false }) === undefined) {
		throw new SlipwayError("not-found", `failed to stat ${dest}`);
	}
}

/** Cleaned and rooted; a trailing slash or `/.`, which mean a directory, stay. */
function rootedPath(path: string): string {
	const cleaned = cleanPath(`/${path}`);
	if (path.endsWith("/.")) {
		return cleaned === "/" ? "/." : `${cleaned}/.`;
	}
	return path.endsWith("/") && cleaned !== "/" ? `${cleaned}/` : cleaned;
}

function createdTime(nanos: bigint | undefined): Timestamp | undefined {
	return nanos === undefined ? undefined : timestampOf(nanos);
}

const smallBytes = 256 * 1024;

function isSmallFile(request: CopyRequest): boolean {
	const stat = findSource(request)?.stat;
	return stat === undefined || (!stat.isDirectory() && stat.size <= smallBytes);
}

/** Undefined if it is not there or the way there cannot be gone; copying says why. */
function findSource({ sourceRoot, source }: CopyRequest): { path: string; stat: Stats } | undefined {
	try {
		const path = resolveInRoot(sourceRoot, source);
		return { path, stat: lstatSync(path) };
	} catch {
		return undefined;
	}
}
