import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ImmutableRef, MutableRef } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { ContainerMount, RootMount } from "../executor/executor.ts";
import type { BindMount, CacheMount, ExecOp, Mount, SecretMount, SshMount } from "../llb/op.ts";
import { quoteGo } from "../oci/go-quote.ts";
import { joinPath } from "../patterns/clean-path.ts";
import type { StepContext } from "../solver/solver.ts";
import { mount, unmount } from "../sys/mount.ts";
import { changeOwner } from "../sys/owner.ts";
import type { MountSpec } from "../sys/sys.ts";
import {
	type CacheMountHold,
	type CacheMountRequest,
	type CacheMounts,
	cacheMountKey,
} from "./cache-mounts.ts";
import { clientsOf, type Output, sessionsOf, type WorkerServices } from "./worker.ts";

/** What an exec's mounts became: what the executor mounts, and which refs become outputs when the process has ended well. */
export interface PreparedMounts extends AsyncDisposable {
	readonly root: RootMount;
	readonly mounts: readonly ContainerMount[];
	/** Commits what was written; one per output of the op, in their order. The caller owns the refs. */
	commit(): Promise<readonly Output[]>;
	/**
	 * In place of `commit` when the process has failed: what each mount was, in the order of the op's; undefined for what is no tree
	 * of its own. The caller owns the refs.
	 */
	leave(): Promise<readonly Output[]>;
}

export interface PrepareInput {
	readonly op: ExecOp;
	readonly inputs: readonly Output[];
	readonly services: WorkerServices;
	readonly cacheMounts: CacheMounts;
	readonly ignoreCache: boolean;
	readonly context: StepContext;
}

/** Everything that is acquired here is released by disposing the answer, in reverse. */
export async function prepareMounts(input: PrepareInput): Promise<PreparedMounts> {
	await using acquired = new AsyncDisposableStack();
	const preparation = new Preparation(input, acquired);
	await preparation.holdCaches();
	for (const each of input.op.mounts) {
		await preparation.add(each);
	}
	const { root } = preparation;
	if (root === undefined) {
		throw new SlipwayError("invalid-argument", "invalid exec op with no root mount");
	}
	const outputs = preparation.outputs;
	const kept = acquired.move();
	return {
		root,
		mounts: preparation.mounts.toSorted((a, b) => (a.target < b.target ? -1 : a.target > b.target ? 1 : 0)),
		commit: () => commitAll(outputs),
		leave: () => preparation.leave(),
		[Symbol.asyncDispose]: () => kept.disposeAsync(),
	};
}

type PendingOutput =
	| { readonly kind: "written"; readonly ref: MutableRef }
	| { readonly kind: "unchanged"; readonly ref: ImmutableRef };

async function commitAll(outputs: ReadonlyMap<number, PendingOutput>): Promise<readonly Output[]> {
	const refs: Output[] = [];
	try {
		for (const index of [...outputs.keys()].sort((a, b) => a - b)) {
			const output = outputs.get(index);
			if (output !== undefined) {
				refs[index] = output.kind === "written" ? await output.ref.commit() : output.ref.clone();
			}
		}
		return refs;
	} catch (error) {
		await Promise.all(refs.map((ref) => ref?.release()));
		throw error;
	}
}

class Preparation {
	readonly #input: PrepareInput;
	readonly #acquired: AsyncDisposableStack;
	readonly #caches = new Map<string, CacheMountHold>();
	readonly mounts: ContainerMount[] = [];
	readonly outputs = new Map<number, PendingOutput>();
	root: RootMount | undefined;

	constructor(input: PrepareInput, acquired: AsyncDisposableStack) {
		this.#input = input;
		this.#acquired = acquired;
	}

	/** What each mount that was written to is. */
	readonly #written = new Map<Mount, MutableRef>();

