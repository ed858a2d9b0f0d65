import type { Digest } from "../../oci/digest.ts";
import { goJson, goMap } from "../../oci/go-json.ts";
import { formatGoTime } from "../../oci/go-time.ts";
import {
	defaultPath,
	type HealthConfig,
	type HistoryEntry,
	type ImageConfig,
	parseImageConfig,
} from "../../oci/image-config.ts";
import { normalizePlatform, type Platform } from "../../oci/platform.ts";

/**
 * The image config of a stage while its instructions are converted: changed in place, because a stage may have
 * thousands of them, and copied when another stage begins with it. Keys that BuildKit's frontend does not know are
 * not kept. Empty texts and lists are left out of the document.
 */
export interface ImageDraft {
	created: string | undefined;
	author: string;
	platform: Platform;
	diffIds: readonly Digest[] | undefined;
	history: HistoryEntry[];
	user: string;
	exposedPorts: Set<string>;
	env: string[];
	entrypoint: readonly string[];
	cmd: readonly string[];
	volumes: Set<string>;
	workingDir: string;
	labels: Map<string, string>;
	stopSignal: string;
	argsEscaped: boolean;
	healthcheck: HealthConfig | undefined;
	onbuild: readonly string[];
	shell: readonly string[];
	/** `layers`, or what an image without layers says. */
	rootFsType: string;
}

const windowsPath = "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";

export function defaultPathOf(os: string): string {
	return os === "windows" ? windowsPath : defaultPath;
}

const blank: ImageDraft = {
	created: undefined,
	author: "",
	platform: { architecture: "", os: "" },
	diffIds: undefined,
	history: [],
	user: "",
	exposedPorts: new Set(),
	env: [],
	entrypoint: [],
	cmd: [],
	volumes: new Set(),
	workingDir: "",
	labels: new Map(),
	stopSignal: "",
	argsEscaped: false,
	healthcheck: undefined,
	onbuild: [],
	shell: [],
	rootFsType: "",
};

/** An image of which nothing is known yet. */
export function blankImage(): ImageDraft {
	return cloneImage(blank);
}

/** What `FROM scratch` begins with. */
export function emptyImage(platform: Platform): ImageDraft {
	return {
		...blankImage(),
		platform,
		rootFsType: "layers",
		workingDir: "/",
		env: platform.os === "windows" ? [] : [`PATH=${defaultPathOf(platform.os)}`],
	};
}

export function cloneImage(image: ImageDraft): ImageDraft {
	return {
		...image,
		history: [...image.history],
		exposedPorts: new Set(image.exposedPorts),
		env: [...image.env],
		volumes: new Set(image.volumes),
		labels: new Map(image.labels),
	};
}

/** Throws `invalid-argument` for a document that is no image config. */
export function readImage(bytes: Uint8Array): ImageDraft {
	const image = parseImageConfig(bytes);
	const { config = {} } = image;
	return {
		created: image.created,
		author: image.author ?? "",
		platform: platformOf(image),
		diffIds: image.rootfs?.diff_ids ?? undefined,
		history: [...(image.history ?? [])],
		user: config.User ?? "",
		exposedPorts: new Set(Object.keys(config.ExposedPorts ?? {})),
		env: [...(config.Env ?? [])],
		entrypoint: config.Entrypoint ?? [],
		cmd: config.Cmd ?? [],
		volumes: new Set(Object.keys(config.Volumes ?? {})),
		workingDir: config.WorkingDir ?? "",
		labels: new Map(Object.entries(config.Labels ?? {})),
		stopSignal: config.StopSignal ?? "",
		argsEscaped: config.ArgsEscaped ?? false,
		healthcheck: config.Healthcheck,
		onbuild: config.OnBuild ?? [],
		shell: config.Shell ?? [],
		rootFsType: image.rootfs?.type ?? "",
	};
}

function platformOf(image: ImageConfig): Platform {
	const { architecture, os, variant = "", "os.version": version = "", "os.features": features } = image;
	return {
		architecture,
		os,
		...(version === "" ? {} : { "os.version": version }),
		...(features === undefined ? {} : { "os.features": features }),
		...(variant === "" ? {} : { variant }),
	};
}

