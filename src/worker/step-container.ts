import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { canceled, SlipwayError } from "../errors/errors.ts";
import type {
	ContainerMount,
	ContainerMountSource,
	ProcessIo,
	RunningProcess,
} from "../executor/executor.ts";
import type {
	ContainerProcess,
	ContainerProcessRequest,
	FrontendContainer,
	FrontendRef,
	NewContainerRequest,
} from "../frontend/frontend.ts";
import type { ExecOp, Mount } from "../llb/op.ts";
import { sha256 } from "../oci/digest.ts";
import { setDefaultEnv } from "../oci/env.ts";
import { defaultPath } from "../oci/image-config.ts";
import type { Platform } from "../oci/platform.ts";
import { joinPath } from "../patterns/clean-path.ts";
import type { Session } from "../session/session.ts";
import type { StepContext } from "../solver/solver.ts";
import type { MountSpec } from "../sys/sys.ts";
import type { CacheMounts } from "./cache-mounts.ts";
import { type Emulation, findEmulator, startEmulator } from "./emulation.ts";
import { findSecret, type PreparedMounts, prepareMounts } from "./exec-mounts.ts";
import { mountTree } from "./mounted-tree.ts";
import { emptyTree } from "./ref-reader.ts";
import { readTreeDirectory, readTreeFile, statTree } from "./tree-reader.ts";
import type { JobClient, Output, WorkerServices } from "./worker.ts";

/** Containers for frontends and for looking into a build, whose processes start one after the other. */
export type ContainerFactory = (
	request: NewContainerRequest,
	context: ContainerContext,
) => Promise<FrontendContainer>;

export interface ContainerContext {
	/** Of each mount that has a tree. */
	readonly outputs: readonly Output[];
	readonly session: Session;
	/** What its processes may ask for. */
	readonly allowsHostNetwork: boolean;
	readonly allowsInsecure: boolean;
	/** Ends the preparation only. */
	readonly signal: AbortSignal;
}

/** Nothing is shown under it. */
const containerVertex = sha256("container");

export function createContainerFactory(services: WorkerServices, cacheMounts: CacheMounts): ContainerFactory {
	return async (request, context) => {
		await using directories = writeDirectories(request.directories ?? [], services.mountRoot);
		const life = new AbortController();
		const step: StepContext = {
			signal: AbortSignal.any([context.signal, life.signal]),
			vertex: containerVertex,
			progress: { write: () => {} },
			clients: () => [{ session: context.session } satisfies JobClient],
		};
		const prepared = await prepareMounts({
			op: opOf(request.mounts.map(({ mount }) => mount)),
			inputs: context.outputs,
			services,
			cacheMounts,
			ignoreCache: false,
			context: step,
		});
		return new StepContainer(services, request, {
			...context,
			prepared,
			life,
			directories: directories.move(),
		});
	};
}

/** A step of these mounts alone: input i is the tree of mount i; nothing becomes an output. */
function opOf(mounts: readonly Mount[]): ExecOp {
	return {
		kind: "exec",
		inputs: [],
		filters: [],
		meta: {
			args: [],
			env: [],
			cwd: "/",
			user: "",
			extraHosts: [],
			hostname: "",
			ulimits: [],
			cgroupParent: "",
			removeMountStubsRecursive: false,
			validExitCodes: [],
		},
		mounts: mounts.map((mount, index) => {
			const { output: _, ...rest } = mount;
			return { ...rest, input: index };
		}),
		network: "sandbox",
		security: "sandbox",
		secretEnv: [],
		devices: [],
	};
}

interface ContainerState extends ContainerContext {
	readonly prepared: PreparedMounts;
	readonly life: AbortController;
	readonly directories: WrittenDirectories;
}

interface WrittenDirectories extends AsyncDisposable {
	readonly mounts: readonly ContainerMount[];
	/** Hands them to whoever disposes the answer. */
	move(): WrittenDirectories;
}

