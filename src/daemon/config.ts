import type { Entitlement } from "../control/control.ts";
import type { GcRule } from "../control/service.ts";
import type { DnsOptions } from "../executor/etc-files.ts";
import type { NetworkOptions } from "../executor/network.ts";
import type { Platform } from "../oci/platform.ts";
import type { RegistryHostConfig } from "../registry/registry.ts";

/**
 * All settings of a daemon, from `buildkitd.toml` (config-file.ts), then from flags, then the defaults here. What a person wrote was
 * read once: nothing is a string that may still be wrong. Files that it names (certificates) are read at the start.
 */
export interface DaemonConfig {
	/** State directory, absolute. */
	readonly root: string;
	readonly grpc: GrpcConfig;
	readonly log: LogConfig;
	/** What clients may ask for with `--allow`. */
	readonly entitlements: readonly Entitlement[];
	readonly worker: WorkerConfig;
	readonly registries: Readonly<Record<string, RegistryHostConfig>>;
	/** Transfers at the same time per registry. */
	readonly maxRegistryConcurrency?: number;
	readonly dns?: DnsOptions;
	/** Where devices are described, and which of them any build may use; an empty list of directories is no device. */
	readonly devices: { readonly directories?: readonly string[]; readonly autoAllowed: readonly string[] };
	readonly history: { readonly maxAgeMs?: number; readonly maxEntries?: number };
	readonly frontends: FrontendsConfig;
	/** How long the list of platforms that this machine runs is believed. */
	readonly platformsMaxAgeMs: number;
	/** Where the debugging server listens, `host:port` or as in `grpc.addresses`. Default: there is none. */
	readonly debugAddress?: string;
	/** Where programs of steps send spans to. Default: nowhere. */
	readonly traceSocket?: string;
	/** Graceful end when nothing was to be done for that long. Default: never. */
	readonly idleExitMs?: number;
}

export interface GrpcConfig {
	/** `unix://`, `tcp://`, `fd://`. */
	readonly addresses: readonly string[];
	/** Owner of unix sockets; default the daemon's own. */
	readonly uid?: number;
	readonly gid?: number;
	readonly tls?: TlsFiles;
	/** Listen to TCP without TLS at addresses that other machines reach. */
	readonly allowPlainTcp: boolean;
}

export interface TlsFiles {
	readonly cert: string;
	readonly key: string;
	/** Clients must have a certificate of one of these authorities. */
	readonly ca?: string;
}

export const logLevels = ["trace", "debug", "info", "warning", "error", "fatal", "panic"] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LogConfig {
	readonly format: "text" | "json";
	readonly level: LogLevel;
}

export interface WorkerConfig {
	/** Besides those that the worker has by itself. */
	readonly labels: Readonly<Record<string, string>>;
	/** In place of those that this machine runs. */
	readonly platforms?: readonly Platform[];
	readonly snapshotter: "auto" | "overlayfs" | "native";
	/** OCI runtime. */
	readonly binary?: string;
	/** Steps that run at the same time; default no limit. */
	readonly maxParallelism?: number;
	readonly network: NetworkOptions;
	readonly cgroupParent?: string;
	/** In order. */
	readonly gcPolicy: readonly GcRule[];
}

export interface FrontendsConfig {
	readonly dockerfile: boolean;
	readonly gateway: boolean;
	/** Images that may be frontends, without their tag; empty: all. */
	readonly gatewayRepositories: readonly string[];
}

/** BuildKit's. */
export const defaultAddress = "unix:///run/buildkit/buildkitd.sock";
export const defaultConfigFile = "/etc/buildkit/buildkitd.toml";
export const defaultPlatformsMaxAgeMs: number = 3600 * 1000;
