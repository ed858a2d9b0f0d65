import { SlipwayError } from "../errors/errors.ts";
import { PlainPrinter } from "./plain.ts";
import { discardProgress, type ProgressDisplay, type ProgressEvent, progressTime } from "./progress.ts";
import { formatSolveStatus } from "./raw-json.ts";
import { type DisplayEnv, type DisplaySettings, readDisplaySettings } from "./settings.ts";
import { Trace, writeErrorLogs } from "./trace.ts";
import { TtyScreen } from "./tty.ts";

/**
 * How a build is shown.
 *
 * - `plain`: lines for a log, in the order in which steps finish; every step has a number, `#4`.
 * - `tty`: a live list of steps that is redrawn in place.
 * - `rawjson`: one JSON object for each batch of events, as BuildKit's client writes `SolveStatus`.
 * - `quiet`: nothing.
 * - `auto`: `tty` on a terminal, else `plain`.
 *
 * What is drawn, and when, is BuildKit's `util/progress/progressui`.
 */
export type DisplayMode = "auto" | "plain" | "tty" | "quiet" | "rawjson";

/** Where the display goes; a Node stream fits. Sizes are in character cells, asked before each redraw. */
export interface DisplayOutput {
	write(text: string): unknown;
	readonly isTTY?: boolean | undefined;
	readonly columns?: number | undefined;
	readonly rows?: number | undefined;
}

/** Calls `tick` every `intervalMs`; `reset` starts the interval anew. Must not keep the process alive. */
export interface DisplayTicker {
	start(intervalMs: number, tick: () => void): { reset(): void; stop(): void };
}

export interface DisplayOptions {
	/** A `DisplayMode`, or what a user typed in its place; empty is `auto`. */
	readonly mode: string;
	readonly out: DisplayOutput;
	/** The environment variables that change the drawing; see settings.ts. Default: none is set. */
	readonly env?: DisplayEnv;
	/** Line `#0` of `plain`. */
	readonly description?: string;
	/** Right end of the first line of `tty`. */
	readonly consoleDescription?: string;
	/** First word of `tty`; default `Building`. */
	readonly phase?: string;
	/** Milliseconds since the epoch; default the real time. */
	readonly now?: () => number;
	readonly ticker?: DisplayTicker;
	/** Told what is wrong with a setting, which is then ignored. */
	readonly onWarning?: (message: string) => void;
}

/**
 * Makes a display. Events that are written in one go (without returning to the event loop) count as one batch, as one
 * message of a remote builder does: a redraw shows a batch whole.
 *
 * Throws `invalid-argument` for an unknown mode and `failed-precondition` for `tty` without a terminal.
 */
export function createDisplay(options: DisplayOptions): ProgressDisplay {
	const mode = resolveMode(options);
	if (mode === "quiet") {
		return { ...discardProgress, end: () => {} };
	}
	const settings = readDisplaySettings(options.env ?? {}, options.onWarning ?? (() => {}));
	return new BatchingDisplay(
		makeRenderer(mode, options, settings),
		options.ticker ?? realTicker,
		settings.tickMs,
	);
}

function resolveMode({ mode, out }: DisplayOptions): Exclude<DisplayMode, "auto"> {
	switch (mode) {
		case "":
		case "auto":
			return out.isTTY === true ? "tty" : "plain";
		case "tty":
			if (out.isTTY !== true) {
				throw new SlipwayError(
					"failed-precondition",
					"failed to get console: provided file is not a console",
				);
			}
			return mode;
		case "plain":
		case "rawjson":
		case "quiet":
			return mode;
		default:
			throw new SlipwayError("invalid-argument", `invalid progress mode ${mode}`);
	}
}

interface Renderer {
	update(batch: readonly ProgressEvent[]): void;
	/** Some time has passed without events. */
	refresh(): void;
	end(): void;
}

function makeRenderer(
	mode: "plain" | "tty" | "rawjson",
	options: DisplayOptions,
	settings: DisplaySettings,
): Renderer {
	const { out, now = progressTime } = options;
	switch (mode) {
		case "rawjson":
			return {
				update: (batch) => void out.write(`${formatSolveStatus(batch)}\n`),
				refresh: () => {},
				end: () => {},
			};
		case "plain": {
			const trace = new Trace(now, false);
			const printer = new PlainPrinter({
				trace,
				now,
				description: options.description ?? "",
				truncateNames: settings.truncateNames,
			});
			const print = (extra = ""): void => {
				const text = printer.print() + extra;
				if (text !== "") {
					out.write(text);
				}
			};
			return drawingRenderer(trace, now, settings.redrawMs, {
				draw: () => print(),
				end: () => {
					print();
					writeIfAny(out, writeErrorLogs(trace));
				},
			});
		}
		case "tty": {
			const trace = new Trace(now, true);
			const screen = new TtyScreen({
				trace,
				now,
				phase: options.phase || "Building",
				description: options.consoleDescription ?? "",
				settings,
			});
			const size = (): { width: number; height: number } =>
				out.columns && out.rows ? { width: out.columns, height: out.rows } : { width: 80, height: 10 };
			return drawingRenderer(trace, now, settings.redrawMs, {
				draw: () => void out.write(screen.draw({ ...size(), isLast: false })),
				end: () => {
					out.write(screen.draw({ ...size(), isLast: true }));
					writeIfAny(out, writeErrorLogs(trace));
				},
			});
		}
	}
}

function writeIfAny(out: DisplayOutput, text: string): void {
	if (text !== "") {
		out.write(text);
	}
}

/** Takes every batch into the trace at once, and draws it if the last drawing is long enough ago. */
function drawingRenderer(
	trace: Trace,
	now: () => number,
	redrawMs: number,
	{ draw, end }: { draw(): void; end(): void },
): Renderer {
	let drawnAt = Number.NEGATIVE_INFINITY;
	return {
		update: (batch) => {
			trace.update(batch);
			const time = now();
			if (time - drawnAt >= redrawMs) {
				drawnAt = time;
				draw();
			}
		},
		refresh: draw,
		end,
	};
}

class BatchingDisplay implements ProgressDisplay {
	readonly #renderer: Renderer;
	readonly #timer: { reset(): void; stop(): void };
	#batch: ProgressEvent[] = [];
	#hasEnded = false;

	constructor(renderer: Renderer, ticker: DisplayTicker, tickMs: number) {
		this.#renderer = renderer;
		this.#timer = ticker.start(tickMs, () => renderer.refresh());
	}

	write(event: ProgressEvent): void {
		if (this.#hasEnded) {
			return;
		}
		if (this.#batch.push(event) === 1) {
			queueMicrotask(() => this.#flush());
		}
	}

	end(): void {
		if (!this.#hasEnded) {
			this.#flush();
			this.#hasEnded = true;
			this.#timer.stop();
			this.#renderer.end();
		}
	}

	#flush(): void {
		const batch = this.#batch;
		if (batch.length > 0) {
			this.#batch = [];
			this.#renderer.update(batch);
			this.#timer.reset();
		}
	}
}

const realTicker: DisplayTicker = {
	start(intervalMs, tick) {
		const timer = setInterval(tick, intervalMs).unref();
		return { reset: () => void timer.refresh(), stop: () => clearInterval(timer) };
	},
};
