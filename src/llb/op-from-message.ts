import { isIP } from "node:net";
import * as pb from "../api/generated/ops.ts";
import { SlipwayError } from "../errors/errors.ts";
import { parseDigest } from "../oci/digest.ts";
import { normalizePlatform, type Platform } from "../oci/platform.ts";
import type {
	BuildOp,
	CacheSharing,
	ContentCache,
	ExecOp,
	FileAction,
	FileOp,
	Mount,
	NetworkMode,
	Op,
	Owner,
	SecurityMode,
	UserRef,
} from "./op.ts";

/**
 * The checked value of a message from anywhere. Where BuildKit checks too (on load, or later when it makes cache keys
 * or executes), the sentence is BuildKit's. Throws `invalid-argument`.
 */
export function fromOpMessage(message: pb.Op): Op {
	const base = {
		inputs: message.inputs.map(({ digest, index }) => ({ digest: parseDigest(digest), index })),
		filters: message.constraints?.filter ?? [],
		...(message.platform === undefined ? {} : { platform: fromPlatformMessage(message.platform) }),
	};
	const count = base.inputs.length;
	switch (message.op?.$case) {
		case undefined:
			// BuildKit looks at it when it asks for its cache key.
			throw invalid("no support for <nil>");
		case "source": {
			const { identifier, attrs } = message.op.value;
			return { kind: "source", identifier, attrs, ...base };
		}
		case "exec":
			return { kind: "exec", ...fromExec(message.op.value, count), ...base };
		case "file":
			return { kind: "file", actions: fromFile(message.op.value, count), ...base };
		case "build":
			return { kind: "build", ...fromBuild(message.op.value), ...base };
		case "merge": {
			const layers = message.op.value.inputs.map(({ input }) => input);
			for (const input of layers) {
				checkInput(input, count, (number) => `invalid merge input index ${number}`);
			}
			return { kind: "merge", layers, ...base };
		}
		case "diff":
			return { kind: "diff", ...fromDiff(message.op.value, count), ...base };
		case "passthrough":
			return { kind: "passthrough", ...fromPassthrough(message.op.value, count), ...base };
	}
}

/** In the normal form of names. */
export function fromPlatformMessage(message: pb.Platform): Platform {
	return normalizePlatform({
		architecture: message.Architecture,
		os: message.OS,
		...(message.Variant === "" ? {} : { variant: message.Variant }),
		...(message.OSVersion === "" ? {} : { "os.version": message.OSVersion }),
		...(message.OSFeatures.length === 0 ? {} : { "os.features": message.OSFeatures }),
	});
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}

function checkInput(number: number, count: number, describe: (number: number) => string): void {
	if (number < 0 || number >= count) {
		throw invalid(describe(number));
	}
}

/** Enums by their numbers. */
const networks: readonly NetworkMode[] = ["sandbox", "host", "none"];
const securities: readonly SecurityMode[] = ["sandbox", "insecure"];
const contentCaches: readonly ContentCache[] = ["default", "on", "off"];
const sharings: readonly CacheSharing[] = ["shared", "private", "locked"];

function nameOf<T>(names: readonly T[], number: number, what: string): T {
	const name = names[number];
	if (name === undefined) {
		throw invalid(`invalid ${what} ${number}`);
	}
	return name;
}

type Fields<T> = Omit<T, "kind" | "inputs" | "filters" | "platform">;

function fromExec(exec: pb.ExecOp, inputs: number): Fields<ExecOp> {
	const { meta } = exec;
	if (meta === undefined) {
		throw invalid("invalid exec op with no meta");
	}
	if (meta.args.length === 0) {
		throw invalid("invalid exec op with no args");
	}
	if (exec.mounts.length === 0) {
		throw invalid("invalid exec op with no mounts");
	}
	if (!exec.mounts.some((mount) => mount.dest === "/")) {
		throw invalid("invalid exec op with no rootfs");
	}
	// A runtime written in C would see what is in front of it only.
	if ([...meta.args, ...meta.env, meta.cwd, meta.user].some((text) => text.includes("\0"))) {
		throw invalid("invalid exec op with a zero byte in its args, env, cwd or user");
	}
	const { proxyEnv } = meta;
	return {
		meta: {
			args: meta.args,
			env: meta.env,
			cwd: meta.cwd,
			user: meta.user,
			...(proxyEnv === undefined
				? {}
				: {
						proxyEnv: {
							httpProxy: proxyEnv.httpProxy,
							httpsProxy: proxyEnv.httpsProxy,
							ftpProxy: proxyEnv.ftpProxy,
							noProxy: proxyEnv.noProxy,
							allProxy: proxyEnv.allProxy,
						},
					}),
			extraHosts: meta.extraHosts.map(({ Host, IP }) => ({ host: Host, ip: checkedIp(IP) })),
			hostname: meta.hostname,
			ulimits: meta.ulimit.map(({ Name, Soft, Hard }) => ({
				name: Name,
				soft: BigInt(Soft),
				hard: BigInt(Hard),
			})),
			cgroupParent: meta.cgroupParent,
			removeMountStubsRecursive: meta.removeMountStubsRecursive,
			validExitCodes: meta.validExitCodes,
		},
		mounts: exec.mounts.map((mount) => fromMount(mount, inputs)),
		network: nameOf(networks, exec.network, "network mode"),
		security: nameOf(securities, exec.security, "security mode"),
		secretEnv: exec.secretenv.map(({ ID, name, optional }) => ({ id: ID, name, optional })),
		devices: exec.cdiDevices.map(({ name, optional }) => ({ name, optional })),
	};
}

