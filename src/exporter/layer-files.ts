import { createLimit } from "../async/limit.ts";
import type { LayerBlob } from "../cache/cache.ts";
import type { ContentStore } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";

/** Layers that are fetched at a time; a registry client has limits of its own. */
const parallelFetches = 4;

/**
 * Brings layers into the content store that are not there yet (base images are pulled only as far as somebody needs them) and
 * judges the size of those that are.
 */
export async function fetchLayers(
	layers: ReadonlyMap<Digest, LayerBlob>,
	content: ContentStore,
	{ signal, leftOut }: { readonly signal: AbortSignal; readonly leftOut?: ReadonlySet<string> },
): Promise<void> {
	const limit = createLimit(parallelFetches);
	const others = new AbortController();
	const any = AbortSignal.any([signal, others.signal]);
	const wanted = [...layers.values()].filter(({ descriptor }) => leftOut?.has(descriptor.digest) !== true);
	const fetches = wanted.map(async ({ descriptor, provider }) => {
		const { digest, size } = descriptor;
		const info = await content.info(digest);
		if (info === undefined) {
			using _slot = await limit.acquire({ signal: any });
			await content.write(provider.read(descriptor, { signal: any }), {
				expected: { digest, size },
				signal: any,
			});
		} else if (info.size !== size) {
			throw await discardDamaged(content, { digest, found: `it has ${info.size} of ${size} bytes` });
		}
	});
	try {
		await Promise.all(fetches);
	} catch (thrown) {
		others.abort();
		await Promise.allSettled(fetches);
		throw thrown;
	}
}

/** What was found when a blob was read. */
export interface Damage {
	readonly digest: Digest;
	/** `it has 12 of 20 bytes`. */
	readonly found: string;
}

/**
 * The error for a blob whose bytes are not what they were when they were stored (a disk error, or somebody wrote to the file).
 * The blob is removed: what is not there is made or fetched again, what is there and wrong would fail every build.
 */
export async function discardDamaged(
	content: Pick<ContentStore, "delete">,
	{ digest, found }: Damage,
): Promise<SlipwayError> {
	await content.delete(digest);
	return new SlipwayError(
		"data-loss",
		`blob ${digest} was damaged in the content store (${found}) and has been removed: run the build again to make it anew`,
	);
}
