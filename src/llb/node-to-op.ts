import { defaultPath } from "../oci/image-config.ts";
import type { Platform } from "../oci/platform.ts";
import type { CapabilitySet } from "./capabilities.ts";
import { cleanPath, joinPath } from "./go-path.ts";
import type { Output } from "./llb.ts";
import {
	buildDefinitionInput,
	buildFilenameAttr,
	type FileAction,
	type Input,
	type Mount,
	type Op,
	type Owner,
	type UserRef,
} from "./op.ts";
import {
	type BoundSteps,
	type CopyStep,
	type DefinitionNode,
	type DiffNode,
	type ExecMount,
	type ExecNode,
	type FileNode,
	type FileStep,
	hasOutput,
	isCacheMount,
	type Node,
	type OwnerSpec,
	type SourceNode,
	type UserSpec,
} from "./ops.ts";

/** What a node's op depends on besides the node. */
export interface NodeSurroundings {
	/** The node's own, or that of the marshal. */
	readonly platform: Platform;
	/** That of the marshal. */
	readonly basePlatform: Platform;
	readonly filters: readonly string[];
	readonly caps: CapabilitySet | undefined;
	readonly localUniqueId: string;
	/** The op's input for an output whose node is already marshalled. */
	readonly inputOf: (output: Output) => Input;
}

/** The op, numbered as BuildKit's client numbers it, and the capabilities that it needs. */
export interface NodeOp {
	readonly op: Op;
	readonly caps: readonly string[];
}

export function nodeToOp(node: Exclude<Node, DefinitionNode>, around: NodeSurroundings): NodeOp {
	const { filters } = around;
	switch (node.kind) {
		case "source":
			return sourceToOp(node, around);
		case "exec":
			return execToOp(node, around);
		case "file":
			return fileToOp(node, around);
		case "merge": {
			const inputs = node.inputs.map(around.inputOf);
			return {
				op: { kind: "merge", inputs, layers: inputs.map((_, index) => index), filters },
				caps: ["mergeop"],
			};
		}
		case "diff":
			return diffToOp(node, around);
		case "passthrough": {
			const inputs = node.inputs.map(around.inputOf);
			return {
				op: { kind: "passthrough", inputs, id: node.id, outputs: node.outputs, filters },
				caps: ["passthroughop"],
			};
		}
		case "build": {
			const attrs = node.filename === undefined ? [] : ([[buildFilenameAttr, node.filename]] as const);
			return {
				op: {
					kind: "build",
					inputs: node.inputs.map(around.inputOf),
					builderInputs: new Map([[buildDefinitionInput, 0]]),
					attrs: new Map(attrs),
					platform: around.platform,
					filters,
				},
				caps: ["source.buildop.llbfilename"],
			};
		}
	}
}

function sourceToOp(node: SourceNode, { platform, filters, localUniqueId }: NodeSurroundings): NodeOp {
	const { identifier } = node;
	const needsId = identifier.startsWith("local://") && !node.attrs.has("local.session");
	const hasPlatform = identifier.startsWith("docker-image://") || identifier.startsWith("oci-layout://");
	return {
		op: {
			kind: "source",
			inputs: [],
			identifier,
			attrs: needsId ? new Map(node.attrs).set("local.unique", node.uniqueId ?? localUniqueId) : node.attrs,
			...(hasPlatform ? { platform } : {}),
			filters,
		},
		caps: needsId ? [...node.caps, "source.local.unique"] : node.caps,
	};
}

function diffToOp(node: DiffNode, { inputOf, filters }: NodeSurroundings): NodeOp {
	return {
		op: {
			kind: "diff",
			inputs: node.inputs.map(inputOf),
			...(node.lower === undefined ? {} : { lower: 0 }),
			...(node.upper === undefined ? {} : { upper: node.lower === undefined ? 0 : 1 }),
			filters,
		},
		caps: ["diffop"],
	};
}

/** Numbers inputs in the order of their first use; equal ones have one number. */
class InputNumbers {
	readonly inputs: Input[] = [];
	readonly #numbers = new Map<string, number>();
	readonly #inputOf: (output: Output) => Input;