function checkedIp(ip: string): string {
	if (isIP(ip) === 0) {
		throw invalid(`failed to parse IP ${ip}`);
	}
	return ip;
}

/** A mount that stands by itself: its numbers of input and output are not looked at. */
export function fromMountMessage(mount: pb.Mount): Mount {
	return fromMount({ ...mount, input: -1, output: -1 }, 0);
}

function fromMount(mount: pb.Mount, inputs: number): Mount {
	const plain = {
		dest: mount.dest,
		selector: mount.selector,
		readonly: mount.readonly,
		contentCache: nameOf(contentCaches, mount.contentCache, "mount content cache"),
		resultId: mount.resultID,
	};
	const options = { uid: 0, gid: 0, mode: 0, optional: false };
	switch (mount.mountType) {
		case pb.MountType.BIND:
			return { kind: "bind", ...plain, ...fromMountNumbers(mount, inputs) };
		case pb.MountType.CACHE: {
			if (mount.cacheOpt === undefined) {
				throw new SlipwayError("invalid-argument", "missing cache mount options");
			}
			const { ID: id, sharing } = mount.cacheOpt;
			return {
				kind: "cache",
				...plain,
				...fromMountNumbers(mount, inputs),
				id,
				sharing: nameOf(sharings, sharing, "cache sharing mode"),
			};
		}
		// These have neither input nor output, whatever their numbers say.
		case pb.MountType.TMPFS:
			return { kind: "tmpfs", ...plain, size: mount.TmpfsOpt?.size ?? 0 };
		case pb.MountType.SECRET: {
			const { ID: id = "", ...own } = mount.secretOpt ?? {};
			return { kind: "secret", ...plain, id, ...options, ...own };
		}
		case pb.MountType.SSH: {
			const { ID: id = "", ...own } = mount.SSHOpt ?? {};
			return { kind: "ssh", ...plain, id, ...options, ...own };
		}
		default:
			throw invalid(`mount type ${String(mount.mountType)} not implemented`);
	}
}

function fromMountNumbers(
	mount: pb.Mount,
	inputs: number,
): { readonly input?: number; readonly output?: number } {
	if (mount.input !== -1) {
		checkInput(mount.input, inputs, (number) => `invalid mountinput ${number} of ${mount.dest}`);
	}
	if (mount.output < -1) {
		throw invalid(`invalid mount output ${mount.output} of ${mount.dest}`);
	}
	return {
		...(mount.input === -1 ? {} : { input: mount.input }),
		...(mount.output === -1 ? {} : { output: mount.output }),
	};
}

function fromFile(file: pb.FileOp, inputs: number): FileOp["actions"] {
	if (file.actions.length === 0) {
		throw invalid("invalid file op with no actions");
	}
	const actions = file.actions.map((action) => fromAction(action, inputs, inputs + file.actions.length));
	checkOutputs(actions);
	checkLoops(actions, inputs);
	return actions;
}

function fromAction(message: pb.FileAction, inputs: number, indexes: number): FileAction {
	const { input, secondaryInput, output } = message;
	if (input < -1 || input >= indexes) {
		throw invalid(`invalid input index ${input}, ${indexes} provided`);
	}
	if (secondaryInput < -1 || secondaryInput >= indexes) {
		throw invalid(`invalid secondary input index ${secondaryInput}, ${indexes} provided`);
	}
	if (output < -1) {
		throw invalid(`invalid output index ${output}`);
	}
	const numbers = {
		...(input === -1 ? {} : { input }),
		...(secondaryInput === -1 ? {} : { secondaryInput }),
		...(output === -1 ? {} : { output }),
	};
	const common = (value: { readonly owner: pb.ChownOpt | undefined; readonly timestamp: string }) => ({
		...numbers,
		...(value.owner === undefined ? {} : { owner: fromOwner(value.owner, inputs) }),
		...(value.timestamp === "-1" ? {} : { createdNs: BigInt(value.timestamp) }),
	});
	const { action } = message;
	switch (action?.$case) {
		case undefined:
			throw invalid("invalid action type <nil>");
		case "copy": {
			const { value } = action;
			return {
				kind: "copy",
				...common(value),
				src: value.src,
				dest: value.dest,
				...(value.mode === -1 || value.modeStr !== "" ? {} : { mode: value.mode }),
				modeText: value.modeStr,
				followSymlink: value.followSymlink,
				dirCopyContents: value.dirCopyContents,
				attemptUnpack: value.attemptUnpackDockerCompatibility,
				createDestPath: value.createDestPath,
				allowWildcard: value.allowWildcard,
				allowEmptyWildcard: value.allowEmptyWildcard,
				includePatterns: value.includePatterns,
				excludePatterns: value.excludePatterns,
				requiredPaths: value.requiredPaths,
				alwaysReplaceExistingDestPaths: value.alwaysReplaceExistingDestPaths,
			};
		}
		case "mkfile": {
			const { path, mode, data } = action.value;
			return { kind: "mkfile", ...common(action.value), path, mode, data };
		}
		case "mkdir": {
			const { path, mode, makeParents } = action.value;
			return { kind: "mkdir", ...common(action.value), path, mode, makeParents };
		}
		case "rm": {
			const { path, allowNotFound, allowWildcard } = action.value;
			return { kind: "rm", ...numbers, path, allowNotFound, allowWildcard };
		}
		case "symlink": {
			const { oldpath, newpath } = action.value;
			return { kind: "symlink", ...common(action.value), oldPath: oldpath, newPath: newpath };
		}
	}
}

