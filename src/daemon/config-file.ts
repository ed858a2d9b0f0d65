import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { RegistryHostConfig } from "../registry/registry.ts";
import type { DaemonConfig, FrontendsConfig } from "./config.ts";
import { parseDiskSpace, parseDurationMs } from "./config-values.ts";
import type { GcRuleSettings, GcSettings } from "./gc-policy.ts";
import { TomlTable } from "./toml-table.ts";

/** `buildkitd.toml` as it was written: types are checked, values not yet put together with flags and defaults. */
export interface ConfigFile {
	readonly root?: string;
	readonly entitlements?: readonly string[];
	readonly logFormat?: string;
	readonly logLevel?: string;
	readonly addresses?: readonly string[];
	readonly debugAddress?: string;
	readonly traceSocket?: string;
	readonly uid?: number;
	readonly gid?: number;
	readonly tlsCert?: string;
	readonly tlsKey?: string;
	readonly tlsCa?: string;
	readonly devices: DevicesFile;
	readonly worker: WorkerFile;
	readonly registries: Readonly<Record<string, RegistryHostConfig>>;
	readonly dns?: DaemonConfig["dns"] & {};
	readonly history: DaemonConfig["history"];
	readonly frontends: FrontendsConfig;
	readonly platformsMaxAgeMs?: number;
	readonly maxRegistryConcurrency?: number;
	/** Told in the log. */
	readonly warnings: readonly string[];
}

export interface DevicesFile {
	readonly disabled?: boolean;
	readonly directories?: readonly string[];
	readonly autoAllowed?: readonly string[];
}

export interface WorkerFile {
	readonly enabled?: boolean;
	/** Only a user's daemon is. */
	readonly rootless?: boolean;
	readonly labels: Readonly<Record<string, string>>;
	readonly platforms?: readonly string[];
	readonly snapshotter?: string;
	readonly binary?: string;
	readonly maxParallelism?: number;
	readonly networkMode?: string;
	readonly cniConfigPath?: string;
	readonly cniBinaryPath?: string;
	readonly cniPoolSize?: number;
	readonly bridgeSubnet?: string;
	readonly cgroupParent?: string;
	readonly gc: GcSettings;
}

/** Reads the file; one that is not there is empty. Throws `invalid-argument` naming the key or the line. */
export function loadConfigFile(path: string): ConfigFile {
	let text = "";
	try {
		text = readFileSync(path, "utf8");
	} catch (error) {
		const wrapped = wrap(error, `failed to load config from ${path}`);
		if (wrapped.code !== "not-found") {
			throw wrapped;
		}
	}
	return parseConfig(text, path);
}

/** `file` is for messages. */
export function parseConfig(text: string, file: string): ConfigFile {
	let values: Record<string, unknown>;
	try {
		values = parse(text) as Record<string, unknown>;
	} catch (error) {
		const [first = ""] = toError(error).message.split("\n");
		throw new SlipwayError("invalid-argument", `failed to parse config ${file}: ${first}`, { cause: error });
	}
	const top = new TomlTable(file, "", values);
	const config = readTop(top);
	top.end();
	return config;
}

/** Only what is set. */
function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
	return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
		[K in keyof T]?: Exclude<T[K], undefined>;
	};
}

