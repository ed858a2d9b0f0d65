import * as pb from "../api/generated/ops.ts";
import type { Platform } from "../oci/platform.ts";
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

/** The op's message, and its deterministic bytes, whose digest is the op's. */
export function encodeOp(op: Op): Uint8Array {
	return pb.Op.encode(toOpMessage(op)).finish();
}

/** The op that ends a definition: no kind, one input. */
export function encodeTerminalOp(input: { readonly digest: string; readonly index: number }): Uint8Array {
	return pb.Op.encode({ ...pb.emptyOp(), inputs: [input] }).finish();
}

const decoded = new WeakMap<Op, pb.Op>();

/** Keeps the message that an op was read from: it may say more than the op, and cache keys are made from all of it. */
export function rememberMessage<T extends Op>(op: T, message: pb.Op): T {
	decoded.set(op, message);
	return op;
}

/** The message that the op was read from, else the one that it is written as. */
export function messageOfOp(op: Op): pb.Op {
	return decoded.get(op) ?? toOpMessage(op);
}

export function toOpMessage(op: Op): pb.Op {
	return {
		inputs: op.inputs,
		op: toKind(op),
		platform: op.platform === undefined ? undefined : toPlatformMessage(op.platform),
		// The message is there even when it is empty.
		constraints: { filter: op.filters },
	};
}

export function toPlatformMessage(platform: Platform): pb.Platform {
	return {
		Architecture: platform.architecture,
		OS: platform.os,
		Variant: platform.variant ?? "",
		OSVersion: platform["os.version"] ?? "",
		OSFeatures: platform["os.features"] ?? [],
	};
}

function toKind(op: Op): pb.Op["op"] {
	switch (op.kind) {
		case "exec":
			return { $case: "exec", value: toExec(op) };
		case "source":
			return {
				$case: "source",
				value: { identifier: op.identifier, attrs: new Map(op.attrs) },
			};
		case "file":
			return { $case: "file", value: toFile(op) };
		case "merge":
			return { $case: "merge", value: { inputs: op.layers.map((input) => ({ input })) } };
		case "diff":
			return {
				$case: "diff",
				value: { lower: { input: op.lower ?? -1 }, upper: { input: op.upper ?? -1 } },
			};
		case "passthrough":
			return { $case: "passthrough", value: { id: op.id, outputs: op.outputs } };
		case "build":
			return { $case: "build", value: toBuild(op) };
	}
}

const networks: Readonly<Record<NetworkMode, pb.NetMode>> = {
	sandbox: pb.NetMode.UNSET,
	host: pb.NetMode.HOST,
	none: pb.NetMode.NONE,
};
const securities: Readonly<Record<SecurityMode, pb.SecurityMode>> = {
	sandbox: pb.SecurityMode.SANDBOX,
	insecure: pb.SecurityMode.INSECURE,
};
const contentCaches: Readonly<Record<ContentCache, pb.MountContentCache>> = {
	default: pb.MountContentCache.DEFAULT,
	on: pb.MountContentCache.ON,
	off: pb.MountContentCache.OFF,
};
const sharings: Readonly<Record<CacheSharing, pb.CacheSharingOpt>> = {
	shared: pb.CacheSharingOpt.SHARED,
	private: pb.CacheSharingOpt.PRIVATE,
	locked: pb.CacheSharingOpt.LOCKED,
};
const mountTypes: Readonly<Record<Mount["kind"], pb.MountType>> = {
	bind: pb.MountType.BIND,
	secret: pb.MountType.SECRET,
	ssh: pb.MountType.SSH,
	cache: pb.MountType.CACHE,
	tmpfs: pb.MountType.TMPFS,
};

function toExec(op: ExecOp): pb.ExecOp {
	const { meta } = op;
	return {
		meta: {
			args: meta.args,
			env: meta.env,
			cwd: meta.cwd,
			user: meta.user,
			proxyEnv: meta.proxyEnv,
			extraHosts: meta.extraHosts.map(({ host, ip }) => ({ Host: host, IP: ip })),
			hostname: meta.hostname,
			ulimit: meta.ulimits.map(({ name, soft, hard }) => ({
				Name: name,
				Soft: soft.toString(),
				Hard: hard.toString(),
			})),
			cgroupParent: meta.cgroupParent,
			removeMountStubsRecursive: meta.removeMountStubsRecursive,
			validExitCodes: meta.validExitCodes,
		},
		mounts: op.mounts.map(toMount),
		network: networks[op.network],
		security: securities[op.security],
		secretenv: op.secretEnv.map(({ id, name, optional }) => ({ ID: id, name, optional })),
		cdiDevices: op.devices,
	};
}

