import { type Interval, mergeIntervals, secondsOf } from "./intervals.ts";
import { LogBox } from "./log-box.ts";
import { fixed, formatAmount } from "./number-text.ts";
import { type DisplaySettings, minLogLines } from "./settings.ts";
import { padToWidth, textWidth, truncateToWidth } from "./text-width.ts";
import { isCancellation, isCompleted, type ShownVertex, type Trace } from "./trace.ts";

const reset = "\x1b[0m";
const faint = "\x1b[2m";
const hideCursor = "\x1b[?25l";
const showCursor = "\x1b[?25h";
const firstColumn = "\x1b[0G";
/** Cells that the frame of a log line takes. */
const logMargin = 10;

export interface TtyOptions {
	readonly trace: Trace;
	readonly now: () => number;
	readonly phase: string;
	readonly description: string;
	readonly settings: DisplaySettings;
}

export interface TtyFrame {
	readonly width: number;
	readonly height: number;
	/** The last frame shows all rows, also those that do not fit. */
	readonly isLast: boolean;
}

/** One line of the list. */
interface Row {
	readonly name: string;
	readonly amount: string;
	readonly intervals: readonly Interval[];
	readonly isCompleted: boolean;
	readonly color: string | undefined;
	/** The box of the vertex whose main row this is. */
	readonly box: VertexBox | undefined;
}

interface VertexBox {
	readonly vertex: ShownVertex;
	readonly log: LogBox;
	/** How often it was shown; what is shown stays in its place. */
	timesShown: number;
}

/** Draws a trace as a list on a terminal, over the list that was drawn before. */
export class TtyScreen {
	readonly #options: TtyOptions;
	readonly #boxes = new Map<ShownVertex, VertexBox>();
	readonly #rows = new Map<ShownVertex, { readonly version: number; readonly rows: readonly Row[] }>();
	#drawnLines = 0;
	#isFirst = true;
	#logHeight: number;
	#logWidth = 80 - logMargin;

	constructor(options: TtyOptions) {
		this.#options = options;
		this.#logHeight = options.settings.logLines;
	}

