import type { Policy } from "../api/generated/sourcepolicy.ts";
import type { Definition } from "../llb/llb.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Platform } from "../oci/platform.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { LocalSessionOptions } from "../session/local-session.ts";

/**
 * A builder behind a socket, be it Slipway's daemon or a real buildkitd: the calls of BuildKit's Control service with the
 * session that a build needs. `connectClient` (connect.ts) is the whole.
 */
export interface Client extends AsyncDisposable {
	/** Rejects with the build's error; its details say where in the source it happened. */
	solve(request: SolveRequest, options: SolveOptions): Promise<SolveResponse>;
	info(options: CallSignal): Promise<BuilderInfo>;
	workers(filters: readonly string[], options: CallSignal): Promise<readonly WorkerInfo[]>;
	diskUsage(filters: readonly string[], options: CallSignal): Promise<readonly UsageRecord[]>;
	/** Gives each record when it was removed. */
	prune(request: PruneRequest, options: CallSignal): AsyncIterable<UsageRecord>;
	/** Builds under way and, unless `activeOnly`, kept ones; goes on with what happens unless `earlyExit`. */
	history(request: HistoryRequest, options: CallSignal): AsyncIterable<HistoryEvent>;
	/** Pins, unpins or deletes the record of a build. */
	updateHistory(
		update: { readonly ref: string; readonly pinned?: boolean; readonly delete?: boolean },
		options: CallSignal,
	): Promise<void>;
	/** Progress of a build by its ref, from its beginning. Resolves at its end. */
	status(ref: string, progress: ProgressSink, options: CallSignal): Promise<void>;
	/** A blob of the builder, such as a log of the history. */
	readBlob(digest: string, options: CallSignal): AsyncIterable<Uint8Array>;
	/** Aborted with the reason when the connection is gone. */
	readonly closed: AbortSignal;
}

export interface CallSignal {
	readonly signal: AbortSignal;
}

export interface SolveRequest {
	/** Names the build; unique among those of the builder. */
	readonly ref: string;
	/** `dockerfile.v0`, `gateway.v0`; undefined: `definition` is what is built. */
	readonly frontend: string | undefined;
	readonly frontendOptions: Readonly<Record<string, string>>;
	readonly frontendInputs: ReadonlyMap<string, Definition>;
	readonly definition: Definition | undefined;
	readonly exporters: readonly TypeAndAttrs[];
	readonly cacheExports: readonly TypeAndAttrs[];
	readonly cacheImports: readonly TypeAndAttrs[];
	/** As on the wire: `network.host`, `security.insecure`, `device=…`. */
	readonly entitlements: readonly string[];
	readonly sourcePolicy?: Policy;
	/** Steps reach the network through a proxy of the builder that records what they ask for; Slipway's builders have none. */
	readonly proxyNetwork?: boolean;
}

export interface TypeAndAttrs {
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

export interface SolveOptions extends CallSignal {
	/** What the builder may take from here while it builds. */
	readonly lends: LocalSessionOptions;
	readonly progress: ProgressSink;
}

export interface SolveResponse {
	/** `containerimage.digest`, `image.name`, …. */
	readonly exporterResponse: Readonly<Record<string, string>>;
	/** For a frontend that was asked a question (`requestid`): the answer, such as `result.txt`. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
}

export interface BuilderVersion {
	readonly package: string;
	readonly version: string;
	readonly revision: string;
	readonly dockerfileVersion: string;
}

export interface BuilderInfo {
	readonly version: BuilderVersion | undefined;
}

export interface WorkerInfo {
	readonly id: string;
	readonly labels: Readonly<Record<string, string>>;
	readonly platforms: readonly Platform[];
	readonly gcPolicy: readonly GcPolicy[];
	readonly version: BuilderVersion | undefined;
	readonly devices: readonly DeviceInfo[];
}

/** Sizes in bytes, 0 is none; the duration in nanoseconds, as text since it may be larger than a safe number. */
export interface GcPolicy {
	readonly all: boolean;
	readonly filters: readonly string[];
	readonly keepDuration: string;
	readonly reservedSpace: number;
	readonly maxUsedSpace: number;
	readonly minFreeSpace: number;
}

export interface DeviceInfo {
	readonly name: string;
	readonly autoAllow: boolean;
	readonly annotations: Readonly<Record<string, string>>;
	readonly onDemand: boolean;
}

/** Times in milliseconds since the epoch. */
export interface UsageRecord {
	readonly id: string;
	readonly mutable: boolean;
	readonly inUse: boolean;
	readonly size: number;
	readonly parents: readonly string[];
	readonly createdAt: number | undefined;
	readonly lastUsedAt: number | undefined;
	readonly usageCount: number;
	readonly description: string;
	readonly recordType: string;
	readonly shared: boolean;
}

export interface PruneRequest {
	readonly filters?: readonly string[];
	/** Also what BuildKit keeps for itself: internal records and frontend images. */
	readonly all?: boolean;
	/** Nanoseconds: what was used later than that ago stays. */
	readonly keepDuration?: bigint;
	/** Bytes: down to this much nothing is removed. */
	readonly reservedSpace?: number;
	/** Bytes that the cache may have. */
	readonly maxUsedSpace?: number;
	/** Bytes that are to be free on the disk. */
	readonly minFreeSpace?: number;
}

export interface HistoryRequest {
	readonly activeOnly?: boolean;
	readonly ref?: string;
	readonly earlyExit?: boolean;
	readonly filters?: readonly string[];
	readonly limit?: number;
}

export interface HistoryEvent {
	readonly type: "started" | "complete" | "deleted";
	readonly record: HistoryRecord;
}

export interface HistoryRecord {
	readonly ref: string;
	readonly frontend: string;
	readonly frontendOptions: Readonly<Record<string, string>>;
	readonly exporters: readonly TypeAndAttrs[];
	readonly error: { readonly code: number; readonly message: string } | undefined;
	/** Milliseconds since the epoch. */
	readonly createdAt: number | undefined;
	readonly completedAt: number | undefined;
	readonly logs: Descriptor | undefined;
	readonly trace: Descriptor | undefined;
	/** The error with all of its details: a `google.rpc.Status`. */
	readonly externalError: Descriptor | undefined;
	readonly exporterResponse: Readonly<Record<string, string>>;
	readonly generation: number;
	readonly pinned: boolean;
	readonly cachedSteps: number;
	readonly completedSteps: number;
	readonly totalSteps: number;
	readonly warnings: number;
	/** Results and attestations by exporter. */
	readonly results: readonly Descriptor[];
	readonly attestations: readonly Descriptor[];
}