	constructor(inputOf: (output: Output) => Input) {
		this.#inputOf = inputOf;
	}

	add(output: Output): number {
		const input = this.#inputOf(output);
		const key = `${input.digest}@${input.index}`;
		const known = this.#numbers.get(key);
		if (known !== undefined) {
			return known;
		}
		this.#numbers.set(key, this.inputs.length);
		return this.inputs.push(input) - 1;
	}
}

const authSocket = "SSH_AUTH_SOCK";

function execToOp(node: ExecNode, around: NodeSurroundings): NodeOp {
	const { process } = node;
	const { platform, caps } = around;
	const env = new Map(process.env);
	const targetOfSsh = (index: number) => process.ssh[index]?.target || `/run/buildkit/ssh_agent.${index}`;
	if (process.ssh.length > 0 && !env.has(authSocket)) {
		env.set(authSocket, targetOfSsh(0));
	}
	// A server without this ability leaves PATH unset; one that was not asked is taken to have it. BuildKit's client
	// looks at the platform of the marshal also where the op has another.
	const setsPath = caps?.has("exec.meta.setsdefaultpath") ?? true;
	if (!setsPath && !env.has("PATH") && around.basePlatform.os !== "windows") {
		env.set("PATH", defaultPath);
	}

	const numbers = new InputNumbers(around.inputOf);
	let outputs = 0;
	const mounts: Mount[] = node.mounts.map((mount) => {
		const input = mount.source === undefined ? undefined : numbers.add(mount.source);
		return toMount(mount, input, hasOutput(mount) ? outputs++ : undefined);
	});
	const secretEnv = [];
	for (const { id, target, env: name, mode = 0o400, uid = 0, gid = 0, optional = false } of process.secrets) {
		if (name !== undefined) {
			secretEnv.push({ id, name, optional });
		}
		if (target !== undefined) {
			mounts.push({ kind: "secret", ...plainMount(target), id, uid, gid, mode, optional });
		}
	}
	for (const [
		index,
		{ id = "", mode = 0o600, uid = 0, gid = 0, optional = false },
	] of process.ssh.entries()) {
		mounts.push({ kind: "ssh", ...plainMount(targetOfSsh(index)), id, uid, gid, mode, optional });
	}

	return {
		op: {
			kind: "exec",
			inputs: numbers.inputs,
			meta: {
				args: process.args,
				env: [...env].map(([key, value]) => `${key}=${value}`),
				cwd: process.dir,
				user: process.user,
				...(process.proxyEnv === undefined ? {} : { proxyEnv: process.proxyEnv }),
				extraHosts: process.extraHosts,
				hostname: process.hostname,
				ulimits: process.ulimits,
				cgroupParent: process.cgroupParent,
				removeMountStubsRecursive: true,
				validExitCodes: process.validExitCodes ?? [],
			},
			mounts,
			network: process.network,
			security: process.security,
			secretEnv,
			devices: process.devices,
			platform,
			filters: around.filters,
		},
		caps: execCaps(node, caps !== undefined && setsPath),
	};
}

function plainMount(dest: string) {
	return { dest, selector: "", readonly: false, contentCache: "default", resultId: "" } as const;
}

function toMount(mount: ExecMount, input: number | undefined, output: number | undefined): Mount {
	const base = {
		...plainMount(mount.target),
		selector: mount.selector ?? "",
		readonly: mount.readonly ?? false,
		contentCache: mount.contentCache ?? "default",
		...(input === undefined ? {} : { input }),
		...(output === undefined ? {} : { output }),
	};
	if (mount.tmpfs !== undefined) {
		return { kind: "tmpfs", ...base, size: mount.tmpfs.size ?? 0 };
	}
	if (mount.cache !== undefined && isCacheMount(mount)) {
		return { kind: "cache", ...base, id: mount.cache.id, sharing: mount.cache.sharing };
	}
	return { kind: "bind", ...base };
}

