import { type Interval, mergeIntervals } from "./intervals.ts";
import { fixed } from "./number-text.ts";
import type { LogRecord, ProgressEvent, StatusRecord, VertexRecord, WarningRecord } from "./progress.ts";
import { VertexLog } from "./vertex-log.ts";

/** What is known of a step that is shown: a vertex, or the vertices of a progress group in one. */
export interface ShownVertex {
	name: string;
	cached: boolean;
	error: string;
	/** Number in plain output; 0 until it is printed first. */
	index: number;
	/** By start time, so that a repeated record replaces the earlier one of the same run. */
	readonly intervals: Map<number, Interval>;
	merged: readonly Interval[];
	/** The last record that had started, to see changes. */
	previous: VertexRecord | undefined;
	/** A group none of whose members but weak ones has started. */
	isHidden: boolean;
	/** All by id; those that have started are also in `statuses`, in that order. */
	readonly statusById: Map<string, StatusRecord>;
	readonly statuses: string[];
	readonly changedStatuses: Set<string>;
	readonly warnings: WarningRecord[];
	printedWarnings: number;
	readonly log: VertexLog;
	/** Bytes of log that came, text for a terminal. */
	logBytes: number;
	onLogText: ((text: string) => void) | undefined;
	/** Changes since the vertex was last in the foreground of plain output, and when the first of them came. */
	changes: number;
	changedSince: number;
	/** Grows with each change, for whoever caches what is drawn. */
	version: number;
}

interface Group {
	readonly shown: ShownVertex;
	readonly members: Map<string, VertexRecord>;
}

export function isStarted(vertex: ShownVertex): boolean {
	return vertex.merged.length > 0;
}

export function isCompleted(vertex: ShownVertex): boolean {
	return vertex.merged.at(-1)?.stop !== undefined;
}

/** The state of a build as its events tell it. */
export class Trace {
	readonly #now: () => number;
	readonly #keepsLogs: boolean;
	readonly #byDigest = new Map<string, ShownVertex>();
	readonly #groups = new Map<string, Group>();
	/** Vertices in the order in which they started. */
	readonly started: ShownVertex[] = [];
	/** Vertices that changed since they were last printed. */
	readonly updated: Set<ShownVertex> = new Set();
	/** When the first vertex of the build started, by the builder's clock. */
	startedAt: number | undefined;
	/** What to add to the builder's times to get ours; known when a vertex has started. */
	#clockOffset: number | undefined;

	/** `keepsLogs`: nobody takes the logs, and those of vertices that may still fail stay whole. */
	constructor(now: () => number, keepsLogs: boolean) {
		this.#now = now;
		this.#keepsLogs = keepsLogs;
	}

	/** All vertices and groups, hidden ones too, each once. */
	get all(): ReadonlySet<ShownVertex> {
		return new Set(this.#byDigest.values());
	}

	get clockOffset(): number {
		return this.#clockOffset ?? 0;
	}

	get keepsLogs(): boolean {
		return this.#keepsLogs;
	}

	update(batch: readonly ProgressEvent[]): void {
		const touchedGroups = new Set<Group>();
		for (const event of batch) {
			if (event.kind === "vertex") {
				this.startedAt ??= event.vertex.started;
				if (event.vertex.progressGroup === undefined) {
					this.#updateVertex(event.vertex);
				} else {
					touchedGroups.add(this.#updateMember(event.vertex, event.vertex.progressGroup));
				}
			}
		}
		for (const group of touchedGroups) {
			this.#updateGroup(group);
		}
		for (const event of batch) {
			if (event.kind === "status") {
				this.#updateStatus(event.status);
			}
		}
		for (const event of batch) {
			if (event.kind === "warning") {
				this.#addWarning(event.warning);
			}
		}
		for (const event of batch) {
			if (event.kind === "log") {
				this.#addLog(event.log);
			}
		}
	}

	#updateVertex(record: VertexRecord): void {
		let shown = this.#byDigest.get(record.digest);
		if (shown === undefined) {
			shown = newShownVertex(record.name);
			this.#byDigest.set(record.digest, shown);
		}
		const wasStarted = isStarted(shown);
		if (record.started !== undefined) {
			if (hasChanged(record, shown.previous)) {
				this.#markChanged(shown);
			}
			shown.previous = record;
			if (!wasStarted) {
				this.#syncClock(record.started);
				this.started.push(shown);
			}
			shown.intervals.set(record.started, { start: record.started, stop: record.completed });
			shown.merged = mergeIntervals(shown.intervals.values());
		}
		// A repeated record without times must not take back what is known.
		if (!wasStarted || record.started !== undefined) {
			shown.name = record.name;
			shown.cached = record.cached;
			shown.error = record.error ?? "";
		}
		shown.version++;
		if (this.#keepsLogs && isCompleted(shown) && shown.error === "") {
			shown.log.clear();
		}
	}

	#updateMember(record: VertexRecord, { id, name }: { id: string; name: string }): Group {
		let group = this.#groups.get(id);
		if (group === undefined) {
			group = { shown: newShownVertex(name), members: new Map() };
			group.shown.isHidden = true;
			this.#groups.set(id, group);
		}
		group.members.set(record.digest, record);
		this.#byDigest.set(record.digest, group.shown);
		return group;
	}

