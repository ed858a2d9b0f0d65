import type { Digest } from "../oci/digest.ts";
import type { CacheChains } from "./chains.ts";
import { toConfig, writeRecords, zeroTime } from "./config.ts";
import { chainsOf } from "./imported-source.ts";
import type { CacheConfig, ConfigRecord } from "./remotecache.ts";

/**
 * The cache as a field of an image's config: the records whose layers the image has, told by their place in the image. A result
 * that is not a beginning of the image's layers is a list of places. Undefined if no record has layers in the image.
 */
export function inlineRecords(
	chains: CacheChains,
	imageLayers: readonly { readonly digest: Digest; readonly diffId: Digest }[],
): Uint8Array | undefined {
	const { config, blobs } = toConfig(chains);
	const places = new Map<Digest, number>();
	const kept = new Map(
		[...blobs].filter(([digest, { diffId }]) => {
			const place = imageLayers.findIndex((layer) => layer.digest === digest || layer.diffId === diffId);
			places.set(digest, place);
			return place >= 0;
		}),
	);
	const own = toConfig(chainsOf({ config, blobs: kept })).config;
	if (own.layers.length === 0) {
		return undefined;
	}
	return writeRecords(own.records.map((record) => placed(record, own, places)));
}

function placed(
	record: ConfigRecord,
	config: CacheConfig,
	places: ReadonlyMap<Digest, number>,
): ConfigRecord {
	const results: ConfigRecord["results"][number][] = [];
	const chains: ConfigRecord["chains"][number][] = [];
	for (const { layer, createdAt } of record.results) {
		const stack: number[] = [];
		for (let at = config.layers[layer]; at !== undefined; at = config.layers[at.parent]) {
			stack.unshift(places.get(at.blob) ?? -1);
		}
		if (stack.every((place, index) => place === index)) {
			results.push({ layer: stack.length - 1, createdAt });
		} else {
			// BuildKit writes no time here.
			chains.push({ layers: stack, createdAt: zeroTime });
		}
	}
	return { ...record, results, chains };
}