/** The document, in the order and with the omissions of Docker's Go types. */
export function writeImage(image: ImageDraft): Uint8Array {
	const { platform } = image;
	const document = {
		created: goTime(image.created),
		author: orNone(image.author),
		architecture: platform.architecture,
		os: platform.os,
		"os.version": orNone(platform["os.version"] ?? ""),
		"os.features": list(platform["os.features"] ?? []),
		variant: orNone(platform.variant ?? ""),
		rootfs: { type: image.rootFsType, diff_ids: image.diffIds ?? null },
		history: image.history.length === 0 ? undefined : image.history.map(historyJson),
		config: {
			User: orNone(image.user),
			ExposedPorts: goSet(image.exposedPorts),
			Env: list(image.env),
			Entrypoint: list(image.entrypoint),
			Cmd: list(image.cmd),
			Volumes: goSet(image.volumes),
			WorkingDir: orNone(image.workingDir),
			Labels: image.labels.size === 0 ? undefined : image.labels,
			StopSignal: orNone(image.stopSignal),
			ArgsEscaped: image.argsEscaped ? true : undefined,
			Healthcheck: image.healthcheck === undefined ? undefined : healthJson(image.healthcheck),
			OnBuild: list(image.onbuild),
			Shell: list(image.shell),
		},
	};
	return new TextEncoder().encode(goJson(document));
}

function historyJson(entry: HistoryEntry): object {
	return {
		created: goTime(entry.created),
		created_by: orNone(entry.created_by ?? ""),
		author: orNone(entry.author ?? ""),
		comment: orNone(entry.comment ?? ""),
		empty_layer: entry.empty_layer ? true : undefined,
	};
}

function healthJson(health: HealthConfig): object {
	return {
		Test: list(health.Test ?? []),
		Interval: orNone(health.Interval ?? 0),
		Timeout: orNone(health.Timeout ?? 0),
		StartPeriod: orNone(health.StartPeriod ?? 0),
		StartInterval: orNone(health.StartInterval ?? 0),
		Retries: orNone(health.Retries ?? 0),
	};
}

/** A time of a base image as Go writes it again: the same zone, no zeros at the end of the fraction. */
function goTime(text: string | undefined): string | undefined {
	if (text === undefined) {
		return undefined;
	}
	const [, moment = text, fraction = "", zone = ""] =
		/^([^.Z+]*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(text) ?? [];
	const digits = fraction.slice(0, 9).replace(/0+$/, "");
	return `${moment}${digits === "" ? "" : `.${digits}`}${/^[+-]00:00$/.test(zone) ? "Z" : zone}`;
}

function orNone<T extends string | number>(value: T): T | undefined {
	return value === "" || value === 0 ? undefined : value;
}

function list(values: readonly string[]): readonly string[] | undefined {
	return values.length === 0 ? undefined : values;
}

function goSet(values: ReadonlySet<string>): ReadonlyMap<string, object> | undefined {
	return goMap(Object.fromEntries([...values].map((value) => [value, {}] as const)));
}

export interface HistoryLine {
	readonly text: string;
	/** False for what only changes the config. */
	readonly layer: boolean;
	/** Seconds since the epoch. */
	readonly epoch: number | undefined;
}

export function addHistory(image: ImageDraft, { text, layer, epoch }: HistoryLine): void {
	image.history.push({
		...(epoch === undefined ? {} : { created: formatGoTime({ seconds: epoch, nanos: 0 }) }),
		created_by: text,
		comment: "buildkit.dockerfile.v0",
		empty_layer: !layer,
	});
}

/** Sets what an explicitly asked platform says; what it leaves open stays if it is the image's own OS and CPU. */
export function applyPlatform(image: ImageDraft, target: Platform | undefined): void {
	if (target !== undefined) {
		const own = image.platform;
		const same = own.os === target.os && own.architecture === target.architecture;
		const variant = target.variant ?? (same ? own.variant : undefined);
		const version = target["os.version"] ?? (same ? own["os.version"] : undefined);
		const features = target["os.features"] ?? own["os.features"];
		image.platform = {
			architecture: target.architecture,
			os: target.os,
			...(version === undefined ? {} : { "os.version": version }),
			...(features === undefined ? {} : { "os.features": features }),
			...(variant === undefined ? {} : { variant }),
		};
	}
	image.platform = normalizePlatform(image.platform);
}
