import { statSync } from "node:fs";
import { SlipwayError, wrap } from "../errors/errors.ts";
import type {
	RuntimeDevice,
	RuntimeDeviceRule,
	RuntimeHook,
	RuntimeHooks,
	RuntimeMount,
	RuntimeSpec,
} from "../oci/runtime-spec.ts";
import { splitDevice } from "../sys/node.ts";
import type { DeviceEdits, DeviceNode } from "./executor.ts";

/** The configuration with what devices need, applied as the CDI library does. */
export function withDeviceEdits(spec: RuntimeSpec, all: readonly DeviceEdits[]): RuntimeSpec {
	return all.reduce(withEdits, spec);
}

function withEdits(spec: RuntimeSpec, edits: DeviceEdits): RuntimeSpec {
	const { process, linux } = spec;
	const nodes = edits.deviceNodes.map((node) => deviceOf(node, process.user));
	const replaced = new Set(nodes.map(({ device }) => device.path));
	const hidden = new Set(edits.mounts.map((mount) => mount.containerPath));
	const gids = edits.additionalGids.filter((gid) => gid !== 0);
	return {
		...spec,
		process: {
			...process,
			env: withVariables(process.env ?? [], edits.env),
			user: {
				...process.user,
				additionalGids: [...new Set([...(process.user.additionalGids ?? []), ...gids])],
			},
		},
		mounts: [
			...(spec.mounts ?? []).filter((mount) => !hidden.has(mount.destination)),
			...edits.mounts.map(({ hostPath, containerPath, type, options }): RuntimeMount => {
				const isBind =
					type === "" || type === "bind" || options.includes("bind") || options.includes("rbind");
				const bound = isBind && !options.includes("bind") && !options.includes("rbind");
				return {
					destination: containerPath,
					type: isBind ? "bind" : type,
					source: hostPath,
					options: bound ? ["rbind", ...options] : options,
				};
			}),
		],
		...(edits.hooks.length === 0 ? {} : { hooks: withHooks(spec.hooks ?? {}, edits) }),
		linux: {
			...linux,
			devices: [
				...(linux.devices ?? []).filter((device) => !replaced.has(device.path)),
				...nodes.map(({ device }) => device),
			],
			resources: {
				...linux.resources,
				devices: [...(linux.resources?.devices ?? []), ...nodes.flatMap(({ rule }) => rule ?? [])],
			},
		},
	};
}

/** A later value of a name takes the place of an earlier one. */
function withVariables(env: readonly string[], added: readonly string[]): readonly string[] {
	const nameOf = (entry: string): string => entry.split("=", 1)[0] ?? "";
	const names = new Set(added.map(nameOf));
	return [...env.filter((entry) => !names.has(nameOf(entry))), ...added];
}

function withHooks(hooks: RuntimeHooks, edits: DeviceEdits): RuntimeHooks {
	const all: { -readonly [name in keyof RuntimeHooks]: readonly RuntimeHook[] } = { ...hooks };
	for (const { name, ...hook } of edits.hooks) {
		all[name] = [...(all[name] ?? []), hook];
	}
	return all;
}

/** What the file does not say is that of the machine's own device. */
function deviceOf(
	node: DeviceNode,
	user: RuntimeSpec["process"]["user"],
): { readonly device: RuntimeDevice; readonly rule: RuntimeDeviceRule | undefined } {
	const isKnown = node.type !== undefined && (node.type === "p" || node.major !== undefined);
	const { type, major, minor } = isKnown
		? { type: node.type ?? "c", major: node.major ?? 0, minor: node.minor ?? 0 }
		: hostDevice(node);
	const uid = node.uid ?? (user.uid > 0 ? user.uid : undefined);
	const gid = node.gid ?? (user.gid > 0 ? user.gid : undefined);
	const device: RuntimeDevice = {
		path: node.path,
		type,
		...(type === "p" ? {} : { major, minor }),
		...(node.fileMode === undefined ? {} : { fileMode: node.fileMode }),
		...(uid === undefined ? {} : { uid }),
		...(gid === undefined ? {} : { gid }),
	};
	return {
		device,
		rule:
			type === "b" || type === "c"
				? { allow: true, type, major, minor, access: node.permissions }
				: undefined,
	};
}

function hostDevice(node: DeviceNode): {
	readonly type: RuntimeDevice["type"];
	readonly major: number;
	readonly minor: number;
} {
	let stat: ReturnType<typeof statSync>;
	try {
		stat = statSync(node.hostPath);
	} catch (error) {
		throw wrap(error, `failed to stat CDI host device ${JSON.stringify(node.hostPath)}`);
	}
	const type = stat.isBlockDevice() ? "b" : stat.isCharacterDevice() ? "c" : stat.isFIFO() ? "p" : undefined;
	if (type === undefined) {
		throw new SlipwayError(
			"failed-precondition",
			`CDI host device ${JSON.stringify(node.hostPath)} is no device`,
		);
	}
	if (node.type !== undefined && node.type !== type && !(node.type === "u" && type === "c")) {
		throw new SlipwayError(
			"failed-precondition",
			`CDI device (${JSON.stringify(node.path)}, ${JSON.stringify(node.hostPath)}), host type mismatch (${node.type}, ${type})`,
		);
	}
	return { type, ...splitDevice(stat.rdev) };
}
