import type { Digest } from "./digest.ts";

/**
 * The image configuration document: OCI image spec, config.md, with Docker's additions to `config`
 * (Healthcheck, ArgsEscaped, OnBuild, StopTimeout, Shell). Unknown keys of a base image's document are kept by whoever
 * patches it, so every level allows more than is named here. Times are RFC 3339 text.
 */
export interface ImageConfig {
	readonly created?: string;
	readonly author?: string;
	readonly architecture: string;
	readonly os: string;
	readonly "os.version"?: string;
	readonly "os.features"?: readonly string[];
	readonly variant?: string;
	readonly config?: ContainerConfig;
	readonly rootfs?: RootFs;
	readonly history?: readonly HistoryEntry[];
}

export interface RootFs {
	readonly type: "layers";
	/** Digests of the uncompressed layer tars, base first; Go writes `null` for none. */
	readonly diff_ids: readonly Digest[] | null;
}

export interface HistoryEntry {
	readonly created?: string;
	readonly author?: string;
	readonly created_by?: string;
	readonly comment?: string;
	readonly empty_layer?: boolean;
}

export interface ContainerConfig {
	readonly User?: string;
	readonly ExposedPorts?: Readonly<Record<string, Record<string, never>>>;
	readonly Env?: readonly string[];
	readonly Entrypoint?: readonly string[];
	readonly Cmd?: readonly string[];
	readonly Volumes?: Readonly<Record<string, Record<string, never>>>;
	readonly WorkingDir?: string;
	readonly Labels?: Readonly<Record<string, string>>;
	readonly StopSignal?: string;
	readonly ArgsEscaped?: boolean;
	readonly Healthcheck?: HealthConfig;
	readonly OnBuild?: readonly string[];
	readonly StopTimeout?: number;
	readonly Shell?: readonly string[];
}

/** Durations are nanoseconds; absent or 0 inherits. */
export interface HealthConfig {
	readonly Test?: readonly string[];
	readonly Interval?: number;
	readonly Timeout?: number;
	readonly StartPeriod?: number;
	readonly StartInterval?: number;
	readonly Retries?: number;
}

/** The PATH that an image without one gets (not on Windows). */
export const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
