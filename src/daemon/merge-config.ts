import { statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type EntitlementName, entitlements } from "../control/control.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type NetworkOptions, networkModes } from "../executor/network.ts";
import { parsePlatform } from "../oci/platform.ts";
import {
	type DaemonConfig,
	defaultAddress,
	defaultPlatformsMaxAgeMs,
	type LogLevel,
	logLevels,
	type WorkerConfig,
} from "./config.ts";
import type { ConfigFile } from "./config-file.ts";
import { type GcSettings, gcPolicy } from "./gc-policy.ts";
import { groupId } from "./groups.ts";
import { tlsFiles } from "./tls.ts";

/** What flags say; absent is not given. */
export interface ConfigFlags {
	readonly root?: string;
	readonly addresses?: readonly string[];
	readonly logFormat?: string;
	readonly logLevel?: string;
	readonly group?: string;
	readonly tlsCert?: string;
	readonly tlsKey?: string;
	readonly tlsCa?: string;
	readonly entitlements?: readonly string[];
	readonly labels?: readonly string[];
	readonly snapshotter?: string;
	readonly platforms?: readonly string[];
	readonly networkMode?: string;
	readonly cniConfigPath?: string;
	readonly cniBinaryPath?: string;
	readonly cniPoolSize?: number;
	readonly binary?: string;
	readonly maxParallelism?: number;
	readonly devicesDisabled?: boolean;
	readonly deviceDirectories?: readonly string[];
	readonly gc?: boolean;
	readonly gcStorage?: Pick<GcSettings, "reserved" | "maxUsed" | "minFree">;
	readonly allowPlainTcp: boolean;
	readonly idleExitMs?: number;
	readonly debugAddress?: string;
	readonly traceSocket?: string;
}

/** The settings of a daemon: what flags say, else the file, else the defaults. Throws `invalid-argument` naming the value. */
export function mergeConfig(file: ConfigFile, flags: ConfigFlags, defaultRoot: string): DaemonConfig {
	const root = resolve(flags.root ?? file.root ?? defaultRoot);
	const tls = tlsFiles(flags.tlsCert ?? file.tlsCert, flags.tlsKey ?? file.tlsKey, flags.tlsCa ?? file.tlsCa);
	const traceSocket = flags.traceSocket ?? file.traceSocket ?? "";
	const debugAddress = flags.debugAddress ?? file.debugAddress ?? "";
	const gid = flags.group === undefined || flags.group === "" ? file.gid : groupId(flags.group);
	return {
		root,
		grpc: {
			addresses: flags.addresses ?? file.addresses ?? [defaultAddress],
			allowPlainTcp: flags.allowPlainTcp,
			...(file.uid === undefined ? {} : { uid: file.uid }),
			...(gid === undefined ? {} : { gid }),
			...(tls === undefined ? {} : { tls }),
		},
		log: {
			format: logFormat(flags.logFormat ?? file.logFormat ?? "text"),
			level: logLevel(flags.logLevel ?? file.logLevel ?? "info"),
		},
		entitlements: mergeEntitlements(file, flags),
		devices: mergeDevices(file, flags),
		worker: mergeWorker(file, flags, root),
		registries: file.registries,
		history: file.history,
		frontends: file.frontends,
		platformsMaxAgeMs: file.platformsMaxAgeMs ?? defaultPlatformsMaxAgeMs,
		...(file.maxRegistryConcurrency === undefined
			? {}
			: { maxRegistryConcurrency: file.maxRegistryConcurrency }),
		...(file.dns === undefined ? {} : { dns: file.dns }),
		...(debugAddress === "" ? {} : { debugAddress }),
		...(traceSocket === "" ? {} : { traceSocket }),
		...(flags.idleExitMs === undefined ? {} : { idleExitMs: flags.idleExitMs }),
	};
}

/** Builds may ask for devices wherever there may be some. */
function mergeEntitlements(file: ConfigFile, flags: ConfigFlags): readonly EntitlementName[] {
	const named = (flags.entitlements ?? file.entitlements ?? []).map(entitlement);
	return [...new Set<EntitlementName>([...named, ...(hasDevices(file, flags) ? (["device"] as const) : [])])];
}

function mergeDevices(file: ConfigFile, flags: ConfigFlags): DaemonConfig["devices"] {
	const directories = hasDevices(file, flags)
		? (flags.deviceDirectories ?? file.devices.directories ?? [])
		: undefined;
	return {
		autoAllowed: file.devices.autoAllowed ?? [],
		// Without any, the default ones.
		...(directories === undefined ? { directories: [] } : directories.length === 0 ? {} : { directories }),
	};
}

