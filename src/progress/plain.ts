import { secondsOf } from "./intervals.ts";
import { fixed, formatAmount } from "./number-text.ts";
import type { StatusRecord } from "./progress.ts";
import { isCancellation, isCompleted, isStarted, type ShownVertex, type Trace } from "./trace.ts";

/** A step stays in the foreground this long, more if it has more to say than others. */
const foregroundMs = 5000;
/** A step that has something to say comes to the foreground after this time at the latest. */
const maxDelayMs = 10_000;
/** A status is printed again after this time, or this share of progress. */
const statusIntervalMs = 5000;
const statusShare = 0.05;
const maxNameBytes = 72;

export interface PlainOptions {
	readonly trace: Trace;
	readonly now: () => number;
	readonly description: string;
	readonly truncateNames: boolean;
}

/**
 * Draws a trace as lines. One step at a time is in the foreground; when another takes its place, `#N ...` marks that
 * it will go on.
 */
export class PlainPrinter {
	readonly #options: PlainOptions;
	/** By status id alone, so that phases of the same name in several steps do not flood. */
	readonly #printedStatuses = new Map<string, { readonly current: number; readonly timestamp: number }>();
	#foreground: ShownVertex | undefined;
	#lastIndex = 0;
	#isFirst = true;
	#parts: string[] = [];

	constructor(options: PlainOptions) {
		this.#options = options;
	}

	/** The text that the changes since the last call make. */
	print(): string {
		this.#parts = [];
		this.#printAll();
		return this.#parts.join("");
	}

	#printAll(): void {
		const { trace } = this.#options;
		const visible = [...trace.updated].filter((vertex) => !vertex.isHidden);
		const completed = visible.filter(isCompleted);
		const active = new Set(visible.filter((vertex) => !isCompleted(vertex)));
		const current = this.#foreground;

		const isCurrentDone = current !== undefined && completed.includes(current);
		if (isCurrentDone) {
			this.#printVertex(current);
		}
		completed.sort((a, b) => (a.merged.at(-1)?.stop ?? 0) - (b.merged.at(-1)?.stop ?? 0));
		for (const vertex of completed) {
			if (vertex !== current) {
				this.#printVertex(vertex);
			}
		}

