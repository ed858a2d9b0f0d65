import { SocketAddress } from "node:net";
import { SlipwayError } from "../errors/errors.ts";
import type { ImageConfig } from "../oci/image-config.ts";
import { normalizePlatform, type Platform } from "../oci/platform.ts";
import { bindSteps } from "./file-steps.ts";
import { joinPath } from "./go-path.ts";
import type { Constraints, Definition, Output } from "./llb.ts";
import { type MarshalOptions, marshal } from "./marshal.ts";
import type { Device, ExtraHost, NetworkMode, ProxyEnv, SecurityMode, Ulimit } from "./op.ts";
import {
	buildNode,
	diffNode,
	type ExecMount,
	type ExecNode,
	type ExecSecret,
	type ExecSsh,
	execNode,
	type FileStep,
	fileNode,
	mergeNode,
	mountOutput,
	outputOf,
	passthroughNode,
} from "./ops.ts";

/** What runs on a state inherit from it. */
export interface StateValues {
	/** In the order of the last assignment of each key. */
	readonly env: ReadonlyMap<string, string>;
	/** Relative paths begin here. */
	readonly dir: string;
	readonly user: string;
	readonly hostname: string;
	/** Absent: the one that the definition is marshalled for. */
	readonly platform: Platform | undefined;
	readonly network: NetworkMode;
	readonly security: SecurityMode;
	readonly extraHosts: readonly ExtraHost[];
	readonly ulimits: readonly Ulimit[];
	readonly cgroupParent: string;
}

export interface RunMount extends Omit<ExecMount, "source"> {
	/** Absent: an empty directory. */
	readonly source?: State;
}

export interface RunOptions extends Constraints {
	readonly args: readonly string[];
	/** Besides the root, which is the state. */
	readonly mounts?: readonly RunMount[];
	readonly secrets?: readonly ExecSecret[];
	readonly ssh?: readonly ExecSsh[];
	readonly devices?: readonly Device[];
	readonly readonlyRoot?: boolean;
	/** No part of the cache key. */
	readonly proxyEnv?: ProxyEnv;
	readonly validExitCodes?: readonly number[];
	/** Values for this run only: `{ args, with: (s) => s.withNetwork("none") }`. */
	readonly with?: (state: State) => State;
}

const initialValues: StateValues = {
	env: new Map(),
	dir: "/",
	user: "",
	hostname: "",
	platform: undefined,
	network: "sandbox",
	security: "sandbox",
	extraHosts: [],
	ulimits: [],
	cgroupParent: "",
};

/**
 * A file system in the graph, and the values that commands run on it with. Immutable: every method gives a new state.
 * Nothing is run or checked against a server before the definition is built.
 *
 * A class, as an exception of the house, because graphs are written as chains of calls. Equal calls give equal ops,
 * byte for byte those of BuildKit's Go client.
 */
export class State implements StateValues {
	/** Undefined is scratch. */
	readonly output: Output | undefined;
	readonly env: ReadonlyMap<string, string>;
	readonly dir: string;
	readonly user: string;
	readonly hostname: string;
	readonly platform: Platform | undefined;
	readonly network: NetworkMode;
	readonly security: SecurityMode;
	readonly extraHosts: readonly ExtraHost[];
	readonly ulimits: readonly Ulimit[];
	readonly cgroupParent: string;

	constructor(output: Output | undefined, values: StateValues = initialValues) {
		this.output = output;
		this.env = values.env;
		this.dir = values.dir;
		this.user = values.user;
		this.hostname = values.hostname;
		this.platform = values.platform;
		this.network = values.network;
		this.security = values.security;
		this.extraHosts = values.extraHosts;
		this.ulimits = values.ulimits;
		this.cgroupParent = values.cgroupParent;
	}