function toMount(mount: Mount): pb.Mount {
	// Secrets and sockets never have an output, but their number is 0 on the wire.
	const noOutput = mount.kind === "secret" || mount.kind === "ssh" ? 0 : -1;
	const message = {
		...pb.emptyMount(),
		input: mount.input ?? -1,
		selector: mount.selector,
		dest: mount.dest,
		output: mount.output ?? noOutput,
		readonly: mount.readonly,
		mountType: mountTypes[mount.kind],
		resultID: mount.resultId,
		contentCache: contentCaches[mount.contentCache],
	};
	switch (mount.kind) {
		case "bind":
			return message;
		case "cache":
			return { ...message, cacheOpt: { ID: mount.id, sharing: sharings[mount.sharing] } };
		case "tmpfs":
			return { ...message, TmpfsOpt: { size: mount.size } };
		case "secret":
			return { ...message, secretOpt: toFileOptions(mount) };
		case "ssh":
			return { ...message, SSHOpt: toFileOptions(mount) };
	}
}

function toFileOptions({ id, uid, gid, mode, optional }: Mount & { kind: "secret" | "ssh" }): pb.SecretOpt {
	return { ID: id, uid, gid, mode, optional };
}

function toFile(op: FileOp): pb.FileOp {
	return {
		actions: op.actions.map((action) => ({
			input: action.input ?? -1,
			secondaryInput: action.secondaryInput ?? -1,
			output: action.output ?? -1,
			action: toAction(action),
		})),
	};
}

function toAction(action: FileAction): pb.FileAction["action"] {
	switch (action.kind) {
		case "copy":
			return {
				$case: "copy",
				value: {
					src: action.src,
					dest: action.dest,
					owner: toOwner(action.owner),
					mode: action.modeText === "" ? (action.mode ?? -1) : 0,
					followSymlink: action.followSymlink,
					dirCopyContents: action.dirCopyContents,
					attemptUnpackDockerCompatibility: action.attemptUnpack,
					createDestPath: action.createDestPath,
					allowWildcard: action.allowWildcard,
					allowEmptyWildcard: action.allowEmptyWildcard,
					timestamp: toTime(action.createdNs),
					includePatterns: action.includePatterns,
					excludePatterns: action.excludePatterns,
					alwaysReplaceExistingDestPaths: action.alwaysReplaceExistingDestPaths,
					modeStr: action.modeText,
					requiredPaths: action.requiredPaths,
				},
			};
		case "mkfile":
			return {
				$case: "mkfile",
				value: {
					path: action.path,
					mode: action.mode,
					data: action.data,
					owner: toOwner(action.owner),
					timestamp: toTime(action.createdNs),
				},
			};
		case "mkdir":
			return {
				$case: "mkdir",
				value: {
					path: action.path,
					mode: action.mode,
					makeParents: action.makeParents,
					owner: toOwner(action.owner),
					timestamp: toTime(action.createdNs),
				},
			};
		case "rm":
			return {
				$case: "rm",
				value: {
					path: action.path,
					allowNotFound: action.allowNotFound,
					allowWildcard: action.allowWildcard,
				},
			};
		case "symlink":
			return {
				$case: "symlink",
				value: {
					oldpath: action.oldPath,
					newpath: action.newPath,
					owner: toOwner(action.owner),
					timestamp: toTime(action.createdNs),
				},
			};
	}
}

function toTime(createdNs: bigint | undefined): string {
	return (createdNs ?? -1n).toString();
}

function toOwner(owner: Owner | undefined): pb.ChownOpt | undefined {
	return owner === undefined ? undefined : { user: toUser(owner.user), group: toUser(owner.group) };
}

function toUser(user: UserRef | undefined): pb.UserOpt | undefined {
	if (user === undefined) {
		return undefined;
	}
	return {
		user:
			user.kind === "id"
				? { $case: "byID", value: user.id }
				: { $case: "byName", value: { name: user.name, input: user.input ?? -1 } },
	};
}

function toBuild(op: BuildOp): pb.BuildOp {
	return {
		builder: op.builder ?? -1,
		inputs: new Map([...op.builderInputs].map(([name, input]) => [name, { input }])),
		def: undefined,
		attrs: new Map(op.attrs),
	};
}
