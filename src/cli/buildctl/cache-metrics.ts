import { closeSync, openSync, writeSync } from "node:fs";
import { wrap } from "../../errors/errors.ts";
import type { ProgressEvent, ProgressSink } from "../../progress/progress.ts";
import type { Terminal } from "../terminal.ts";

/** `--debug-json-cache-metrics`: how much of a build came from the cache, with a line for each step that did not. */
export interface CacheMetrics extends ProgressSink, Disposable {
	/** Writes the metrics; to be called when nothing else is printed any more. */
	finish(): void;
}

interface Step {
	readonly name: string;
	cached: boolean;
	completed: boolean;
}

/** `where` is `stdout`, `stderr` or a file, which is written anew. Throws if it cannot be. */
export function openCacheMetrics(where: string, path: string, terminal: Terminal): CacheMetrics {
	const startedMs = performance.now();
	const steps = new Map<string, Step>();
	const file = where === "stdout" || where === "stderr" ? undefined : openFile(path);
	return {
		write(event: ProgressEvent) {
			if (event.kind !== "vertex") {
				return;
			}
			const { digest, name, cached, completed } = event.vertex;
			const step = steps.get(digest) ?? { name, cached: false, completed: false };
			step.cached ||= cached;
			step.completed ||= completed !== undefined;
			steps.set(digest, step);
		},
		finish() {
			const text = metricsText([...steps.values()], Math.trunc(performance.now() - startedMs));
			if (file === undefined) {
				(where === "stdout" ? terminal.stdout : terminal.stderr).write(text);
			} else {
				writeSync(file, text);
			}
		},
		[Symbol.dispose]() {
			if (file !== undefined) {
				closeSync(file);
			}
		},
	};
}

function openFile(path: string): number {
	try {
		return openSync(path, "w", 0o600);
	} catch (thrown) {
		throw wrap(thrown, `could not write ${path}`);
	}
}

const notOfTheUser = /^(?:\[internal\]|\[auth\]|importing cache|exporting )/;
const base = /^\[.*\] FROM/;

function metricsText(all: readonly Step[], durationMs: number): string {
	const user = all.filter(({ name }) => !notOfTheUser.test(name));
	const from = user.filter(({ name }) => base.test(name));
	const misses = user.filter(({ name, cached }) => !cached && !base.test(name));
	const metrics = {
		total: all.length,
		completed: all.filter(({ completed }) => completed).length,
		user_total: user.length,
		user_cached: user.filter(({ cached }) => cached).length,
		user_completed: user.filter(({ completed }) => completed).length,
		user_cacheable: user.length - from.length,
		from: from.length,
		miss: misses.length,
		client_duration_ms: durationMs,
	};
	return [...misses.map(({ name }) => `cache miss: ${name}\n`), `${JSON.stringify(metrics)}\n`].join("");
}