	/** A group has run while a member ran, is cached if all are, and has the error of the first that failed. */
	#updateGroup({ shown, members }: Group): void {
		const wasStarted = isStarted(shown);
		const wasHidden = shown.isHidden;
		let hasChanges = false;
		let isCached = true;
		let error = shown.error;
		for (const member of members.values()) {
			if (member.started !== undefined) {
				const before = shown.intervals.get(member.started);
				hasChanges ||= before === undefined || before.stop !== member.completed;
				shown.intervals.set(member.started, { start: member.started, stop: member.completed });
				shown.isHidden &&= member.progressGroup?.weak ?? false;
			}
			isCached &&= member.cached;
			// A failed group comes to light with the next news of it: a weak member that fails alone says nothing.
			shown.isHidden &&= error === "";
			error ||= member.error ?? "";
		}
		shown.merged = mergeIntervals(shown.intervals.values());
		hasChanges ||= shown.cached !== isCached || shown.error !== error || wasHidden !== shown.isHidden;
		shown.cached = isCached;
		shown.error = error;
		const first = shown.merged[0];
		if (!wasStarted && first !== undefined) {
			this.#syncClock(first.start);
		}
		if (shown.isHidden) {
			return;
		}
		if (wasHidden) {
			this.started.push(shown);
		}
		if (hasChanges) {
			this.#markChanged(shown);
		}
		shown.version++;
	}

	#updateStatus(status: StatusRecord): void {
		const shown = this.#byDigest.get(status.vertex);
		if (shown === undefined) {
			return;
		}
		const before = shown.statusById.get(status.id);
		if (status.started !== undefined && before?.started === undefined) {
			shown.statuses.push(status.id);
		}
		shown.statusById.set(status.id, status);
		shown.changedStatuses.add(status.id);
		this.#markChanged(shown);
	}

	#addWarning(warning: WarningRecord): void {
		const shown = this.#byDigest.get(warning.vertex);
		if (shown !== undefined) {
			shown.warnings.push(warning);
			this.#count(shown);
		}
	}

	#addLog({ vertex, data, timestamp }: LogRecord): void {
		const shown = this.#byDigest.get(vertex);
		if (shown === undefined || data.length === 0) {
			return;
		}
		const start = shown.merged.at(-1)?.start;
		const seconds = start === undefined ? 0 : (timestamp - start) / 1000;
		const digits = seconds < 10 ? 3 : seconds < 100 ? 2 : 1;
		const text = shown.log.append(data, `${fixed(seconds, digits)} `);
		shown.logBytes += data.length;
		shown.onLogText?.(text);
		this.#markChanged(shown);
	}

	#syncClock(started: number): void {
		this.#clockOffset ??= this.#now() - started;
	}

	#markChanged(shown: ShownVertex): void {
		this.updated.add(shown);
		this.#count(shown);
	}

	#count(shown: ShownVertex): void {
		if (shown.changes === 0) {
			shown.changedSince = this.#now();
		}
		shown.changes++;
		shown.version++;
	}
}

/** A record that says completed is always a change: a step that is cached again is told again. */
function hasChanged(record: VertexRecord, previous: VertexRecord | undefined): boolean {
	return (
		previous === undefined ||
		record.name !== previous.name ||
		record.started !== previous.started ||
		record.completed !== undefined ||
		record.cached !== previous.cached ||
		(record.error ?? "") !== (previous.error ?? "")
	);
}

function newShownVertex(name: string): ShownVertex {
	return {
		name,
		cached: false,
		error: "",
		index: 0,
		intervals: new Map(),
		merged: [],
		previous: undefined,
		isHidden: false,
		statusById: new Map(),
		statuses: [],
		changedStatuses: new Set(),
		warnings: [],
		printedWarnings: 0,
		log: new VertexLog(),
		logBytes: 0,
		onLogText: undefined,
		changes: 0,
		changedSince: 0,
		version: 0,
	};
}

/** True for the error of a step that did not fail but was stopped. */
export function isCancellation(error: string): boolean {
	return error.endsWith("context canceled");
}

/** The logs of failed steps, once more, at the end of the build. */
export function writeErrorLogs(trace: Trace): string {
	return trace.started
		.filter(({ error }) => error !== "" && !isCancellation(error))
		.map(({ name, log }) => {
			const lines = trace.keepsLogs ? log.untaken : log.tail;
			return `------\n > ${name}:\n${lines.map((line) => `${line}\n`).join("")}------\n`;
		})
		.join("");
}
