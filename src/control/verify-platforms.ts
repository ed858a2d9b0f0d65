import { SlipwayError } from "../errors/errors.ts";
import { listPlatforms } from "../exporter/export-source.ts";
import type { BuildResult } from "../exporter/exporter.ts";
import {
	formatPlatformAll,
	hostPlatform,
	normalizePlatform,
	type Platform,
	parsePlatform,
} from "../oci/platform.ts";

/**
 * What is strange about a result's platforms, in view of those that were asked for (`platform` of the frontend's options): sentences
 * for people. Throws for a result that does not say which of its trees is for what.
 */
export function verifyPlatforms(result: BuildResult, wanted: string | undefined): readonly string[] {
	const isMap = result.refs.size > 0;
	if (result.metadata["refs.platforms"] === undefined) {
		if (isMap) {
			throw new SlipwayError(
				"invalid-argument",
				"build result contains multiple refs without platforms mapping",
			);
		}
		if (result.ref === undefined) {
			return [];
		}
	}
	const made = listPlatforms(result).map(({ platform }) => normalizePlatform(platform));
	const asked = wanted === undefined ? [hostPlatform()] : parseAsked(wanted);
	if (asked.some((each) => typeof each === "string")) {
		return asked.filter((each) => typeof each === "string");
	}
	const names = new Set<string>();
	for (const [index, platform] of (asked as readonly Platform[]).entries()) {
		const name = formatPlatformAll(normalizePlatform(platform));
		if (names.has(name)) {
			return [`Duplicate platform result requested ${JSON.stringify(wanted?.split(",")[index] ?? name)}`];
		}
		names.add(name);
	}
	const [only] = made;
	if (names.size === 1 && made.length === 1 && only !== undefined) {
		const { "os.version": _, ...anyVersion } = only;
		return [only, anyVersion].some((each) => names.has(formatPlatformAll(each)))
			? []
			: [
					`Requested platform ${JSON.stringify(wanted ?? [...names][0])} does not match result platform ${JSON.stringify(formatPlatformAll(only))}`,
				];
	}
	if (!isMap && names.size > 1) {
		return ["Multiple platforms requested but result is not multi-platform"];
	}
	const results = made.map(formatPlatformAll);
	return names.size === made.length && results.every((name) => names.has(name))
		? []
		: [`Requested platforms ${listOf(names)} do not match result platforms ${listOf(results)}`];
}

/** A platform, or the sentence about one that is none. */
function parseAsked(wanted: string): readonly (Platform | string)[] {
	return wanted.split(",").map((text) => {
		try {
			return parsePlatform(text);
		} catch (error) {
			return `Invalid platform result requested ${JSON.stringify(text)}: ${(error as Error).message}`;
		}
	});
}

function listOf(names: Iterable<string>): string {
	return [...names].sort().join(",");
}