function execCaps({ process, mounts, constraints }: ExecNode, setsDefaultPath: boolean): readonly string[] {
	const caps = new Set(["exec.meta.base"]);
	const needs = (condition: boolean, ...ids: readonly string[]) => {
		if (condition) {
			for (const id of ids) {
				caps.add(id);
			}
		}
	};
	needs(setsDefaultPath, "exec.meta.setsdefaultpath");
	needs(process.validExitCodes !== undefined, "exec.validexitcode");
	needs(process.ulimits.length > 0, "exec.meta.ulimit");
	needs(constraints.linuxResources !== undefined, "exec.meta.linux.resources");
	needs(process.network !== "sandbox", "exec.meta.network");
	needs(process.security === "insecure", "exec.meta.security");
	needs(process.proxyEnv !== undefined, "exec.meta.proxyenv");
	needs(process.secrets.length > 0, "exec.mount.secret");
	needs(
		process.secrets.some((secret) => secret.env !== undefined),
		"exec.secretenv",
	);
	needs(process.ssh.length > 0, "exec.mount.ssh");
	needs(process.devices.length > 0, "exec.meta.cdi");
	for (const mount of mounts) {
		needs(mount.selector !== undefined && mount.selector !== "", "exec.mount.selector");
		needs(mount.contentCache !== undefined && mount.contentCache !== "default", "exec.mount.cache.content");
		if (isCacheMount(mount)) {
			needs(true, "exec.mount.cache", "exec.mount.cache.sharing");
		} else if (mount.tmpfs !== undefined) {
			needs(true, "exec.mount.tmpfs");
			needs((mount.tmpfs.size ?? 0) > 0, "exec.mount.tmpfs.size");
		} else {
			needs(mount.source !== undefined, "exec.mount.bind");
		}
	}
	return [...caps];
}

/** A step with its place in the op: numbers of inputs, or of the steps before it whose results it takes. */
interface PlacedStep {
	readonly step: FileStep;
	readonly dir: string;
	/** The number of the file system that names of owners are looked up in. */
	readonly base: number | undefined;
	readonly input: StepInput;
	readonly secondary: StepInput;
}

type StepInput =
	| { readonly kind: "none" }
	| { readonly kind: "input"; readonly number: number }
	| { readonly kind: "result"; readonly of: number };

function fileToOp(node: FileNode, { inputOf, filters }: NodeSurroundings): NodeOp {
	const numbers = new InputNumbers(inputOf);
	const placed: PlacedStep[] = [];
	placeSteps(node.steps, numbers, placed, new Map());
	const inputs = numbers.inputs.length;
	const actions = placed.map((each, index): FileAction => {
		const input = numberOf(each.input, inputs);
		const secondaryInput = numberOf(each.secondary, inputs);
		return {
			...toAction(each),
			...(input === undefined ? {} : { input }),
			...(secondaryInput === undefined ? {} : { secondaryInput }),
			...(index === placed.length - 1 ? { output: 0 } : {}),
		};
	});
	// BuildKit's client means to add capabilities of copies and links, but looks for them before it has any step.
	return { op: { kind: "file", inputs: numbers.inputs, actions, filters }, caps: ["file.base"] };
}

function numberOf(input: StepInput, inputs: number): number | undefined {
	switch (input.kind) {
		case "none":
			return undefined;
		case "input":
			return input.number;
		case "result":
			return inputs + input.of;
	}
}

/** Gives the number of the last of the steps. Steps that several copies take from are placed once. */
function placeSteps(
	bound: BoundSteps,
	numbers: InputNumbers,
	placed: PlacedStep[],
	known: Map<BoundSteps, number>,
): number {
	const before = known.get(bound);
	if (before !== undefined) {
		return before;
	}
	let last: number | undefined;
	for (const step of bound.steps) {
		const base = bound.base.output === undefined ? undefined : numbers.add(bound.base.output);
		const input: StepInput =
			last !== undefined
				? { kind: "result", of: last }
				: base === undefined
					? { kind: "none" }
					: { kind: "input", number: base };
		const secondary =
			step.kind === "copy" ? placeSource(step, numbers, placed, known) : { kind: "none" as const };
		last = placed.push({ step, dir: bound.base.dir, base, input, secondary }) - 1;
	}
	// No node has empty steps.
	const result = last ?? 0;
	known.set(bound, result);
	return result;
}

