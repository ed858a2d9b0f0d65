import type { BlobOptions, LayerBlob } from "../cache/cache.ts";
import type { Digest } from "../oci/digest.ts";
import type { Session } from "../session/session.ts";
import type { StepContext } from "../solver/solver.ts";
import type { ObjectStore } from "./objects.ts";

/**
 * Caches that travel: what a build knows is written to a place outside of the builder, and another builder finds it there.
 * The formats are BuildKit's (cache/remotecache), so that either builder uses what the other one has written.
 *
 * An exported cache is a *config*, JSON that has the graph of cache keys (`records`) and the layers that they lead to, and the
 * layers' blobs. Where it is kept is a *backend*'s business: an OCI artifact in a registry or in the client's directory, objects in a
 * bucket, entries of a CI system's cache, or a field of the image itself.
 *
 * Export: `collectRecords` walks the keys of a build's results into a `CacheChains`, which joins what is equal;
 * `toConfig` numbers and sorts it. Import: `parseConfig`, `chainsOf`, and `createImportedSource` makes a source for the
 * solver. A hit gives a lazy ref: no layer is fetched before somebody wants its files.
 *
 * Never true: a blob is sent that the place has; a cache that is damaged, foreign or gone fails a build that did not insist.
 */

/** One layer of a result, as a blob that can be had somewhere. */
export interface CacheBlob extends Pick<LayerBlob, "descriptor" | "diffId" | "provider"> {
	/** Of the layer; undefined if its exporter did not say. Milliseconds since the epoch. */
	readonly createdAt: number | undefined;
	readonly description: string | undefined;
}

/** A result that is kept under a record: its layers, lowest first. */
export interface CacheResult {
	/** Of the result, which is later than that of its layers. Milliseconds since the epoch. */
	readonly createdAt: number;
	readonly layers: readonly CacheBlob[];
}

/** The document as it is stored; positions are indexes into its own lists. */
export interface CacheConfig {
	readonly layers: readonly ConfigLayer[];
	readonly records: readonly ConfigRecord[];
}

export interface ConfigLayer {
	readonly blob: Digest;
	/** -1 for none. */
	readonly parent: number;
	/** Where no manifest describes the blobs. */
	readonly annotations?: LayerAnnotations;
}

export interface LayerAnnotations {
	readonly mediaType: string;
	readonly diffId: Digest | undefined;
	readonly size: number;
	readonly createdAt: number;
}

export interface ConfigRecord {
	readonly digest: string;
	/** The layer stands for itself and all its parents. */
	readonly results: readonly { readonly layer: number; readonly createdAt: number }[];
	/** All layers are listed, without parents. */
	readonly chains: readonly { readonly layers: readonly number[]; readonly createdAt: number }[];
	/** For each input of the op the alternatives that lead here. */
	readonly inputs: readonly (readonly { readonly selector: string; readonly link: number }[])[];
}

export const configMediaType = "application/vnd.buildkit.cacheconfig.v0";

/** `min`: layers of the result; `max`: those of all steps. */
export type ExportMode = "min" | "max";

/** `type=…,key=value,…` of a client. */
export interface CacheOptions {
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

/** How layers are compressed that have no blob yet; with `force` others too. */
export interface BlobForm {
	readonly compression: BlobOptions["compression"];
	readonly level: number | undefined;
	readonly force: boolean;
}

/** A place that takes caches. Its options are parsed when it is made, before the build begins. */
export interface CacheTarget {
	/** Shown as the step's name: `exporting cache to registry`. */
	readonly name: string;
	readonly form: BlobForm;
	/** Blobs that are sent at a time; default 4. */
	readonly maxUploads?: number;
	/** Brings the blob there unless it is there. Called once per digest and build. */
	sendBlob(blob: CacheBlob, context: StepContext): Promise<void>;
	/** Makes the cache visible; all its blobs are there. The answer becomes part of the build's response. */
	finish(cache: ExportedCache, context: StepContext): Promise<Readonly<Record<string, string>>>;
}

export interface ExportedCache {
	readonly config: CacheConfig;
	/** Every layer of the config. */
	readonly blobs: ReadonlyMap<Digest, CacheBlob>;
}

/** A place that caches are read from. */
export interface CacheOrigin {
	/** Shown as `importing cache manifest from <name>`, and the same for the same cache. */
	readonly name: string;
	/** Several where one name stands for images of several platforms. Throws whatever is wrong with it. */
	read(context: StepContext): Promise<readonly ImportedCache[]>;
}

export interface ImportedCache {
	readonly config: CacheConfig;
	readonly blobs: ReadonlyMap<Digest, CacheBlob>;
}

/** Makes the places of one type; throws `invalid-argument` for options that are wrong. */
export interface CacheBackend {
	readonly type: string;
	target?(attrs: CacheOptions["attrs"], session: Session): CacheTarget;
	origin?(attrs: CacheOptions["attrs"], session: Session): CacheOrigin;
	/** Where cache mounts are kept, beside the caches of steps. */
	mounts?(attrs: CacheOptions["attrs"], session: Session): MountPlace;
}

export interface MountPlace {
	/** Shown in names of steps. */
	readonly name: string;
	open(): Promise<ObjectStore>;
}