function hasDevices({ devices }: ConfigFile, flags: ConfigFlags): boolean {
	return !(flags.devicesDisabled ?? devices.disabled ?? false);
}

function mergeWorker({ worker: file }: ConfigFile, flags: ConfigFlags, root: string): WorkerConfig {
	if (file.enabled === false) {
		throw new SlipwayError("invalid-argument", "worker.oci.enabled is false, but there is no other worker");
	}
	const platforms = flags.platforms ?? file.platforms ?? [];
	const binary = flags.binary ?? file.binary;
	const maxParallelism = flags.maxParallelism ?? file.maxParallelism;
	if (maxParallelism !== undefined && maxParallelism < 0) {
		throw new SlipwayError(
			"invalid-argument",
			`max-parallelism must not be negative but is ${maxParallelism}`,
		);
	}
	return {
		labels: { ...file.labels, ...parseLabels(flags.labels ?? []) },
		snapshotter: snapshotter(flags.snapshotter ?? file.snapshotter ?? "auto"),
		network: network(file, flags),
		gcPolicy: gcPolicy(
			{
				...file.gc,
				...(flags.gc === undefined ? {} : { enabled: flags.gc }),
				...(flags.gcStorage ?? {}),
			},
			diskBytes(root),
		),
		...(platforms.length === 0 ? {} : { platforms: platforms.map(parsePlatform) }),
		...(binary === undefined || binary === "" ? {} : { binary }),
		...(maxParallelism === undefined || maxParallelism === 0 ? {} : { maxParallelism }),
		...(file.cgroupParent === undefined ? {} : { cgroupParent: file.cgroupParent }),
	};
}

function network(file: ConfigFile["worker"], flags: ConfigFlags): NetworkOptions {
	const text = flags.networkMode ?? file.networkMode ?? "auto";
	const mode = networkModes.find((each) => each === text);
	if (mode === undefined) {
		throw new SlipwayError("invalid-argument", `invalid network mode: ${JSON.stringify(text)}`);
	}
	const cniConfigPath = flags.cniConfigPath ?? file.cniConfigPath;
	const cniBinaryDir = flags.cniBinaryPath ?? file.cniBinaryPath;
	const poolSize = flags.cniPoolSize ?? file.cniPoolSize;
	return {
		mode,
		...(cniConfigPath === undefined ? {} : { cniConfigPath }),
		...(cniBinaryDir === undefined ? {} : { cniBinaryDir }),
		...(poolSize === undefined ? {} : { poolSize }),
		...(file.bridgeSubnet === undefined ? {} : { subnet: file.bridgeSubnet }),
	};
}

function snapshotter(name: string): WorkerConfig["snapshotter"] {
	if (name === "auto" || name === "overlayfs" || name === "native") {
		return name;
	}
	throw new SlipwayError(
		"invalid-argument",
		`unknown snapshotter name: ${JSON.stringify(name)}: use auto, overlayfs or native`,
	);
}

function entitlement(name: string): EntitlementName {
	const known = entitlements.find((each) => each === name);
	if (known === undefined) {
		throw new SlipwayError("invalid-argument", `invalid entitlement : ${name}`);
	}
	return known;
}

function logFormat(format: string): "text" | "json" {
	if (format === "text" || format === "json") {
		return format;
	}
	throw new SlipwayError("invalid-argument", `unsupported log type ${JSON.stringify(format)}`);
}

function logLevel(text: string): LogLevel {
	const name = text.toLowerCase() === "warn" ? "warning" : text.toLowerCase();
	const level = logLevels.find((each) => each === name);
	if (level === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`unsupported log level: not a valid logrus Level: ${JSON.stringify(text)}`,
		);
	}
	return level;
}

function parseLabels(texts: readonly string[]): Readonly<Record<string, string>> {
	return Object.fromEntries(
		texts.map((text) => {
			const [, key, value] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
			if (key === undefined || value === undefined) {
				throw new SlipwayError("invalid-argument", `invalid value ${text}`);
			}
			return [key, value];
		}),
	);
}

/** Of the disk that the directory is on, or will be. */
function diskBytes(directory: string): number {
	try {
		const { bsize, blocks } = statfsSync(directory);
		return bsize * blocks;
	} catch {
		return directory === "/" ? 0 : diskBytes(dirname(directory));
	}
}
