import { hash } from "node:crypto";
import type { CacheManager, ImmutableRef } from "../cache/cache.ts";
import type { ContentProvider } from "../content/content.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { rootKeyId } from "../solver/key.ts";
import type { CacheSource, KeyLink, KeyReader, ResultRecord } from "../solver/solver.ts";
import { CacheChains, type ChainItem, type ChainLink } from "./chains.ts";
import type { CacheBlob, CacheConfig, CacheResult, ImportedCache } from "./remotecache.ts";

/** Layers of all results together: a real cache has some thousand, a few megabytes of a hostile one may name billions. */
const maxResultLayers = 2_000_000;

/**
 * Adds the graph that a config describes. A result whose blobs are not all known is left out. Throws `invalid-argument` for
 * positions outside of the lists and for loops.
 */
export function chainsOf(
	{ config, blobs }: ImportedCache,
	chains: CacheChains = new CacheChains(),
): CacheChains {
	const items = new Map<number, ChainItem | "open" | undefined>();
	const stacks = new Map<number, readonly CacheBlob[] | undefined>();
	let resultLayers = 0;
	const counted = (layers: readonly CacheBlob[] | undefined): readonly CacheBlob[] | undefined => {
		resultLayers += layers?.length ?? 0;
		if (resultLayers > maxResultLayers) {
			throw invalid(`its results have more than ${maxResultLayers} layers`);
		}
		return layers;
	};
	for (let start = 0; start < config.records.length; start++) {
		const pending = [start];
		for (let index = pending.at(-1); index !== undefined; index = pending.at(-1)) {
			const known = items.get(index);
			if (items.has(index) && known !== "open") {
				pending.pop();
				continue;
			}
			const record = config.records[index];
			if (record === undefined) {
				throw invalid(`there is no record ${index}`);
			}
			const missing = record.inputs.flat().filter(({ link }) => !items.has(link));
			if (missing.length > 0) {
				items.set(index, "open");
				pending.push(...new Set(missing.map(({ link }) => link)));
				continue;
			}
			pending.pop();
			const inputs = record.inputs.map((links) => {
				if (links.length === 0) {
					throw invalid(`record ${index} has an input without records`);
				}
				return links.flatMap(({ selector, link }): ChainLink[] => {
					const from = items.get(link);
					if (from === "open") {
						throw invalid(`record ${index} is above itself`);
					}
					return from === undefined ? [] : [{ from, selector }];
				});
			});
			const results = [
				...record.results.map(({ layer, createdAt }) => ({
					createdAt,
					layers: stackOf(config, layer, { blobs, stacks, counted }),
				})),
				...record.chains.map(({ layers, createdAt }) => ({
					createdAt,
					layers: counted(listed(config, layers, blobs)),
				})),
			].filter((result): result is CacheResult => result.layers !== undefined && result.layers.length > 0);
			// What stands on a key that matches nothing here matches nothing either.
			const isWhole = inputs.every((links) => links.length > 0);
			items.set(index, isWhole ? chains.add(record.digest, inputs, results) : undefined);
		}
	}
	return chains;
}

function stackOf(
	config: CacheConfig,
	top: number,
	{
		blobs,
		stacks,
		counted,
	}: {
		readonly blobs: ImportedCache["blobs"];
		readonly stacks: Map<number, readonly CacheBlob[] | undefined>;
		readonly counted: (layers: readonly CacheBlob[] | undefined) => readonly CacheBlob[] | undefined;
	},
): readonly CacheBlob[] | undefined {
	const below: number[] = [];
	let index = top;
	while (index !== -1 && !stacks.has(index)) {
		if (below.length > config.layers.length) {
			throw invalid(`layer ${top} is above itself`);
		}
		below.push(index);
		index = layerAt(config, index).parent;
	}
	let stack = index === -1 ? [] : stacks.get(index);
	for (const each of below.reverse()) {
		const blob = blobs.get(layerAt(config, each).blob);
		stack = counted(stack === undefined || blob === undefined ? undefined : [...stack, blob]);
		stacks.set(each, stack);
	}
	return stack;
}

function listed(
	config: CacheConfig,
	layers: readonly number[],
	blobs: ImportedCache["blobs"],
): readonly CacheBlob[] | undefined {
	const found = layers.map((index) => blobs.get(layerAt(config, index).blob));
	return found.every((blob): blob is CacheBlob => blob !== undefined) ? found : undefined;
}

function layerAt(config: CacheConfig, index: number): CacheConfig["layers"][number] {
	const layer = config.layers[index];
	if (layer === undefined) {
		throw invalid(`there is no layer ${index}`);
	}
	return layer;
}

function invalid(reason: string): SlipwayError {
	return new SlipwayError("invalid-argument", `invalid cache config: ${reason}`);
}

/** In links of imported keys, which have no more than the digest of op and output together. */
export const digestHasOutput = -2;

export interface ImportedSource extends CacheSource<ImmutableRef | undefined> {
	/**
	 * After an error: results whose blobs could not be had are no longer found, and if bytes were not what they should be, all
	 * whose blobs were read. True if there are any that were found before.
	 */
	dropLost(error: unknown): boolean;
}

export interface ImportedSourceOptions {
	readonly cache: Pick<CacheManager, "fromLayers">;
	/** Told of a blob that could not be had, or was not what the cache said. */
	readonly onLost: (digest: Digest, error: unknown) => void;
}

