import { SlipwayError } from "../errors/errors.ts";
import type { Platform } from "../oci/platform.ts";
import { compareUtf8 } from "../oci/utf8-order.ts";
import type { Constraints, MarshalledOp, NodeOutput, OpMetadata, Output, SourceLocation } from "./llb.ts";
import type {
	CacheSharing,
	ContentCache,
	Device,
	ExtraHost,
	NetworkMode,
	ProxyEnv,
	SecurityMode,
	Ulimit,
} from "./op.ts";

/**
 * The nodes of a graph that is being built, and their constructors. They hold what the user said; numbering of inputs
 * and outputs, defaults and capabilities come with `marshal`. Users of the package reach them through `State`.
 */
export type Node =
	| SourceNode
	| ExecNode
	| FileNode
	| MergeNode
	| DiffNode
	| PassthroughNode
	| BuildNode
	| DefinitionNode;

interface NodeBase {
	/** In the order in which their ops come in a definition. */
	readonly inputs: readonly Output[];
	readonly constraints: Constraints;
}

export interface SourceNode extends NodeBase {
	readonly kind: "source";
	readonly identifier: string;
	readonly attrs: ReadonlyMap<string, string>;
	readonly caps: readonly string[];
	/** For `local://` without a session: tells apart two builds' directories of one name; absent: one per marshal. */
	readonly uniqueId?: string;
}

export interface ExecNode extends NodeBase {
	readonly kind: "exec";
	readonly process: ExecProcess;
	/** By target, as the wire has them; the root is among them. */
	readonly mounts: readonly ExecMount[];
}

/** What runs, and in which surroundings. */
export interface ExecProcess {
	readonly args: readonly string[];
	readonly env: ReadonlyMap<string, string>;
	readonly dir: string;
	readonly user: string;
	readonly hostname: string;
	readonly cgroupParent: string;
	/** Absent: only 0. */
	readonly validExitCodes?: readonly number[];
	readonly extraHosts: readonly ExtraHost[];
	readonly ulimits: readonly Ulimit[];
	readonly network: NetworkMode;
	readonly security: SecurityMode;
	readonly proxyEnv?: ProxyEnv;
	readonly secrets: readonly ExecSecret[];
	readonly ssh: readonly ExecSsh[];
	readonly devices: readonly Device[];
	/** Of the state that it runs on; the node's constraints come first. */
	readonly platform?: Platform;
}

export interface ExecMount {
	readonly target: string;
	/** Absent: an empty directory. */
	readonly source?: Output;
	/** The path in the source. */
	readonly selector?: string;
	readonly readonly?: boolean;
	/** What is written is lost, and nothing can be built on it. */
	readonly noOutput?: boolean;
	readonly cache?: { readonly id: string; readonly sharing: CacheSharing };
	/** `size` in bytes. */
	readonly tmpfs?: { readonly size?: number };
	readonly contentCache?: ContentCache;
}

/** A secret as a file (`target`), an environment variable (`env`), or both. */
export interface ExecSecret {
	readonly id: string;
	readonly target?: string;
	readonly env?: string;
	/** Default 0400. */
	readonly mode?: number;
	readonly uid?: number;
	readonly gid?: number;
	/** Without it a missing secret is an error. */
	readonly optional?: boolean;
}

/** A socket of an ssh agent of the client. */
export interface ExecSsh {
	/** Empty or absent: the client's default agent. */
	readonly id?: string;
	/** Default `/run/buildkit/ssh_agent.<n>`. */
	readonly target?: string;
	/** Default 0600. */
	readonly mode?: number;
	readonly uid?: number;
	readonly gid?: number;
	readonly optional?: boolean;
}

export interface FileNode extends NodeBase {
	readonly kind: "file";
	readonly steps: BoundSteps;
}

/** Steps with the file system that they change and the directory that their relative paths begin at. */
export interface BoundSteps {
	readonly base: FileBase;
	readonly steps: readonly FileStep[];
}

export interface FileBase {
	/** Absent: scratch. */
	readonly output?: Output;
	readonly dir: string;
}

export type FileStep = CopyStep | MkfileStep | MkdirStep | RemoveStep | SymlinkStep;

export interface CopyStep {
	readonly kind: "copy";
	/** A file system, or what comes out of other steps within the same op. */
	readonly from: FileBase | BoundSteps;
	readonly src: string;
	readonly dest: string;
	readonly options: CopyOptions;
}

