import type {
	BuildHistoryEvent,
	BuildHistoryRecord,
	BuildHistoryRequest,
	Descriptor,
} from "../api/generated/control.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import type { SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { BuildLog } from "./service-log.ts";

/**
 * The builds of a builder, those that run and those that ended: what was asked, what came of it, and where its logs, errors and
 * results are to be read. Records of builds that ended are in the metadata database, their blobs in a content store of the
 * history's own, so that neither garbage collection nor `prune` takes them. What has no record is removed at the start.
 *
 * A record is deleted by its owner, or when it is both older than the greatest age and beyond the greatest number of records.
 * One that is pinned is only deleted by its owner. Who listens to one build delays its deletion.
 */
export interface History extends AsyncDisposable {
	readonly blobs: ContentStore & LocalContent;
	/** Tells listeners that a build has begun. */
	start(record: BuildHistoryRecord): ActiveBuild;
	/** Rejects with `unknown` for a build that has no record. */
	update(ref: string, change: { readonly pinned: boolean }): Promise<void>;
	delete(ref: string): Promise<void>;
	/** The trace of a build that has ended. It is taken when no more of it is expected: a moment later, or at `finalize`. */
	keepTrace(ref: string, take: () => string): void;
	/** Resolves when nothing will be added to the record of a build that has ended. */
	finalize(ref: string): Promise<void>;
	/**
	 * Builds that run, then those that ended, as the request filters them, then what happens, until the signal is aborted
	 * or the builder stops. Throws `invalid-argument` for filters that are none.
	 */
	listen(
		request: BuildHistoryRequest,
		options: { readonly signal: AbortSignal },
	): AsyncIterable<BuildHistoryEvent>;
	/** The record of a build that has ended. */
	find(ref: string): BuildHistoryRecord | undefined;
	/** `StatusResponse` messages of a build that has ended. */
	readLog(record: BuildHistoryRecord, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>;
	/** Deletes what is too old and too much. */
	collect(): Promise<void>;
	/** No listener waits any longer once the builds that run have ended. */
	drain(): void;
}

export interface ActiveBuild {
	/**
	 * The build has ended. Its log has ended too; it is taken over. Never rejects. It need not be waited for: it begins when the client has got its
	 * answer, and whoever asks for the history waits for it.
	 */
	complete(end: BuildEnd): Promise<void>;
}

export interface BuildEnd {
	readonly error: SlipwayError | undefined;
	readonly log: BuildLog;
	/** Metadata of the result. */
	readonly metadata: ReadonlyMap<string, string>;
	/** What exporters made, by their number. */
	readonly results: ReadonlyMap<number, Descriptor>;
	/** Manifests and configs of the results. */
	readonly documents: ReadonlyMap<Digest, Uint8Array>;
}

export interface HistoryOptions {
	/** Default 48 hours. */
	readonly maxAgeMs?: number;
	/** Default 50. */
	readonly maxEntries?: number;
}

export const historyDefaults: Required<HistoryOptions> = { maxAgeMs: 48 * 3600 * 1000, maxEntries: 50 };

/** Media types of the history's blobs. The second is misspelt on the wire. */
export const historyMediaTypes = {
	log: "application/vnd.buildkit.status.v0",
	error: "application/vnd.googeapis.google.rpc.status+proto",
	trace: "application/vnd.buildkit.otlp.json.v0",
} as const;
