import type { InputDependency } from "../llb/cache-digest.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import type { CacheMapInput } from "../solver/solver.ts";
import type { Output } from "./worker.ts";

/** What an op's cache key depends on in one of its inputs: the part that it uses, and whether by content. */
export function contentDigestOf(dependency: InputDependency): CacheMapInput<Output> {
	const { selectors } = dependency;
	return {
		...(dependency.selector === undefined ? {} : { selector: dependency.selector }),
		...(dependency.byContent ? { contentDigest: (ref, { signal }) => digestOf(ref, selectors, signal) } : {}),
	};
}

async function digestOf(
	ref: Output,
	selectors: InputDependency["selectors"],
	signal: AbortSignal,
): Promise<Digest> {
	const whole = [
		{ path: "/", wildcard: false, followLinks: false, includePatterns: [], excludePatterns: [] },
	];
	const parts = selectors.length === 0 ? whole : selectors;
	if (ref === undefined) {
		return sha256(parts.map((part) => (part.path === "/" ? emptyTreeDigest : "")).join("\0"));
	}
	const digests = await Promise.all(
		parts.map((part) =>
			ref.digests.digest(part.path, {
				followLinks: part.followLinks,
				wildcard: part.wildcard,
				includePatterns: part.includePatterns,
				excludePatterns: part.excludePatterns,
				signal,
			}),
		),
	);
	return sha256(digests.join("\0"));
}

const emptyTreeDigest = sha256("");