export interface CopyOptions {
	readonly owner?: OwnerSpec;
	/** Permission bits for all that is copied, or text as chmod reads it; absent keeps them. */
	readonly mode?: number | string;
	readonly followSymlinks?: boolean;
	/** Copies what is in the source directory, not the directory. */
	readonly dirContentsOnly?: boolean;
	readonly includePatterns?: readonly string[];
	readonly excludePatterns?: readonly string[];
	readonly requiredPaths?: readonly string[];
	readonly attemptUnpack?: boolean;
	readonly createDestPath?: boolean;
	readonly allowWildcard?: boolean;
	readonly allowEmptyWildcard?: boolean;
	readonly createdNs?: bigint;
	readonly alwaysReplaceExistingDestPaths?: boolean;
}

/** Without `input`: names are looked up in the file system that the steps change. */
export interface OwnerSpec {
	readonly user?: UserSpec;
	readonly group?: UserSpec;
}

export type UserSpec =
	| { readonly kind: "id"; readonly id: number }
	| { readonly kind: "name"; readonly name: string };

export interface NewFileOptions {
	readonly owner?: OwnerSpec;
	readonly createdNs?: bigint;
}

export interface MkfileStep {
	readonly kind: "mkfile";
	readonly path: string;
	readonly mode: number;
	readonly data: Uint8Array;
	readonly options: NewFileOptions;
}

export interface MkdirStep {
	readonly kind: "mkdir";
	readonly path: string;
	readonly mode: number;
	readonly options: NewFileOptions & { readonly makeParents?: boolean };
}

export interface RemoveStep {
	readonly kind: "rm";
	readonly path: string;
	readonly options: { readonly allowNotFound?: boolean; readonly allowWildcard?: boolean };
}

export interface SymlinkStep {
	readonly kind: "symlink";
	readonly oldPath: string;
	readonly newPath: string;
	readonly options: NewFileOptions;
}

export interface MergeNode extends NodeBase {
	readonly kind: "merge";
}

export interface DiffNode extends NodeBase {
	readonly kind: "diff";
	readonly lower?: Output;
	readonly upper?: Output;
}

export interface PassthroughNode extends NodeBase {
	readonly kind: "passthrough";
	readonly id: string;
	/** Output i is input `outputs[i]`. */
	readonly outputs: readonly number[];
}

export interface BuildNode extends NodeBase {
	readonly kind: "build";
	/** Of the definition in the input; absent: the default name. */
	readonly filename?: string;
}

/** An op that came marshalled; its bytes stay as they are. */
export interface DefinitionNode extends NodeBase {
	readonly kind: "definition";
	readonly op: MarshalledOp;
	readonly metadata?: OpMetadata;
	readonly locations: readonly SourceLocation[];
}

export function outputOf(node: Node, index = 0, platform?: Platform): NodeOutput {
	return { kind: "node", node, index, ...(platform === undefined ? {} : { platform }) };
}

export interface SourceNodeOptions {
	readonly attrs?: ReadonlyMap<string, string>;
	readonly caps?: readonly string[];
	readonly uniqueId?: string;
	readonly constraints?: Constraints;
}

/** Throws `invalid-argument` if the identifier is empty. */
export function sourceNode(identifier: string, options: SourceNodeOptions = {}): SourceNode {
	if (identifier === "") {
		throw new SlipwayError("invalid-argument", "source identifier can't be empty");
	}
	return {
		kind: "source",
		identifier,
		attrs: options.attrs ?? new Map(),
		caps: options.caps ?? [],
		...(options.uniqueId === undefined ? {} : { uniqueId: options.uniqueId }),
		inputs: [],
		constraints: options.constraints ?? {},
	};
}

/** Throws `invalid-argument` if nothing is to be run, or a tmpfs mount has a source. */
export function execNode(
	process: ExecProcess,
	mounts: readonly ExecMount[],
	constraints: Constraints = {},
): ExecNode {
	if (process.args.length === 0) {
		throw new SlipwayError("invalid-argument", "arguments are required");
	}
	if (process.dir === "") {
		throw new SlipwayError("invalid-argument", "working directory is required");
	}
	if (mounts.some((mount) => mount.tmpfs !== undefined && mount.source !== undefined)) {
		throw new SlipwayError("invalid-argument", "tmpfs mounts must use scratch");
	}
	const sorted = mounts.toSorted((a, b) => compareUtf8(a.target, b.target));
	return {
		kind: "exec",
		process,
		mounts: sorted,
		inputs: distinct(sorted.map((mount) => mount.source)),
		constraints,
	};
}