function writeDirectories(
	directories: NonNullable<NewContainerRequest["directories"]>,
	mountRoot: string,
): WrittenDirectories {
	const mounts: ContainerMount[] = [];
	const written = new AsyncDisposableStack();
	for (const { dest, files } of directories) {
		mkdirSync(mountRoot, { recursive: true, mode: 0o700 });
		const path = mkdtempSync(join(mountRoot, "files-"));
		written.defer(() => rmSync(path, { recursive: true, force: true }));
		for (const [name, data] of files) {
			writeFileSync(join(path, name), data, { mode: 0o400 });
		}
		const options = ["nosuid", "nodev", "noexec"];
		mounts.push({ target: dest, readonly: true, source: { kind: "host", path, options } });
	}
	const held = (stack: AsyncDisposableStack): WrittenDirectories => ({
		mounts,
		move: () => held(stack.move()),
		[Symbol.asyncDispose]: () => stack.disposeAsync(),
	});
	return held(written);
}

class StepContainer implements FrontendContainer {
	readonly #id = randomBytes(12).toString("hex");
	readonly #services: WorkerServices;
	readonly #request: NewContainerRequest;
	readonly #state: ContainerState;
	readonly #platform: Platform;
	readonly #running = new Set<Promise<unknown>>();
	#emulation: Promise<Emulation> | undefined;
	/** Resolves when the first process runs, or has failed to. */
	#first: Promise<void> | undefined;
	#disposed: Promise<void> | undefined;

	constructor(services: WorkerServices, request: NewContainerRequest, state: ContainerState) {
		this.#services = services;
		this.#request = request;
		this.#state = state;
		const platform = request.platform ?? services.platforms[0];
		if (platform === undefined) {
			throw new SlipwayError("internal", "the worker has no platform");
		}
		this.#platform = platform;
	}

