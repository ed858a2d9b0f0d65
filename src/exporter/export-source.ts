import { SlipwayError } from "../errors/errors.ts";
import { parseImageConfig } from "../oci/image-config.ts";
import { formatPlatformAll, hostPlatform, normalizePlatform, type Platform } from "../oci/platform.ts";
import type { BuildResult, PlatformResult } from "./exporter.ts";

/** A result as an exporter works with it, after options that speak about the result were put over its metadata. */
export interface ExportSource {
	/** An index, or a directory per platform. Without it there is exactly one platform. */
	readonly isMap: boolean;
	readonly platforms: readonly PlatformResult[];
	readonly metadata: Readonly<Record<string, string>>;
}

const configKey = "containerimage.config";
const baseConfigKey = "containerimage.base.config";
const platformsKey = "refs.platforms";

/**
 * `overrides` are the exporter's options that are none of its own: BuildKit takes them for metadata of the result, so that a
 * client that builds a graph of its own can give it an image config. Throws `invalid-argument` with BuildKit's messages.
 */
export function resolveSource(
	result: BuildResult,
	overrides: Readonly<Record<string, string>> = {},
): ExportSource {
	const isMap = result.multiPlatform;
	const listed =
		overrides[platformsKey] === undefined ? undefined : parsePlatformList(overrides[platformsKey]);
	const [single] = result.refs;
	const base: readonly PlatformResult[] =
		listed === undefined
			? isMap
				? result.refs
				: [singlePlatform(single, overrides[configKey])]
			: listed.map((entry) => ({ ...findResult(result, entry.id), ...entry }));
	if (isMap && base.length === 0) {
		throw invalid("invalid empty platforms index for exporter");
	}
	return {
		isMap,
		metadata: { ...result.metadata, ...overrides },
		platforms: base.map((entry) => ({
			...entry,
			platform: normalizePlatform(entry.platform),
			imageConfig: override(overrides, configKey, entry.id, isMap) ?? entry.imageConfig,
			baseImageConfig: override(overrides, baseConfigKey, entry.id, isMap) ?? entry.baseImageConfig,
		})),
	};
}

function override(
	overrides: Readonly<Record<string, string>>,
	key: string,
	id: string,
	isMap: boolean,
): Uint8Array | undefined {
	// In a result with several platforms each has its own value, which the one for all does not replace.
	const value = overrides[`${key}/${id}`] ?? (isMap ? undefined : overrides[key]);
	return value === undefined ? undefined : new TextEncoder().encode(value);
}

const nothing: Omit<PlatformResult, "id" | "platform"> = {
	ref: undefined,
	imageConfig: undefined,
	baseImageConfig: undefined,
};

/** A result without a config and without a platform is for the daemon's own. */
function singlePlatform(entry: PlatformResult | undefined, config: string | undefined): PlatformResult {
	const platform = config === undefined ? undefined : platformOfConfig(config);
	const fallback = platform ?? entry?.platform ?? hostPlatform();
	return {
		...nothing,
		...entry,
		platform: fallback,
		id:
			platform === undefined && entry !== undefined
				? entry.id
				: formatPlatformAll(normalizePlatform(fallback)),
	};
}

/** Undefined if the config says neither OS nor architecture. */
function platformOfConfig(config: string): Platform | undefined {
	if (config.trim() === "null") {
		// Refused with its own message when the config is written.
		return undefined;
	}
	const {
		os,
		architecture,
		variant,
		"os.version": version,
		"os.features": features,
	} = parseImageConfig(new TextEncoder().encode(config));
	if (os === "" && architecture === "") {
		return undefined;
	}
	if (os === "" || architecture === "") {
		throw invalid("invalid image config: os and architecture must be specified together");
	}
	return {
		architecture,
		os,
		...(version === undefined ? {} : { "os.version": version }),
		...(features === undefined ? {} : { "os.features": features }),
		...(variant === undefined ? {} : { variant }),
	};
}

function findResult(result: BuildResult, id: string): Omit<PlatformResult, "id" | "platform"> {
	const found = result.refs.find((entry) => entry.id === id);
	const only = result.refs.length <= 1 ? (result.refs[0] ?? nothing) : undefined;
	const entry = found ?? only;
	if (entry === undefined) {
		throw invalid(`failed to find ref for ID ${id}`);
	}
	return entry;
}

/** `{"Platforms":[{"ID":…,"Platform":{…}}]}`, the frontends' own form. */
function parsePlatformList(text: string): readonly { readonly id: string; readonly platform: Platform }[] {
	let parsed: {
		readonly Platforms?: readonly { readonly ID?: string; readonly Platform?: Partial<Platform> }[];
	};
	try {
		parsed = text === "" ? {} : (JSON.parse(text) as typeof parsed);
	} catch (error) {
		throw new SlipwayError(
			"invalid-argument",
			`failed to parse platforms passed to provenance processor: ${(error as Error).message}`,
			{ cause: error },
		);
	}
	const list = parsed?.Platforms;
	if (!Array.isArray(list) || list.length === 0) {
		throw invalid("invalid empty platforms index for exporter");
	}
	return list.map((entry: (typeof list)[number]) => {
		const { os, architecture } = entry?.Platform ?? {};
		if (typeof entry?.ID !== "string" || entry.ID === "") {
			throw invalid("invalid empty platform key for exporter");
		}
		if (typeof os !== "string" || os === "" || typeof architecture !== "string" || architecture === "") {
			throw invalid(`invalid platform value ${JSON.stringify(entry.Platform)} for exporter`);
		}
		return { id: entry.ID, platform: { ...entry.Platform, os, architecture } };
	});
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
