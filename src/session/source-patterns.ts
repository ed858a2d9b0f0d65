import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { followLinks, type LinkTree } from "../patterns/follow-links.ts";
import { createPathFilter, type PathFilter } from "../patterns/path-filter.ts";
import type { SyncRequest } from "./session.ts";

export interface SourceFilter {
	/** Undefined: everything is shown. */
	readonly filter: PathFilter | undefined;
	/** Equal for requests that show the same entries of the same tree. */
	readonly key: string;
}

/** What the request shows of the directory, with follow paths resolved to the paths that their links lead to today. */
export function sourceFilter(
	source: string,
	request: Pick<SyncRequest, "includePatterns" | "excludePatterns" | "followPaths">,
): SourceFilter {
	const include = includeOf(source, request);
	const exclude = request.excludePatterns;
	if (include.length === 0 && exclude.length === 0) {
		return { filter: undefined, key: "" };
	}
	return { filter: createPathFilter({ include, exclude }), key: JSON.stringify([include, exclude]) };
}

function includeOf(
	source: string,
	{ includePatterns, followPaths }: Pick<SyncRequest, "includePatterns" | "followPaths">,
): readonly string[] {
	if (followPaths.length === 0) {
		return includePatterns;
	}
	const followed = followLinks(linkTree(source), followPaths);
	// A path that leads to the root asks for everything, which include patterns may still narrow.
	return followed === undefined ? includePatterns : [...new Set([...includePatterns, ...followed])];
}

/** Paths that cannot be looked at are as good as missing: the walk says what is wrong with them. */
function linkTree(source: string): LinkTree {
	return {
		readLink(path) {
			try {
				const full = `${source}/${path}`;
				const stat = lstatSync(full, { throwIfNoEntry: false });
				return stat?.isSymbolicLink() === true ? readlinkSync(full) : undefined;
			} catch {
				return undefined;
			}
		},
		readDirectory(path) {
			try {
				return readdirSync(`${source}/${path}`);
			} catch {
				return undefined;
			}
		},
	};
}
