import { SlipwayError, wrap } from "../errors/errors.ts";
import { type ContentSelector, contentListDigest, type InputDependency } from "../llb/cache-digest.ts";
import type { LoadedOp } from "../llb/llb.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { CacheMapInput, StepContext } from "../solver/solver.ts";
import { keepFailed } from "./keep-failed.ts";
import type { Output } from "./worker.ts";

/** What an op's cache key depends on in one of its inputs: the part that it uses, and whether by content. */
export function contentDigestOf(
	{ selector, selectors, byContent }: InputDependency,
	{ op, index }: { readonly op: LoadedOp; readonly index: number },
): CacheMapInput<Output> {
	const contentDigest = async (ref: Output, context: StepContext): Promise<Digest> => {
		try {
			return await digestOf(ref, selectors, context.signal);
		} catch (error) {
			const subject = { kind: "content", index } as const;
			await keepFailed({ op, subject }, context, async () => ({ inputs: [ref], mounts: [] }));
			throw error;
		}
	};
	return { ...(selector === undefined ? {} : { selector }), ...(byContent ? { contentDigest } : {}) };
}

const wholeTree: ContentSelector = {
	path: "/",
	wildcard: false,
	followLinks: false,
	includePatterns: [],
	excludePatterns: [],
	requiredPaths: [],
};

async function digestOf(
	ref: Output,
	selectors: readonly ContentSelector[],
	signal: AbortSignal,
): Promise<Digest> {
	const parts = selectors.length === 0 ? [wholeTree] : selectors;
	return contentListDigest(await Promise.all(parts.map((part) => partDigest(ref, part, signal))));
}

async function partDigest(ref: Output, part: ContentSelector, signal: AbortSignal): Promise<Digest> {
	const path = cleanPath(`/${part.path}`) + (part.path.length > 1 && part.path.endsWith("/") ? "/" : "");
	if (ref !== undefined) {
		return await ref.digests.digest(path, { ...part, signal }).catch((error: unknown) => {
			signal.throwIfAborted();
			throw wrap(error, `failed to calculate checksum of ref ${ref.id}`);
		});
	}
	if (path !== "/") {
		throw new SlipwayError("not-found", `${path}: no such file or directory`);
	}
	return sha256("");
}