	#set(values: Partial<StateValues>): State {
		return new State(this.output, { ...this, ...values });
	}

	/** The same values on another file system, whose platform it takes on if it has one. */
	withOutput(output: Output | undefined): State {
		const platform = platformOf(output);
		return new State(output, platform === undefined ? this : { ...this, platform });
	}

	/** The values of `other` on this file system, but at `/`, or where `other` is if this output has a platform. */
	reset(other: State): State {
		const platform = platformOf(this.output);
		// BuildKit's client replaces the parent of the last value set: the platform if there is one, else the directory.
		return new State(this.output, platform === undefined ? { ...other, dir: "/" } : { ...other, platform });
	}

	/** A key that was set before moves to the end. */
	withEnv(key: string, value: string): State {
		const env = new Map(this.env);
		env.delete(key);
		return this.#set({ env: env.set(key, value) });
	}

	/** Relative to the present directory. An absolute path is taken as it is. */
	withDir(path: string): State {
		const dir = path.startsWith("/") ? path : joinPath(this.dir === "" ? "/" : this.dir, path);
		return this.#set({ dir });
	}

	/** `user[:group]`, names or numbers. */
	withUser(user: string): State {
		return this.#set({ user });
	}

	withHostname(hostname: string): State {
		return this.#set({ hostname });
	}

	withPlatform(platform: Platform): State {
		return this.#set({ platform: normalizePlatform(platform) });
	}

	withNetwork(network: NetworkMode): State {
		return this.#set({ network });
	}

	withSecurity(security: SecurityMode): State {
		return this.#set({ security });
	}

	/** Throws `invalid-argument` if `ip` is no address. */
	withExtraHost(host: string, ip: string): State {
		return this.#set({ extraHosts: [...this.extraHosts, { host, ip: formatIp(ip) }] });
	}

	/** -1 is no limit. */
	withUlimit(name: string, soft: number | bigint, hard: number | bigint): State {
		return this.#set({
			ulimits: [...this.ulimits, { name, soft: BigInt(soft), hard: BigInt(hard) }],
		});
	}

	withCgroupParent(cgroupParent: string): State {
		return this.#set({ cgroupParent });
	}

	/** Environment, directory and platform of an image. */
	withImageConfig(image: ImageConfig): State {
		let state: State = this;
		for (const entry of image.config?.Env ?? []) {
			const equals = entry.indexOf("=");
			const key = equals === -1 ? entry : entry.slice(0, equals);
			if (key !== "") {
				state = state.withEnv(key, equals === -1 ? "" : entry.slice(equals + 1));
			}
		}
		state = state.withDir(image.config?.WorkingDir ?? "");
		if (image.architecture === "" || image.os === "") {
			return state;
		}
		return state.withPlatform({
			architecture: image.architecture,
			os: image.os,
			...(image.variant === undefined ? {} : { variant: image.variant }),
			...(image["os.version"] === undefined ? {} : { "os.version": image["os.version"] }),
			...(image["os.features"] === undefined ? {} : { "os.features": image["os.features"] }),
		});
	}

	/** Runs a process with this file system as its root. Throws `invalid-argument` for what can't be run. */
	run(options: RunOptions): ExecState {
		const on = options.with === undefined ? this : options.with(this);
		const root: ExecMount = {
			target: "/",
			...(on.output === undefined ? {} : { source: on.output }),
			readonly: options.readonlyRoot ?? false,
		};
		const mounts = options.mounts ?? [];
		const node = execNode(
			{
				args: options.args,
				env: on.env,
				dir: on.dir,
				user: on.user,
				hostname: on.hostname,
				cgroupParent: on.cgroupParent,
				extraHosts: on.extraHosts,
				ulimits: on.ulimits,
				network: on.network,
				security: on.security,
				secrets: options.secrets ?? [],
				ssh: options.ssh ?? [],
				devices: options.devices ?? [],
				...(options.proxyEnv === undefined ? {} : { proxyEnv: options.proxyEnv }),
				...(options.validExitCodes === undefined ? {} : { validExitCodes: options.validExitCodes }),
				...(on.platform === undefined ? {} : { platform: on.platform }),
			},
			[root, ...mounts.map(toExecMount)],
			options,
		);
		return new ExecState(this, node, mounts);
	}

	/** Changes files, in one op. */
	file(steps: FileStep | readonly FileStep[], constraints: Constraints = {}): State {
		return this.withOutput(outputOf(fileNode(bindSteps(this, steps), constraints)));
	}

	/** This state, but only after the others are built. */
	requires(id: string, ...others: readonly State[]): State {
		if (others.length === 0) {
			return this;
		}
		const inputs = others.map((other) => other.output).filter((output) => output !== undefined);
		const own = this.output;
		const node =
			own === undefined ? passthroughNode(id, inputs, []) : passthroughNode(id, [own, ...inputs], [0]);
		return this.withOutput(outputOf(node));
	}

	/** The file system that the definition in this one (a file of that name) describes. */
	build(filename?: string, constraints: Constraints = {}): State {
		if (this.output === undefined) {
			throw new SlipwayError("invalid-argument", "scratch holds no definition to build");
		}
		return this.withOutput(outputOf(buildNode(this.output, filename, constraints)));
	}

	/** The definition of the file system; scratch has an empty one. */
	marshal(options: MarshalOptions = {}): Definition {
		return marshal(this.output, options);
	}
}