function placeSource(
	{ from }: CopyStep,
	numbers: InputNumbers,
	placed: PlacedStep[],
	known: Map<BoundSteps, number>,
): StepInput {
	if ("steps" in from) {
		return { kind: "result", of: placeSteps(from, numbers, placed, known) };
	}
	return from.output === undefined ? { kind: "none" } : { kind: "input", number: numbers.add(from.output) };
}

const permissionBits = 0o777;

function toAction({ step, dir, base }: PlacedStep): FileAction {
	const common = (options: { readonly owner?: OwnerSpec; readonly createdNs?: bigint }) => ({
		...(options.owner === undefined ? {} : { owner: toOwner(options.owner, base) }),
		...(options.createdNs === undefined ? {} : { createdNs: options.createdNs }),
	});
	switch (step.kind) {
		case "mkdir":
			return {
				kind: "mkdir",
				path: absolutePath(dir, step.path),
				mode: step.mode & permissionBits,
				makeParents: step.options.makeParents ?? false,
				...common(step.options),
			};
		case "mkfile":
			return {
				kind: "mkfile",
				path: absolutePath(dir, step.path),
				mode: step.mode & permissionBits,
				data: step.data,
				...common(step.options),
			};
		case "symlink":
			return {
				kind: "symlink",
				oldPath: step.oldPath,
				newPath: step.newPath,
				...common(step.options),
			};
		case "rm":
			return {
				kind: "rm",
				path: absolutePath(dir, step.path),
				allowNotFound: step.options.allowNotFound ?? false,
				allowWildcard: step.options.allowWildcard ?? false,
			};
		case "copy": {
			const { options, from } = step;
			const { mode } = options;
			return {
				kind: "copy",
				src: joinPath(step.src.startsWith("/") ? "/" : dirOf(from), cleanPath(step.src)),
				dest: copyDestination(dir, step.dest),
				...(typeof mode === "number" ? { mode } : {}),
				modeText: typeof mode === "string" ? mode : "",
				followSymlink: options.followSymlinks ?? false,
				dirCopyContents: options.dirContentsOnly ?? false,
				attemptUnpack: options.attemptUnpack ?? false,
				createDestPath: options.createDestPath ?? false,
				allowWildcard: options.allowWildcard ?? false,
				allowEmptyWildcard: options.allowEmptyWildcard ?? false,
				includePatterns: options.includePatterns ?? [],
				excludePatterns: options.excludePatterns ?? [],
				requiredPaths: options.requiredPaths ?? [],
				alwaysReplaceExistingDestPaths: options.alwaysReplaceExistingDestPaths ?? false,
				...common(options),
			};
		}
	}
}

function dirOf(from: CopyStep["from"]): string {
	return "steps" in from ? from.base.dir : from.dir;
}

function absolutePath(dir: string, path: string): string {
	const clean = cleanPath(path);
	return clean.startsWith("/") ? clean : joinPath("/", dir, clean);
}

/** A trailing slash, or slash and dot, says "into the directory" and stays. */
function copyDestination(dir: string, path: string): string {
	const absolute = absolutePath(dir, path);
	if (path.endsWith("/") && !absolute.endsWith("/")) {
		return `${absolute}/`;
	}
	if (path.endsWith("/.")) {
		return absolute === "/" ? "/." : `${absolute}/.`;
	}
	return absolute;
}

function toOwner({ user, group }: OwnerSpec, base: number | undefined): Owner {
	return {
		...(user === undefined ? {} : { user: toUser(user, base) }),
		...(group === undefined ? {} : { group: toUser(group, base) }),
	};
}

function toUser(user: UserSpec, base: number | undefined): UserRef {
	return user.kind === "id" || base === undefined ? user : { ...user, input: base };
}
