import type { SourceFile, SourceRange } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";

/**
 * What a build reports while it runs, as BuildKit's `StatusResponse` has it. A vertex record is repeated whenever its
 * state changes and replaces the earlier one of the same digest. Times are milliseconds since the epoch, with fractions.
 */
export type ProgressEvent =
	| { readonly kind: "vertex"; readonly vertex: VertexRecord }
	| { readonly kind: "status"; readonly status: StatusRecord }
	| { readonly kind: "log"; readonly log: LogRecord }
	| { readonly kind: "warning"; readonly warning: WarningRecord };

export interface VertexRecord {
	readonly digest: Digest;
	readonly inputs: readonly Digest[];
	readonly name: string;
	readonly cached: boolean;
	readonly started?: number;
	readonly completed?: number;
	/** One sentence; ends with `context canceled` for a step that was cancelled. */
	readonly error?: string;
	readonly progressGroup?: ProgressGroup;
}

/** Several vertices that are shown as one. A weak member never starts the group by itself. */
export interface ProgressGroup {
	readonly id: string;
	readonly name: string;
	readonly weak: boolean;
}

/** A part of a vertex: a download, an export phase. `current` and `total` are 0 where nothing is counted. */
export interface StatusRecord {
	readonly vertex: Digest;
	readonly id: string;
	readonly name: string;
	readonly current: number;
	readonly total: number;
	readonly timestamp: number;
	readonly started?: number;
	readonly completed?: number;
}

export interface LogRecord {
	readonly vertex: Digest;
	/** 1 is stdout, 2 is stderr. */
	readonly stream: 1 | 2;
	readonly data: Uint8Array;
	readonly timestamp: number;
}

export interface WarningRecord {
	readonly vertex: Digest;
	readonly level: number;
	readonly short: string;
	readonly detail: readonly string[];
	readonly url?: string;
	readonly source?: SourceFile;
	readonly ranges?: readonly SourceRange[];
}

/** Where events go. Never throws and never waits: a slow consumer buffers on its own side. */
export interface ProgressSink {
	write(event: ProgressEvent): void;
}

export const discardProgress: ProgressSink = { write: () => {} };

/** Draws events for a person or a machine until `end`, which writes what is left (summary of errors and warnings). */
export interface ProgressDisplay extends ProgressSink {
	end(): void;
}

/** Now, in the unit of all progress records. */
export function progressTime(): number {
	return performance.timeOrigin + performance.now();
}