function fromOwner({ user, group }: pb.ChownOpt, inputs: number): Owner {
	const userRef = fromUser(user, inputs);
	const groupRef = fromUser(group, inputs);
	return {
		...(userRef === undefined ? {} : { user: userRef }),
		...(groupRef === undefined ? {} : { group: groupRef }),
	};
}

function fromUser(message: pb.UserOpt | undefined, inputs: number): UserRef | undefined {
	const user = message?.user;
	switch (user?.$case) {
		case undefined:
			return undefined;
		case "byID":
			return { kind: "id", id: user.value };
		case "byName": {
			const { name, input } = user.value;
			if (input >= inputs) {
				throw invalid(`invalid input index ${input} in file op with ${inputs} inputs`);
			}
			return { kind: "name", name, ...(input < 0 ? {} : { input }) };
		}
	}
}

/** Outputs are numbered from 0 without gaps and repeats. */
function checkOutputs(actions: readonly FileAction[]): void {
	const outputs = new Set<number>();
	for (const { output } of actions) {
		if (output === undefined) {
			continue;
		}
		if (outputs.has(output)) {
			throw invalid(`duplicate output ${output}`);
		}
		outputs.add(output);
	}
	if (outputs.size === 0) {
		throw invalid("no outputs specified");
	}
	for (let index = 0; index < outputs.size; index++) {
		if (!outputs.has(index)) {
			throw invalid(`missing output index ${index}`);
		}
	}
}

/** Actions may use results of later ones, but not in a circle. Without recursion: there may be many. */
function checkLoops(actions: readonly FileAction[], inputs: number): void {
	const state = new Map<number, "open" | "done">();
	for (const start of actions.keys()) {
		const stack = [start];
		for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
			if (state.has(top)) {
				state.set(top, "done");
				stack.pop();
				continue;
			}
			state.set(top, "open");
			const action = actions[top];
			for (const number of [action?.input, action?.secondaryInput]) {
				const next = number === undefined ? -1 : number - inputs;
				if (next < 0 || state.get(next) === "done") {
					continue;
				}
				if (state.get(next) === "open") {
					throw invalid(`loop from index ${number}`);
				}
				stack.push(next);
			}
		}
	}
}

function fromBuild(build: pb.BuildOp): Fields<BuildOp> {
	return {
		...(build.builder === -1 ? {} : { builder: build.builder }),
		builderInputs: new Map([...build.inputs].map(([name, { input }]) => [name, input])),
		attrs: build.attrs,
	};
}

function fromDiff(diff: pb.DiffOp, inputs: number): { readonly lower?: number; readonly upper?: number } {
	if (diff.lower === undefined || diff.upper === undefined) {
		throw invalid("invalid diff op with nil lower or upper input");
	}
	for (const { input } of [diff.lower, diff.upper]) {
		if (input !== -1) {
			checkInput(input, inputs, (number) => `invalid diff input index ${number}`);
		}
	}
	return {
		...(diff.lower.input === -1 ? {} : { lower: diff.lower.input }),
		...(diff.upper.input === -1 ? {} : { upper: diff.upper.input }),
	};
}

function fromPassthrough(
	{ id, outputs }: pb.PassthroughOp,
	inputs: number,
): { readonly id: string; readonly outputs: readonly number[] } {
	if (id === "") {
		throw invalid("invalid passthrough op with no id");
	}
	if (outputs.length === 0) {
		throw invalid("invalid passthrough op with no outputs");
	}
	for (const input of outputs) {
		checkInput(input, inputs, (number) => `invalid passthrough output input index ${number}`);
	}
	return { id, outputs };
}
