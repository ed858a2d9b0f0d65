import { SlipwayError } from "../errors/errors.ts";
import { type Digest, isDigest } from "./digest.ts";
import { parseGoTime } from "./go-time.ts";
import {
	booleanField,
	integerField,
	type JsonObject,
	objectField,
	objectsField,
	parseJsonObject,
	placeOf,
	replaceFields,
	setField,
	stringField,
	stringMapField,
	stringsField,
} from "./json-document.ts";

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

const maxConfigBytes = 8 * 1024 * 1024;
const maxEntries = 16_384;

/**
 * Reads an image configuration and checks every key that is named above; unknown keys are kept as they are. As in Go,
 * `null` counts as absent, and an absent architecture or OS is empty. Throws `invalid-argument` naming the key.
 */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
	const document = parseJsonObject(bytes, { what: "image config", maxBytes: maxConfigBytes });
	const config = objectField(document, "config");
	return replaceFields(document, {
		created: timeField(document, "created"),
		author: stringField(document, "author"),
		architecture: stringField(document, "architecture") ?? "",
		os: stringField(document, "os") ?? "",
		"os.version": stringField(document, "os.version"),
		"os.features": stringsField(document, "os.features", maxEntries),
		variant: stringField(document, "variant"),
		config: config === undefined ? undefined : parseContainerConfig(config),
		rootfs: parseRootFs(objectField(document, "rootfs")),
		history: objectsField(document, "history", maxEntries)?.map(parseHistoryEntry),
	}) as unknown as ImageConfig;
}

function timeField(object: JsonObject, key: string): string | undefined {
	const text = stringField(object, key);
	if (text !== undefined) {
		try {
			parseGoTime(text);
		} catch (error) {
			throw new SlipwayError("invalid-argument", `${placeOf(object, key)}: ${(error as Error).message}`, {
				cause: error,
			});
		}
	}
	return text;
}

function parseRootFs(rootfs: JsonObject | undefined): RootFs | undefined {
	if (rootfs === undefined) {
		return undefined;
	}
	const type = stringField(rootfs, "type") ?? "";
	// OCI image spec, config.md: an unknown type must be an error. Docker wrote none for images without layers.
	if (type !== "layers" && type !== "") {
		throw new SlipwayError(
			"invalid-argument",
			`${placeOf(rootfs, "type")} must be "layers" but is ${JSON.stringify(type)}`,
		);
	}
	const digests = stringsField(rootfs, "diff_ids", maxEntries);
	const other = digests?.find((text) => !isDigest(text));
	if (other !== undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`${placeOf(rootfs, "diff_ids")}: invalid digest ${JSON.stringify(other)}`,
		);
	}
	return replaceFields(rootfs, { type: "layers", diff_ids: digests ?? null }) as unknown as RootFs;
}

function parseHistoryEntry(entry: JsonObject): HistoryEntry {
	return replaceFields(entry, {
		created: timeField(entry, "created"),
		author: stringField(entry, "author"),
		created_by: stringField(entry, "created_by"),
		comment: stringField(entry, "comment"),
		empty_layer: booleanField(entry, "empty_layer"),
	});
}

function parseContainerConfig(config: JsonObject): ContainerConfig {
	const health = objectField(config, "Healthcheck");
	return replaceFields(config, {
		User: stringField(config, "User"),
		ExposedPorts: setField(config, "ExposedPorts"),
		Env: stringsField(config, "Env", maxEntries),
		Entrypoint: stringsField(config, "Entrypoint", maxEntries),
		Cmd: stringsField(config, "Cmd", maxEntries),
		Volumes: setField(config, "Volumes"),
		WorkingDir: stringField(config, "WorkingDir"),
		Labels: stringMapField(config, "Labels"),
		StopSignal: stringField(config, "StopSignal"),
		ArgsEscaped: booleanField(config, "ArgsEscaped"),
		Healthcheck: health === undefined ? undefined : parseHealthConfig(health),
		OnBuild: stringsField(config, "OnBuild", maxEntries),
		StopTimeout: integerField(config, "StopTimeout"),
		Shell: stringsField(config, "Shell", maxEntries),
	});
}

function parseHealthConfig(health: JsonObject): HealthConfig {
	return replaceFields(health, {
		Test: stringsField(health, "Test", maxEntries),
		Interval: integerField(health, "Interval"),
		Timeout: integerField(health, "Timeout"),
		StartPeriod: integerField(health, "StartPeriod"),
		StartInterval: integerField(health, "StartInterval"),
		Retries: integerField(health, "Retries"),
	});
}