	async leave(): Promise<readonly Output[]> {
		return await Promise.all(
			this.#input.op.mounts.map(async (each) => {
				const written = this.#written.get(each);
				return written === undefined ? this.#inputOf(each)?.clone() : await written.commit();
			}),
		);
	}

	async add(each: Mount): Promise<void> {
		if (each.dest === "/" && each.kind !== "bind") {
			throw new SlipwayError("invalid-argument", `invalid mount type ${each.kind} for /`);
		}
		switch (each.kind) {
			case "bind":
				return await this.#addBind(each);
			case "cache":
				return await this.#addCache(each);
			case "tmpfs":
				this.#push(each, { kind: "tmpfs", ...(each.size > 0 ? { sizeBytes: each.size } : {}) });
				return;
			case "secret":
				return await this.#addSecret(each);
			case "ssh":
				return await this.#addSsh(each);
		}
	}

	async #addBind(each: BindMount): Promise<void> {
		const base = this.#inputOf(each);
		const isRoot = each.dest === "/";
		if (each.output !== undefined && each.readonly && base !== undefined && !isRoot) {
			this.outputs.set(each.output, { kind: "unchanged", ref: base });
			this.#pushTree(each, await this.#view(base));
			return;
		}
		// A read-only root too: mount points have to be made in it.
		if (each.output !== undefined || isRoot || !each.readonly || base === undefined) {
			const ref = await this.#newMutable(each, base);
			if (each.output !== undefined) {
				this.outputs.set(each.output, { kind: "written", ref });
			}
			if (isRoot) {
				this.root = { mounts: ref.mounts(), readonly: each.readonly };
			} else {
				this.#pushTree(each, ref.mounts());
			}
			return;
		}
		this.#pushTree(each, await this.#view(base));
	}

	/**
	 * The step's cache mounts in the order of their names, so that two steps which lock the same ones never wait for each other;
	 * two mounts of one name are one.
	 */
	async holdCaches(): Promise<void> {
		const { op, cacheMounts, ignoreCache, context } = this.#input;
		const [build] = context.clients();
		const travelling = clientsOf(context)[0]?.travellingMounts;
		const requests = op.mounts
			.filter((each) => each.kind === "cache")
			.map((each) => ({ each, request: this.#cacheRequest(each) }))
			.map((one) => ({ ...one, key: cacheMountKey(one.request) }))
			.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
		for (const { each, request, key } of requests) {
			if (!this.#caches.has(key)) {
				travelling?.used(request);
				const hold = await cacheMounts.acquire({
					...request,
					sharing: each.sharing,
					description: describeCache(each, op),
					...(ignoreCache && typeof build === "object" && build !== null ? { freshFor: build } : {}),
					...(travelling === undefined || ignoreCache
						? {}
						: { fill: (ref) => travelling.fill(request, ref, context) }),
					signal: context.signal,
				});
				this.#caches.set(key, this.#acquired.use(hold));
			}
		}
	}

	#cacheRequest(each: CacheMount): Pick<CacheMountRequest, "id" | "base"> {
		return { id: each.id === "" ? each.dest : each.id, base: this.#inputOf(each) };
	}

	async #addCache(each: CacheMount): Promise<void> {
		const { base, ...request } = this.#cacheRequest(each);
		const hold = this.#caches.get(cacheMountKey({ base, ...request }));
		if (hold === undefined) {
			throw new SlipwayError("internal", `cache mount ${each.dest} was not acquired`);
		}
		if (each.output !== undefined && base !== undefined) {
			this.outputs.set(each.output, { kind: "unchanged", ref: base });
		}
		this.#pushTree(each, hold.ref.mounts());
	}

	async #addSecret(each: SecretMount): Promise<void> {
		const data = await findSecret(this.#input.context, each.id, each.optional);
		if (data === undefined) {
			return;
		}
		const { mountRoot, beforeMounts } = this.#input.services;
		beforeMounts();
		mkdirSync(mountRoot, { recursive: true, mode: 0o711 });
		// In memory only: a secret never reaches a disk.
		const directory = mkdtempSync(join(mountRoot, "secret-"));
		this.#acquired.defer(() => rmSync(directory, { recursive: true, force: true }));
		const noexec = (each.mode & 0o111) === 0 ? ["noexec"] : [];
		mount({ type: "tmpfs", source: "tmpfs", options: ["nodev", "nosuid", "mode=711", ...noexec] }, directory);
		this.#acquired.defer(() => {
			unmount(directory, { detach: true });
		});
		const file = join(directory, "secret");
		writeFileSync(file, data, { mode: 0o600 });
		changeOwner(file, each.uid, each.gid);
		chmodSync(file, each.mode & 0o777);
		this.#push(each, { kind: "host", path: file, options: ["nodev", "nosuid", ...noexec] }, true);
	}

	async #addSsh(each: SshMount): Promise<void> {
		const { context } = this.#input;
		for (const session of sessionsOf(context)) {
			const agent = await session.ssh.agent(each.id, {
				signal: context.signal,
				uid: each.uid,
				gid: each.gid,
				mode: each.mode & 0o777,
			});
			if (agent !== undefined) {
				this.#acquired.use(agent);
				this.#push(each, { kind: "host", path: agent.socketPath, options: [] });
				return;
			}
		}
		if (!each.optional) {
			throw new SlipwayError(
				"not-found",
				`no SSH key ${JSON.stringify(each.id || "default")} forwarded from the client`,
			);
		}
	}

	#inputOf(each: Mount): Output {
		if (each.input === undefined) {
			return undefined;
		}
		if (each.input >= this.#input.inputs.length) {
			throw new SlipwayError("invalid-argument", `missing input ${each.input}`);
		}
		return this.#input.inputs[each.input];
	}

	async #newMutable(each: Mount, base: Output): Promise<MutableRef> {
		const { op, services, context } = this.#input;
		const ref = await services.cache.createMutable({
			...(base === undefined ? {} : { parent: base }),
			description: `mount ${each.dest} from exec ${op.meta.args.join(" ")}`,
			signal: context.signal,
			progress: context.progress,
			vertex: context.vertex,
		});
		this.#written.set(each, ref);
		// Releasing after a commit does nothing.
		return this.#acquired.use(ref);
	}

	#view(ref: ImmutableRef): Promise<readonly MountSpec[]> {
		const { signal, progress, vertex } = this.#input.context;
		return ref.mounts({ signal, progress, vertex });
	}

	#pushTree(each: Mount, mounts: readonly MountSpec[]): void {
		this.#push(each, { kind: "tree", mounts, selector: each.selector });
	}

	#push(each: Mount, source: ContainerMount["source"], readonly = each.readonly): void {
		const { cwd } = this.#input.op.meta;
		const target = each.dest.startsWith("/") ? joinPath(each.dest) : joinPath("/", cwd, each.dest);
		this.mounts.push({ target, readonly, source });
	}
}

/** From the first session that has it. Throws `not-found` if none has and it is not optional. */
export async function findSecret(
	context: StepContext,
	id: string,
	optional: boolean,
): Promise<Uint8Array | undefined> {
	if (id === "") {
		throw new SlipwayError("invalid-argument", "secret ID missing from mount options");
	}
	for (const session of sessionsOf(context)) {
		const data = await session.secrets.secret(id, { signal: context.signal });
		if (data !== undefined) {
			return data;
		}
	}
	if (optional) {
		return undefined;
	}
	throw new SlipwayError("not-found", `secret ${id}: not found`);
}

/** As `du` shows it. BuildKit puts an id that is not the path behind it, in its own namespace of ids. */
function describeCache(each: CacheMount, op: ExecOp): string {
	const id = each.id === "" || each.id === each.dest ? "" : ` with id ${quoteGo(each.id)}`;
	return `cached mount ${each.dest} from exec ${op.meta.args.join(" ")}${id}`;
}
