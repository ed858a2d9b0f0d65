import { SlipwayError } from "../errors/errors.ts";
import { formatPlatformAll, type Platform, parsePlatform } from "../oci/platform.ts";

/** Annotations by the place that they go to. */
export interface Annotations {
	readonly index: Readonly<Record<string, string>>;
	/** Of the index, in what refers to it. */
	readonly indexDescriptor: Readonly<Record<string, string>>;
	readonly manifest: Readonly<Record<string, string>>;
	readonly manifestDescriptor: Readonly<Record<string, string>>;
}

/** By the platform that they are for; empty is all platforms. */
export type AnnotationGroups = ReadonlyMap<string, Annotations>;

const places: Readonly<Record<string, keyof Annotations>> = {
	index: "index",
	"index-descriptor": "indexDescriptor",
	manifest: "manifest",
	"manifest-descriptor": "manifestDescriptor",
};

const keyPattern = /^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$/;
const none: Annotations = { index: {}, indexDescriptor: {}, manifest: {}, manifestDescriptor: {} };

/**
 * Takes `annotation-<place>[<platform>].<key>` out of options or metadata; place and platform are optional. Throws
 * `invalid-argument` for an unknown place or a bad platform.
 */
export function parseAnnotations(values: Readonly<Record<string, string>>): {
	readonly groups: AnnotationGroups;
	readonly rest: Readonly<Record<string, string>>;
} {
	const groups = new Map<string, Annotations>();
	const rest: Record<string, string> = {};
	for (const [name, value] of Object.entries(values)) {
		const match = keyPattern.exec(name);
		if (match === null) {
			rest[name] = value;
			continue;
		}
		const [, type = "manifest", platformText, key = ""] = match;
		const place = Object.hasOwn(places, type) ? places[type] : undefined;
		if (place === undefined) {
			throw new SlipwayError("invalid-argument", `unrecognized annotation type ${type}`);
		}
		const platform = platformText === undefined ? "" : formatPlatformAll(parsePlatform(platformText));
		const group = groups.get(platform) ?? none;
		groups.set(platform, { ...group, [place]: { ...group[place], [key]: value } });
	}
	return { groups, rest };
}

/** Both; where they name the same key, `later` counts. */
export function mergeAnnotations(earlier: AnnotationGroups, later: AnnotationGroups): AnnotationGroups {
	const merged = new Map(earlier);
	for (const [platform, group] of later) {
		merged.set(platform, joined(merged.get(platform) ?? none, group));
	}
	return merged;
}

/** What holds for one platform, or without one for the image as a whole. An index has no platform, so its annotations come from every group. */
export function annotationsFor(groups: AnnotationGroups, platform?: Platform): Annotations {
	let result = none;
	for (const { index, indexDescriptor } of groups.values()) {
		result = joined(result, { ...none, index, indexDescriptor });
	}
	const names = platform === undefined ? [""] : ["", formatPlatformAll(platform)];
	for (const name of names) {
		const { manifest, manifestDescriptor } = groups.get(name) ?? none;
		result = joined(result, { ...none, manifest, manifestDescriptor });
	}
	return result;
}

function joined(one: Annotations, other: Annotations): Annotations {
	return {
		index: { ...one.index, ...other.index },
		indexDescriptor: { ...one.indexDescriptor, ...other.indexDescriptor },
		manifest: { ...one.manifest, ...other.manifest },
		manifestDescriptor: { ...one.manifestDescriptor, ...other.manifestDescriptor },
	};
}