/** Makes what was imported known to the solver. Its results are lazy refs. */
export function createImportedSource(chains: CacheChains, options: ImportedSourceOptions): ImportedSource {
	const ids = new Map<ChainItem, string>();
	const items = new Map<string, ChainItem>();
	for (const item of chains.items) {
		const id = item.inputs.length === 0 ? item.digest : `item ${item.number}`;
		ids.set(item, id);
		items.set(id, item);
	}
	const links = new Map<string, string[]>();
	const results = new Map<string, CacheResult>();
	for (const [item, id] of ids) {
		for (const [input, alternatives] of item.inputs.entries()) {
			for (const { from, selector } of alternatives) {
				const name = linkName(ids.get(from) ?? "", input, selector, item.digest);
				const targets = links.get(name);
				if (targets === undefined) {
					links.set(name, [id]);
				} else {
					targets.push(id);
				}
			}
		}
		for (const result of item.results) {
			results.set(resultId(result), result);
		}
	}
	const lost = new Set<string>();
	const lostBlobs = new Set<Digest>();
	const keys: KeyReader = {
		targets: (from, { input, output, digest, selector }) =>
			links.get(linkName(from, input, selector ?? "", recordDigest({ digest, output }))) ?? [],
		results: (key) => (items.get(key)?.results ?? []).map(recordOf).filter(({ id }) => !lost.has(id)),
		hasKey: (key) => items.has(key),
		backlinks: (key) => backlinksOf(items.get(key), ids),
	};
	const read = trackedReads(options.onLost);
	return {
		keys,
		results: {
			begins: (record, other) => {
				const below = results.get(record.id)?.layers ?? [];
				const above = results.get(other.id)?.layers ?? [];
				return (
					below.length > 0 &&
					below.every(({ descriptor }, index) => descriptor.digest === above[index]?.descriptor.digest)
				);
			},
			exists: async ({ id }) => results.has(id) && !lost.has(id),
			load: async ({ id }, { signal }) => {
				const result = lost.has(id) ? undefined : results.get(id);
				if (result === undefined) {
					return undefined;
				}
				const [top] = result.layers.toReversed();
				const ref = await options.cache.fromLayers(
					result.layers.map(({ descriptor, diffId, createdAt, description }) => ({
						descriptor,
						diffId,
						...(createdAt === undefined ? {} : { createdAt }),
						description: description ?? `imported ${descriptor.digest}`,
					})),
					{
						provider: read.provider(result.layers),
						isLost: (digest) => lostBlobs.has(digest),
						description: top?.description ?? `imported ${top?.descriptor.digest}`,
						createdAt: result.createdAt,
						signal,
					},
				);
				return { result: ref };
			},
		},
		dropLost: (error) => {
			const before = lost.size;
			const suspects = hasCode(error, "data-loss") ? read.begun : read.lost;
			for (const digest of suspects) {
				lostBlobs.add(digest);
			}
			for (const [id, { layers }] of results) {
				if (layers.some(({ descriptor }) => suspects.has(descriptor.digest))) {
					lost.add(id);
				}
			}
			return lost.size > before;
		},
	};
}

/** Blobs by digest, each from where it is; notes which could not be had. */
function trackedReads(onLost: ImportedSourceOptions["onLost"]): {
	readonly begun: ReadonlySet<Digest>;
	readonly lost: ReadonlySet<Digest>;
	readonly provider: (layers: readonly CacheBlob[]) => ContentProvider;
} {
	const begun = new Set<Digest>();
	const lost = new Set<Digest>();
	return {
		begun,
		lost,
		provider: (layers) => {
			const blobs = new Map(layers.map((layer) => [layer.descriptor.digest, layer]));
			return {
				read: async function* (descriptor, options) {
					const blob = blobs.get(descriptor.digest);
					begun.add(descriptor.digest);
					try {
						if (blob === undefined) {
							throw new SlipwayError("not-found", `blob ${descriptor.digest}: not found`);
						}
						yield* blob.provider.read(descriptor, options);
					} catch (error) {
						if (!options.signal.aborted) {
							lost.add(descriptor.digest);
							onLost(descriptor.digest, error);
						}
						throw error;
					}
				},
			};
		},
	};
}

function backlinksOf(
	item: ChainItem | undefined,
	ids: ReadonlyMap<ChainItem, string>,
): readonly { readonly from: string; readonly link: KeyLink }[] {
	return (item?.inputs ?? []).flatMap((alternatives, input) =>
		alternatives.map(({ from, selector }) => ({
			from: ids.get(from) ?? "",
			link: {
				input,
				output: digestHasOutput,
				digest: item?.digest ?? "",
				...(selector === "" ? {} : { selector: selector as Digest }),
			},
		})),
	);
}

/** What a record is named after: the op and which output of it. */
export function recordDigest({ digest, output }: Pick<KeyLink, "digest" | "output">): string {
	return output === digestHasOutput ? digest : rootKeyId(digest, output);
}

function linkName(from: string, input: number, selector: string, digest: string): string {
	return `${from} ${input} ${selector} ${digest}`;
}

function recordOf(result: CacheResult): ResultRecord {
	return { id: resultId(result), createdAt: result.createdAt };
}

/** By its blobs, so that equal results are one. */
function resultId({ layers }: CacheResult): string {
	return hash("sha256", layers.map(({ descriptor }) => descriptor.digest).join(" "));
}