/** True if the mount becomes an output of its op. */
export function hasOutput(mount: ExecMount): boolean {
	return !mount.noOutput && !mount.readonly && !isCacheMount(mount) && mount.tmpfs === undefined;
}

/** A cache mount without an id is none, as in BuildKit. */
export function isCacheMount(mount: ExecMount): boolean {
	return mount.cache !== undefined && mount.cache.id !== "";
}

/**
 * What a mount holds when the process has ended: its source if it is read-only. Undefined for an empty directory that
 * is read-only. Throws `invalid-argument` for a mount that nothing can be built on, or a target that is none.
 */
export function mountOutput(node: ExecNode, target: string): Output | undefined {
	const mount = node.mounts.find((each) => each.target === target);
	if (mount === undefined) {
		throw new SlipwayError("invalid-argument", `no mount at ${target}`);
	}
	if (mount.readonly) {
		return mount.source;
	}
	if (!hasOutput(mount)) {
		const kind = mount.tmpfs ? "tmpfs mount" : isCacheMount(mount) ? "cache mount" : "no-output mount";
		throw new SlipwayError("invalid-argument", `${kind} at ${target} can't be used as a parent`);
	}
	const index = node.mounts.filter(hasOutput).indexOf(mount);
	return outputOf(node, index, node.constraints.platform);
}

/** Throws `invalid-argument` if there is no step. */
export function fileNode(steps: BoundSteps, constraints: Constraints = {}): FileNode {
	if (steps.steps.length === 0) {
		throw new SlipwayError("invalid-argument", "action is required");
	}
	return { kind: "file", steps, inputs: distinct(fileInputs(steps)), constraints };
}

/** Last step first; each step's base, then what it copies from. */
function fileInputs(bound: BoundSteps): (Output | undefined)[] {
	const inputs = [bound.base.output];
	for (const step of bound.steps.toReversed()) {
		if (step.kind !== "copy") {
			continue;
		}
		if ("steps" in step.from) {
			inputs.push(...fileInputs(step.from));
		} else {
			inputs.push(step.from.output);
		}
	}
	return inputs;
}

/** Throws `invalid-argument` for less than two. */
export function mergeNode(inputs: readonly Output[], constraints: Constraints = {}): MergeNode {
	if (inputs.length < 2) {
		throw new SlipwayError("invalid-argument", "merge must have at least 2 inputs");
	}
	return { kind: "merge", inputs, constraints };
}

export function diffNode(
	lower: Output | undefined,
	upper: Output | undefined,
	constraints: Constraints = {},
): DiffNode {
	return {
		kind: "diff",
		...(lower === undefined ? {} : { lower }),
		...(upper === undefined ? {} : { upper }),
		inputs: [lower, upper].filter((output) => output !== undefined),
		constraints,
	};
}

/** Throws `invalid-argument` for an empty id, no input, no output, or an output of no input. */
export function passthroughNode(
	id: string,
	inputs: readonly Output[],
	outputs: readonly number[],
	constraints: Constraints = {},
): PassthroughNode {
	if (inputs.length === 0) {
		throw new SlipwayError("invalid-argument", "passthrough must have at least one input");
	}
	if (id === "") {
		throw new SlipwayError("invalid-argument", "passthrough requires an id");
	}
	if (outputs.length === 0) {
		throw new SlipwayError("invalid-argument", "passthrough must have at least one output");
	}
	const invalid = outputs.find((input) => !Number.isInteger(input) || input < 0 || input >= inputs.length);
	if (invalid !== undefined) {
		throw new SlipwayError("invalid-argument", `passthrough output references invalid input ${invalid}`);
	}
	return { kind: "passthrough", id, inputs, outputs, constraints };
}

export function buildNode(source: Output, filename?: string, constraints: Constraints = {}): BuildNode {
	return {
		kind: "build",
		inputs: [source],
		...(filename === undefined || filename === "" ? {} : { filename }),
		constraints,
	};
}

/** The outputs without repeats, first come first. */
function distinct(outputs: readonly (Output | undefined)[]): readonly Output[] {
	return [...new Set(outputs.filter((output) => output !== undefined))];
}