function readTop(top: TomlTable): ConfigFile {
	const warnings: string[] = [];
	const log = top.table("log");
	const grpc = top.table("grpc");
	const tls = grpc.table("tls");
	const system = top.table("system");
	let logLevel = log.string("level");
	for (const level of ["debug", "trace"] as const) {
		if (top.boolean(level) === true) {
			warnings.push(`'${level}' configuration option is deprecated, use 'log.level = "${level}"' instead`);
			logLevel ??= level;
		}
	}
	top.refuse("proxyNetwork", "steps have no network through a proxy");
	top.refuse("provenanceEnvDir", "provenance takes nothing from files");
	grpc.refuse("securityDescriptor", "it is for Windows");
	const cdi = top.table("cdi");
	top.table("cache").refuse("gha", "signatures of caches are not made or verified");
	readContainerd(top.table("worker").table("containerd"));
	return {
		...given({
			root: top.string("root"),
			entitlements: top.strings("insecure-entitlements"),
			logFormat: log.string("format"),
			logLevel,
			addresses: grpc.strings("address"),
			debugAddress: grpc.string("debugAddress"),
			traceSocket: top.table("otel").string("socketPath"),
			uid: grpc.integer("uid"),
			gid: grpc.integer("gid"),
			tlsCert: tls.string("cert"),
			tlsKey: tls.string("key"),
			tlsCa: tls.string("ca"),
			dns: readDns(top),
			platformsMaxAgeMs: system.parsed("platformsCacheMaxAge", parseDurationMs),
			maxRegistryConcurrency: readConcurrency(system),
		}),
		devices: given({
			disabled: cdi.boolean("disabled"),
			directories: cdi.strings("specDirs"),
			autoAllowed: cdi.strings("autoAllowed"),
		}),
		worker: readWorker(top.table("worker").table("oci")),
		registries: readRegistries(top.table("registry")),
		history: readHistory(top.table("history")),
		frontends: readFrontends(top.table("frontend")),
		warnings,
	};
}

function readConcurrency(system: TomlTable): number | undefined {
	const value = system.integer("maxRegistryConcurrency");
	if (value !== undefined && value <= 0) {
		throw new SlipwayError(
			"invalid-argument",
			`maxRegistryConcurrency must be greater than zero; set to ${value} in the configuration file`,
		);
	}
	return value;
}

function readDns(top: TomlTable): ConfigFile["dns"] {
	if (!top.keys.includes("dns")) {
		return undefined;
	}
	const dns = top.table("dns");
	return {
		nameservers: dns.strings("nameservers") ?? [],
		options: dns.strings("options") ?? [],
		searchDomains: dns.strings("searchDomains") ?? [],
	};
}

function readHistory(history: TomlTable): ConfigFile["history"] {
	const maxEntries = history.integer("maxEntries");
	if (maxEntries !== undefined && maxEntries < 0) {
		throw history.error("maxEntries", `must not be negative but is ${maxEntries}`);
	}
	return given({ maxAgeMs: history.parsed("maxAge", parseDurationMs), maxEntries });
}

function readFrontends(frontend: TomlTable): FrontendsConfig {
	const gateway = frontend.table("gateway.v0");
	return {
		dockerfile: frontend.table("dockerfile.v0").boolean("enabled") ?? true,
		gateway: gateway.boolean("enabled") ?? true,
		gatewayRepositories: gateway.strings("allowedRepositories") ?? [],
	};
}

/** A configuration that is shared with a worker of containerd's may have its settings, as long as it is not enabled. */
function readContainerd(containerd: TomlTable): void {
	if (containerd.boolean("enabled") === true) {
		throw containerd.error("enabled", "is not supported: this builder runs containers itself");
	}
	containerd.ignore(...containerd.keys);
}

function readWorker(oci: TomlTable): WorkerFile {
	oci.refuse("noProcessSandbox", "steps always have a process namespace of their own");
	oci.refuse("userRemapUnsupported", "there is no mapping of users");
	oci.refuse("proxySnapshotterPath", "snapshots are made by overlayfs or by copying");
	oci.refuse("stargzSnapshotter", "snapshots are made by overlayfs or by copying");
	oci.refuse("apparmor-profile", "steps run without AppArmor");
	oci.refuse("selinux", "steps run without SELinux labels");
	oci.refuse("bridgeName", "steps are routed, not bridged");
	const maxParallelism = oci.integer("max-parallelism");
	return {
		...given({
			enabled: oci.boolean("enabled"),
			rootless: oci.boolean("rootless"),
			platforms: oci.strings("platforms"),
			snapshotter: oci.string("snapshotter") || undefined,
			binary: oci.string("binary") || undefined,
			maxParallelism: maxParallelism === 0 ? undefined : maxParallelism,
			networkMode: oci.string("networkMode") || undefined,
			cniConfigPath: oci.string("cniConfigPath") || undefined,
			cniBinaryPath: oci.string("cniBinaryPath") || undefined,
			cniPoolSize: oci.integer("cniPoolSize"),
			bridgeSubnet: oci.string("bridgeSubnet") || undefined,
			cgroupParent: oci.string("defaultCgroupParent") || undefined,
		}),
		labels: oci.stringMap("labels") ?? {},
		gc: readGc(oci),
	};
}