	async start(process: ContainerProcessRequest): Promise<ContainerProcess> {
		const { session, life } = this.#state;
		const refused = this.#refusal(process);
		if (refused !== undefined) {
			// As a process that has ended: a client asks for its end.
			const exited = Promise.reject(refused);
			exited.catch(() => {});
			return { exited, resize: () => {}, signal: () => {} };
		}
		const env = await environment(process, { session, platform: this.#platform, signal: life.signal });
		const { platforms: runnable, searchPath } = this.#services;
		this.#emulation ??= startEmulator(findEmulator(this.#platform, { runnable, searchPath }));
		const emulation = await this.#emulation;
		const runs = Promise.withResolvers<RunningProcess | undefined>();
		const io: ProcessIo = {
			terminal: process.terminal,
			...(process.stdin === undefined ? {} : { stdin: process.stdin }),
		};
		const common = {
			id: this.#id,
			process: {
				args: [...emulation.args, ...process.args],
				env,
				cwd: process.cwd || "/",
				user: process.user,
			},
			security: process.security,
			io,
			onOutput: (stream: 1 | 2, chunk: Uint8Array) =>
				(stream === 1 ? process.onStdout : process.onStderr)?.(chunk),
			onStarted: (running: RunningProcess) => runs.resolve(running),
			signal: life.signal,
		};
		let status: Promise<{ readonly code: number }>;
		if (this.#first === undefined) {
			const { root, mounts } = this.#state.prepared;
			status = this.#services.executor.run({
				...common,
				root,
				mounts: [...mounts, ...this.#state.directories.mounts, ...emulation.mounts],
				...(emulation.userNamespace === undefined ? {} : { userNamespace: emulation.userNamespace }),
				network: this.#request.network,
				...(this.#request.hostname === "" ? {} : { hostname: this.#request.hostname }),
				extraHosts: this.#request.extraHosts,
				ulimits: [],
				platform: this.#platform,
				removeMountStubsRecursive: process.removeMountStubsRecursive,
			});
			this.#first = runs.promise.then(() => {});
			// With its first process the container ends.
			status.then(
				() => life.abort(canceled()),
				() => life.abort(canceled()),
			);
		} else {
			await this.#first;
			status = this.#services.executor.exec(common);
		}
		const exited = status.then(({ code }) => code);
		this.#running.add(exited);
		exited
			.catch(() => {})
			.finally(() => {
				this.#running.delete(exited);
				runs.resolve(undefined);
			});
		const running = await runs.promise;
		return {
			exited,
			resize: (size) => running?.resize(size),
			signal: (signal) => running?.signal(signal),
		};
	}

	#refusal({ security }: ContainerProcessRequest): SlipwayError | undefined {
		const { allowsHostNetwork, allowsInsecure, life } = this.#state;
		if (this.#request.network === "host" && !allowsHostNetwork) {
			return new SlipwayError("permission-denied", "network.host is not allowed");
		}
		if (security === "insecure" && !allowsInsecure) {
			return new SlipwayError("permission-denied", "security.insecure is not allowed");
		}
		return life.signal.aborted ? new SlipwayError("not-found", `container ${this.#id} not found`) : undefined;
	}

	async mount(index: number): Promise<Pick<FrontendRef, "readFile" | "readDirectory" | "stat">> {
		const { mounts } = this.#request;
		const mount = mounts[index]?.mount;
		if (mount === undefined) {
			throw new SlipwayError("unknown", `mount index ${index} is out of bounds (${mounts.length} available)`);
		}
		const { root, mounts: prepared } = this.#state.prepared;
		const specs =
			mount.dest === "/"
				? root.mounts
				: specsOf(prepared.find(({ target }) => target === joinPath("/", mount.dest))?.source);
		if (specs === undefined) {
			throw new SlipwayError("unknown", `mountable ${index} not found`);
		}
		const inTree = async <T>(work: (path: string) => T | Promise<T>): Promise<T> => {
			using tree = mountTree(specs.map(readonlySpec), this.#services);
			return await work(tree.path);
		};
		return {
			readFile: async (path, range) => inTree((tree) => readTreeFile(tree, path, range)),
			readDirectory: async (path, { includePattern, signal }) =>
				inTree((tree) => readTreeDirectory(tree, path, { includePattern, signal })),
			stat: async (path) => inTree((tree) => statTree(tree, path)),
		};
	}

	[Symbol.asyncDispose](): Promise<void> {
		this.#disposed ??= this.#dispose();
		return this.#disposed;
	}

	async #dispose(): Promise<void> {
		this.#state.life.abort(canceled());
		await Promise.allSettled(this.#running);
		await this.#state.prepared[Symbol.asyncDispose]();
		await this.#state.directories[Symbol.asyncDispose]();
	}
}

async function environment(
	{ env, secretEnv, terminal }: ContainerProcessRequest,
	{
		session,
		platform,
		signal,
	}: { readonly session: Session; readonly platform: Platform; readonly signal: AbortSignal },
): Promise<readonly string[]> {
	const all = platform.os === "windows" ? [...env] : setDefaultEnv([...env], "PATH", defaultPath);
	const complete = terminal ? setDefaultEnv(all, "TERM", "xterm") : all;
	const context: StepContext = {
		signal,
		vertex: containerVertex,
		progress: { write: () => {} },
		clients: () => [{ session } satisfies JobClient],
	};
	const decoder = new TextDecoder();
	for (const { id, name, optional } of secretEnv) {
		if (id === "") {
			throw new SlipwayError("unknown", `secret ID missing for ${JSON.stringify(name)} environment variable`);
		}
		const data = await findSecret(context, id, optional);
		complete.push(`${name}=${data === undefined ? "" : decoder.decode(data)}`);
	}
	return complete;
}

function specsOf(source: ContainerMountSource | undefined): readonly MountSpec[] | undefined {
	return source?.kind === "tree" ? source.mounts : source?.kind === "tmpfs" ? emptyTree : undefined;
}

/** What a writable overlay shows, without being its second writer. */
function readonlySpec(spec: MountSpec): MountSpec {
	const optionOf = (key: string): string | undefined =>
		spec.options.find((option) => option.startsWith(`${key}=`))?.slice(key.length + 1);
	const upper = optionOf("upperdir");
	if (spec.type !== "overlay" || upper === undefined) {
		return spec;
	}
	const others = spec.options.filter((option) => !/^(?:upperdir|workdir|lowerdir)=/.test(option));
	return { ...spec, options: ["ro", ...others, `lowerdir=${upper}:${optionOf("lowerdir") ?? ""}`] };
}
