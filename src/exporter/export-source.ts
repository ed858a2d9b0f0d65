import { SlipwayError } from "../errors/errors.ts";
import { parseImageConfig } from "../oci/image-config.ts";
import {
	formatPlatformAll,
	hostPlatform,
	normalizePlatform,
	orderedPlatform,
	type Platform,
} from "../oci/platform.ts";
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
	const isMap = result.refs.size > 0;
	const bytes = (key: string): Uint8Array | undefined =>
		overrides[key] === undefined ? result.metadata[key] : new TextEncoder().encode(overrides[key]);
	const listed = bytes(platformsKey);
	if (isMap && listed === undefined) {
		throw invalid("unable to export multiple refs, missing platforms mapping");
	}
	const platforms = platformsOf(listed, bytes(configKey));
	// What is for one platform goes before what is for all.
	const documentOf = (key: string, id: string): Uint8Array | undefined => bytes(`${key}/${id}`) ?? bytes(key);
	const metadata = Object.entries(result.metadata).map(([key, value]) => [key, textOf(value)] as const);
	return {
		isMap,
		metadata: { ...Object.fromEntries(metadata), ...overrides },
		platforms: platforms.map(({ id, platform }) => ({
			id,
			platform: normalizePlatform(platform),
			ref: findRef(result, id),
			imageConfig: documentOf(configKey, id),
			baseImageConfig: documentOf(baseConfigKey, id),
		})),
	};
}

/** The platforms that a result is for, as its metadata has them. Throws `invalid-argument` with BuildKit's messages. */
export function listPlatforms({ metadata }: BuildResult): readonly ListedPlatform[] {
	return platformsOf(metadata[platformsKey], metadata[configKey]);
}

function platformsOf(
	list: Uint8Array | undefined,
	config: Uint8Array | undefined,
): readonly ListedPlatform[] {
	return list === undefined ? [platformWithoutList(config)] : parsePlatformList(textOf(list));
}

function textOf(bytes: Uint8Array): string {
	return new TextDecoder().decode(bytes);
}

export interface ListedPlatform {
	readonly id: string;
	readonly platform: Platform;
}

/** A result that does not say is for its image config's platform, without one for the daemon's own. */
function platformWithoutList(config: Uint8Array | undefined): ListedPlatform {
	const own = config === undefined ? undefined : platformOfConfig(textOf(config));
	const platform = normalizePlatform(own ?? hostPlatform());
	return { id: formatPlatformAll(platform), platform };
}

/** Undefined if the config says neither OS nor architecture. */
function platformOfConfig(config: string): Platform | undefined {
	if (config.trim() === "null") {
		// Refused with its own message when the config is written.
		return undefined;
	}
	const parsed = parseImageConfig(new TextEncoder().encode(config));
	const { os, architecture } = parsed;
	if (os === "" && architecture === "") {
		return undefined;
	}
	if (os === "" || architecture === "") {
		throw invalid("invalid image config: os and architecture must be specified together");
	}
	return orderedPlatform(parsed);
}

function findRef({ ref, refs }: BuildResult, id: string): PlatformResult["ref"] {
	if (refs.size === 0) {
		return ref;
	}
	if (!refs.has(id) && refs.size > 1) {
		throw invalid(`failed to find ref for ID ${id}`);
	}
	return refs.has(id) ? refs.get(id) : [...refs.values()][0];
}

/** `{"Platforms":[{"ID":…,"Platform":{…}}]}`, the frontends' own form. */
function parsePlatformList(text: string): readonly ListedPlatform[] {
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