		if (active.size === 0) {
			if (current === undefined || !isStarted(current) || isCompleted(current)) {
				const open = trace.all
					.values()
					.find((each) => isStarted(each) && !isCompleted(each) && !each.isHidden);
				if (open !== undefined) {
					this.#printVertex(open);
				}
			}
			return;
		}
		if (current !== undefined && active.has(current)) {
			this.#printVertex(current);
		}
		this.#chooseForeground(active, current, isCurrentDone);
	}

	/** Brings the step that has most to say per second to the front, if it is its turn. */
	#chooseForeground(
		active: Set<ShownVertex>,
		current: ShownVertex | undefined,
		isCurrentDone: boolean,
	): void {
		if (current !== undefined) {
			active.add(current);
		}
		const now = this.#options.now();
		const candidates = [...active]
			.filter((vertex) => vertex.changedSince !== 0)
			.map((vertex) => {
				const waitedMs = now - vertex.changedSince;
				const speed = vertex.changes / (waitedMs / 1000);
				return { vertex, waitedMs, speed, isOverdue: waitedMs > maxDelayMs && vertex !== current };
			});
		let next = candidates[0];
		for (const candidate of candidates.slice(1)) {
			if (next === undefined || candidate.isOverdue || next.speed < candidate.speed) {
				next = candidate;
			}
		}
		if (next === undefined) {
			return;
		}
		if (isCurrentDone || current === undefined) {
			this.#printVertex(next.vertex);
			return;
		}
		const overdue = candidates.find(({ isOverdue }) => isOverdue);
		if (overdue !== undefined) {
			this.#printVertex(overdue.vertex);
			return;
		}
		const own = candidates.find(({ vertex }) => vertex === current);
		const total = candidates.reduce((sum, { speed }) => sum + speed, 0);
		if (own !== undefined && foregroundMs / (1 - own.speed / total) < own.waitedMs) {
			this.#printVertex(next.vertex);
		}
	}

	#printVertex(vertex: ShownVertex): void {
		if (vertex.index === 0) {
			vertex.index = ++this.#lastIndex;
		}
		if (vertex !== this.#foreground) {
			this.#printHeading(vertex);
		}
		const hasOpenStatus = this.#printStatuses(vertex);
		for (const { short } of vertex.warnings.slice(vertex.printedWarnings)) {
			this.#line(vertex, `WARN: ${short}`);
		}
		vertex.printedWarnings = vertex.warnings.length;
		this.#parts.push(vertex.log.take(`#${vertex.index} `));

		this.#foreground = vertex;
		if (isCompleted(vertex) && !hasOpenStatus) {
			this.#foreground = undefined;
			vertex.changes = 0;
			this.#endPartialLine(vertex);
			vertex.log.finishLine();
			this.#line(vertex, this.#outcome(vertex));
		}
		this.#options.trace.updated.delete(vertex);
	}

	#printHeading(vertex: ShownVertex): void {
		const before = this.#foreground;
		if (before !== undefined) {
			this.#endPartialLine(before);
			before.log.restartLine();
			before.changes = 0;
			this.#line(before, "...");
		}
		if (!this.#isFirst) {
			this.#parts.push("\n");
		} else if (this.#options.description !== "") {
			this.#parts.push(`#0 ${this.#options.description}\n\n`);
		}
		this.#isFirst = false;
		this.#line(vertex, this.#options.truncateNames ? truncateBytes(vertex.name, maxNameBytes) : vertex.name);
	}

	#endPartialLine(vertex: ShownVertex): void {
		if (vertex.log.isPartial) {
			this.#parts.push("\n");
		}
	}

	/** Returns whether a status that was printed is still open. */
	#printStatuses(vertex: ShownVertex): boolean {
		let hasOpen = false;
		for (const id of vertex.statuses) {
			const status = vertex.changedStatuses.has(id) ? vertex.statusById.get(id) : undefined;
			if (status === undefined || !this.#isWorthPrinting(status)) {
				continue;
			}
			this.#printedStatuses.set(id, { current: status.current, timestamp: status.timestamp });
			const { started, completed, timestamp } = status;
			const seconds = started === undefined ? 0 : ((completed ?? timestamp) - started) / 1000;
			const time = seconds > 0.01 ? ` ${fixed(seconds, 1)}s` : "";
			const amount = formatAmount(status);
			this.#line(
				vertex,
				`${id}${amount === "" ? "" : ` ${amount}`}${time}${completed === undefined ? "" : " done"}`,
			);
			hasOpen ||= completed === undefined;
		}
		vertex.changedStatuses.clear();
		return hasOpen;
	}

	#isWorthPrinting({ id, current, total, timestamp, completed }: StatusRecord): boolean {
		const last = this.#printedStatuses.get(id);
		if (last === undefined || completed !== undefined) {
			return true;
		}
		const share = total > 0 ? (current - last.current) / total : 0;
		return share >= statusShare || timestamp - last.timestamp >= statusIntervalMs;
	}

	#outcome({ error, cached, merged }: ShownVertex): string {
		if (error !== "") {
			return isCancellation(error) ? "CANCELED" : `ERROR: ${error}`;
		}
		return cached ? "CACHED" : `DONE ${fixed(secondsOf(merged, this.#options.now()), 1)}s`;
	}

	#line({ index }: ShownVertex, text: string): void {
		this.#parts.push(`#${index} ${text}\n`);
	}
}

function truncateBytes(text: string, maxBytes: number): string {
	const bytes = Buffer.from(text);
	if (bytes.length <= maxBytes) {
		return text;
	}
	let end = maxBytes;
	// Not within a character: continuation bytes are 10xxxxxx.
	while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) {
		end--;
	}
	return `${bytes.toString("utf8", 0, end)}...`;
}