function readGc(oci: TomlTable): GcSettings {
	const legacy = oci.parsed("gckeepstorage", parseDiskSpace);
	const reserved = oci.parsed("reservedSpace", parseDiskSpace);
	const maxUsed = oci.parsed("maxUsedSpace", parseDiskSpace);
	const minFree = oci.parsed("minFreeSpace", parseDiskSpace);
	const isUnset = reserved === undefined && maxUsed === undefined && minFree === undefined;
	return given({
		enabled: oci.boolean("gc"),
		reserved: isUnset ? legacy : reserved,
		maxUsed,
		minFree,
		policy: oci.tables("gcpolicy").map(readGcRule),
	});
}

function readGcRule(rule: TomlTable): GcRuleSettings {
	const legacy = rule.parsed("keepBytes", parseDiskSpace);
	return {
		all: rule.boolean("all") ?? false,
		filters: rule.strings("filters") ?? [],
		keepDurationMs: rule.parsed("keepDuration", parseDurationMs) ?? 0,
		...given({
			reserved: rule.parsed("reservedSpace", parseDiskSpace) ?? legacy,
			maxUsed: rule.parsed("maxUsedSpace", parseDiskSpace),
			minFree: rule.parsed("minFreeSpace", parseDiskSpace),
		}),
	};
}

function readRegistries(registry: TomlTable): Readonly<Record<string, RegistryHostConfig>> {
	return Object.fromEntries(registry.keys.map((host) => [host, readRegistry(registry.table(host))]));
}

function readRegistry(host: TomlTable): RegistryHostConfig {
	const found = (host.strings("tlsconfigdir") ?? []).map((directory) => readTlsDirectory(host, directory));
	const ca = [
		...(host.strings("ca") ?? []).map((path) => readPem(host, "ca", path)),
		...found.flatMap((each) => each.ca),
	];
	const keyPairs = [
		...host.tables("keypair").map((pair) => ({
			key: readPem(pair, "key", pair.string("key") ?? ""),
			certificate: readPem(pair, "cert", pair.string("cert") ?? ""),
		})),
		...found.flatMap((each) => each.keyPairs),
	];
	return given({
		mirrors: host.strings("mirrors"),
		http: host.boolean("http"),
		insecure: host.boolean("insecure"),
		ca: ca.length === 0 ? undefined : ca,
		keyPairs: keyPairs.length === 0 ? undefined : keyPairs,
	});
}

/** A directory as in Docker's `certs.d/<host>`: `*.crt` are authorities, `*.cert` with `*.key` are ours. */
function readTlsDirectory(
	host: TomlTable,
	directory: string,
): { readonly ca: readonly string[]; readonly keyPairs: RegistryHostConfig["keyPairs"] & {} } {
	const names = existsSync(directory) ? readdirSync(directory).sort() : [];
	const ca: string[] = [];
	const keyPairs: { readonly key: string; readonly certificate: string }[] = [];
	for (const name of names) {
		const read = (file: string): string => readPem(host, "tlsconfigdir", join(directory, file));
		if (name.endsWith(".crt")) {
			ca.push(read(name));
		} else if (name.endsWith(".cert")) {
			const key = `${name.slice(0, -".cert".length)}.key`;
			if (!names.includes(key)) {
				throw host.error("tlsconfigdir", `has no ${key} for certificate ${join(directory, name)}`);
			}
			keyPairs.push({ certificate: read(name), key: read(key) });
		}
	}
	return { ca, keyPairs };
}

function readPem(table: TomlTable, key: string, path: string): string {
	try {
		return readFileSync(path, "utf8");
	} catch (error) {
		throw wrap(table.error(key, `names a file that can't be read: ${toError(error).message}`), "");
	}
}