	/** The text, escape sequences and all, that puts the present state on the screen. */
	draw({ width, height, isLast }: TtyFrame): string {
		this.#logHeight = Math.max(
			minLogLines,
			Math.min(this.#options.settings.logLines, height - minLogLines - 1),
		);
		this.#logWidth = width - logMargin;
		const allRows = this.#options.trace.started.flatMap((vertex) => this.#rowsOf(vertex));
		const { shownBoxes, hiddenLines } = this.#chooseBoxes(allRows, height);
		const rows = isLast ? allRows : fitRows(allRows, height - 2 - hiddenLines);

		const now = this.#options.now();
		const lines = rows.flatMap((row) => this.#drawRow(row, shownBoxes, width, now));
		const parts = [this.#cursorToTop(), hideCursor, `${this.#heading(width, isLast, now)}\n`, ...lines];
		const leftover = this.#drawnLines - lines.length;
		if (leftover > 0) {
			parts.push(`${" ".repeat(width)}\n`.repeat(leftover), `\x1b[${leftover}A${firstColumn}`);
		}
		this.#drawnLines = lines.length;
		return parts.join("") + showCursor;
	}

	/** The cursor stands under the last line; before the first frame it is where the heading goes. */
	#cursorToTop(): string {
		const up = "\x1b[1A".repeat(this.#drawnLines + 1);
		const down = this.#isFirst ? "\x1b[1B" : "";
		this.#isFirst = false;
		return up + down + firstColumn;
	}

	#heading(width: number, isLast: boolean, now: number): string {
		const { trace, phase, description } = this.#options;
		const vertices = [...trace.all].filter(({ isHidden }) => !isHidden);
		const completed = vertices.filter(isCompleted).length;
		const start = trace.startedAt === undefined ? now : trace.startedAt + trace.clockOffset;
		const state = isLast && completed > 0 && completed === vertices.length ? "FINISHED" : "";
		const left = `[+] ${phase} ${fixed((now - start) / 1000, 1)}s (${completed}/${vertices.length}) ${state}`;
		const line = align(left, description, description === "" ? width : width - 1);
		return truncateToWidth(line, width);
	}

	/** Builder's times become ours once; rows of a vertex are kept until it changes. */
	#rowsOf(vertex: ShownVertex): readonly Row[] {
		const known = this.#rows.get(vertex);
		if (known !== undefined && known.version === vertex.version) {
			return known.rows;
		}
		const { colors } = this.#options.settings;
		const isCanceled = isCancellation(vertex.error);
		const hasFailed = vertex.error !== "" && !isCanceled;
		const mark = isCanceled ? "CANCELED " : hasFailed ? "ERROR " : "";
		const rows: Row[] = [
			{
				name: (vertex.cached ? "CACHED " : "") + mark + vertex.name,
				amount: "",
				intervals: mergeIntervals(vertex.intervals.values().map((interval) => this.#shift(interval))),
				isCompleted: vertex.intervals.values().every(({ stop }) => stop !== undefined),
				color: isCanceled ? colors.cancel : hasFailed ? colors.error : colors.run,
				box: this.#boxOf(vertex),
			},
		];
		for (const id of vertex.statuses) {
			const status = vertex.statusById.get(id);
			if (status?.started !== undefined) {
				rows.push({
					name: `=> ${id}`,
					amount: formatAmount(status),
					intervals: [this.#shift({ start: status.started, stop: status.completed })],
					isCompleted: status.completed !== undefined,
					color: colors.run,
					box: undefined,
				});
			}
		}
		const last = vertex.merged.at(-1);
		for (const { short } of last === undefined ? [] : vertex.warnings) {
			rows.push({
				name: `WARN: ${short}`,
				amount: "",
				intervals: last === undefined ? [] : [this.#shift(last)],
				isCompleted: false,
				color: undefined,
				box: undefined,
			});
		}
		this.#rows.set(vertex, { version: vertex.version, rows });
		return rows;
	}

	#shift({ start, stop }: Interval): Interval {
		const { clockOffset } = this.#options.trace;
		return { start: start + clockOffset, stop: stop === undefined ? undefined : stop + clockOffset };
	}

	/** Only a running step that writes has one, so that thousands of steps cost nothing. */
	#boxOf(vertex: ShownVertex): VertexBox | undefined {
		if (vertex.logBytes === 0 || isCompleted(vertex)) {
			this.#boxes.delete(vertex);
			vertex.onLogText = undefined;
			return undefined;
		}
		let box = this.#boxes.get(vertex);
		if (box === undefined) {
			const log = new LogBox(this.#logHeight, this.#logWidth);
			box = { vertex, log, timesShown: 0 };
			this.#boxes.set(vertex, box);
			// Without the time that is before each line of the log.
			const lines = vertex.log.untaken
				.slice(-this.#logHeight)
				.map((line) => line.slice(line.indexOf(" ") + 1));
			log.write(lines.join("\n") + (vertex.log.isPartial ? "" : "\n"));
			vertex.onLogText = (text) => log.write(text);
		}
		return box;
	}

	/** The running steps that write most have a box, as far as the height allows. */
	#chooseBoxes(
		rows: readonly Row[],
		height: number,
	): { readonly shownBoxes: ReadonlySet<VertexBox>; readonly hiddenLines: number } {
		const open = rows.filter(({ isCompleted: isDone }) => !isDone);
		const weight = ({ vertex, timesShown }: VertexBox): number => vertex.logBytes + timesShown * 50;
		const candidates = open
			.flatMap(({ box }) => (box === undefined ? [] : [box]))
			.sort((a, b) => weight(b) - weight(a));
		const needed = this.#logHeight + 3;
		const count = Math.max(Math.ceil((height - 2 - open.length) / needed) - 1, 0);
		const shown = candidates.slice(0, count);
		for (const { log } of shown) {
			log.resize(this.#logHeight, this.#logWidth);
		}
		return {
			shownBoxes: new Set(shown),
			hiddenLines: shown.reduce((sum, { log }) => sum + log.lines.length, 0),
		};
	}

	#drawRow(row: Row, shownBoxes: ReadonlySet<VertexBox>, width: number, now: number): readonly string[] {
		if (row.intervals.length === 0) {
			return [];
		}
		const seconds = secondsOf(row.intervals, now);
		// The line break counts into the width: the last column stays free.
		const timer = ` ${fixed(seconds < 0.05 ? 0 : seconds, 1).padStart(3)}s\n`;
		const prefix = " => ";
		let left = width - prefix.length - timer.length - 1;
		let amount = "";
		if (row.amount !== "" && left + row.amount.length > 20) {
			amount = ` ${row.amount}`;
			left -= amount.length;
		}
		if (left < 12) {
			return [];
		}
		const name = truncateToWidth(row.name.replace(/[\0-\x1f\x7f]/g, " "), left);
		const line = align(prefix + name + amount, timer, width);
		const lines = [row.isCompleted && row.color !== undefined ? row.color + line + reset : line];
		if (row.box !== undefined && shownBoxes.has(row.box)) {
			row.box.timesShown++;
			lines.push(...row.box.log.lines.map((text) => `${faint} => => # ${text}\n${reset}`));
		}
		return lines;
	}
}

/** `left` and `right` at the two ends of so many cells. */
function align(left: string, right: string, width: number): string {
	return `${padToWidth(left, width - textWidth(right.replace("\n", " ")) - 1)} ${right}`;
}

/** The last rows that fit, where completed ones make room for running ones that would be cut off. */
function fitRows(rows: readonly Row[], limit: number): readonly Row[] {
	if (limit < 0) {
		return [];
	}
	if (rows.length <= limit) {
		return rows;
	}
	const cut = rows.length - limit;
	const running = rows.slice(0, cut).filter(({ isCompleted: isDone }) => !isDone);
	const kept = rows.slice(cut).filter((row, i) => !row.isCompleted || i >= running.length);
	const room = limit - kept.length;
	return [...running.slice(running.length - room), ...kept];
}