/** What a process leaves behind: the root and each mount that it could write. */
export class ExecState {
	/** The state that was run on, with the changed file system. */
	readonly root: State;
	readonly #node: ExecNode;
	readonly #mounts: readonly RunMount[];

	constructor(on: State, node: ExecNode, mounts: readonly RunMount[]) {
		this.root = on.withOutput(mountOutput(node, "/"));
		this.#node = node;
		this.#mounts = mounts;
	}

	/**
	 * The content of a mount after the run, with the values of the state that was mounted. Throws `invalid-argument` for
	 * mounts without an output.
	 */
	mount(target: string): State {
		const source = this.#mounts.find((mount) => mount.target === target)?.source ?? scratch();
		return source.withOutput(mountOutput(this.#node, target));
	}
}

/** The empty file system. */
export function scratch(): State {
	return new State(undefined);
}

/** A state of any output, with no values but the output's platform. */
export function stateOf(output: Output | undefined): State {
	return scratch().withOutput(output);
}

/** File systems on top of each other, the first lowest, with the values of the first that is not scratch. */
export function merge(states: readonly State[], constraints: Constraints = {}): State {
	const inputs: State[] = [];
	const outputs: Output[] = [];
	for (const state of states) {
		if (state.output !== undefined) {
			inputs.push(state);
			outputs.push(state.output);
		}
	}
	const [first] = inputs;
	if (first === undefined) {
		return scratch();
	}
	return inputs.length === 1 ? first : first.withOutput(outputOf(mergeNode(outputs, constraints)));
}

/** What leads from `lower` to `upper`, with the values of `lower`. */
export function diff(lower: State, upper: State, constraints: Constraints = {}): State {
	if (lower.output === undefined) {
		return upper.output === undefined ? scratch() : upper;
	}
	return lower.withOutput(outputOf(diffNode(lower.output, upper.output, constraints)));
}

function toExecMount({ source, ...mount }: RunMount): ExecMount {
	return { ...mount, ...(source?.output === undefined ? {} : { source: source.output }) };
}

function platformOf(output: Output | undefined): Platform | undefined {
	const platform = output?.kind === "node" ? output.platform : undefined;
	return platform === undefined ? undefined : normalizePlatform(platform);
}

/** As Go writes it: IPv6 shortened, an IPv4 address inside IPv6 as IPv4. */
function formatIp(text: string): string {
	const family = text.includes(":") ? "ipv6" : "ipv4";
	try {
		const { address } = new SocketAddress({ address: text, family });
		return /^::ffff:\d+\.\d+\.\d+\.\d+$/.test(address) ? address.slice("::ffff:".length) : address;
	} catch (error) {
		throw new SlipwayError("invalid-argument", `invalid IP address ${JSON.stringify(text)}`, {
			cause: error,
		});
	}
}
