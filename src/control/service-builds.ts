import { canceled, SlipwayError } from "../errors/errors.ts";
import { BuildLog, type BuildLogOptions } from "./service-log.ts";

/** The builds of this process by their ref: those that run, and for a while those that ended. */
export interface Builds {
	/** Throws for a ref that is taken. Disposing it ends the build's log. */
	open(ref: string, options: BuildLogOptions): OpenBuild;
	/** Waits for it, as a client asks for the status of what it is only about to begin. Throws `not-found`. */
	find(
		ref: string,
		options: { readonly signal: AbortSignal; readonly timeoutMs?: number },
	): Promise<BuildLog>;
	readonly running: number;
	onChange(listener: () => void): void;
	cancelAll(reason: string): void;
}

export interface OpenBuild extends Disposable {
	readonly log: BuildLog;
	/** Aborted when the builder stops. */
	readonly signal: AbortSignal;
}

/** BuildKit's: a client may be late by that much at both ends. */
const waitMs = 6000;
const keepMs = 10_000;

interface Entry {
	readonly log: BuildLog;
	readonly controller: AbortController;
	ended: boolean;
}

export function createBuilds(): Builds {
	const builds = new Map<string, Entry>();
	const waiting = new Set<() => void>();
	const listeners = new Set<() => void>();
	let running = 0;
	const changed = (by: 1 | -1): void => {
		running += by;
		for (const listener of listeners) {
			listener();
		}
	};
	return {
		get running() {
			return running;
		},
		open(ref, options) {
			if (builds.has(ref)) {
				throw new SlipwayError("unknown", `job ID ${ref} exists`);
			}
			const entry: Entry = { log: new BuildLog(options), controller: new AbortController(), ended: false };
			builds.set(ref, entry);
			changed(1);
			for (const wake of [...waiting]) {
				wake();
			}
			return {
				log: entry.log,
				signal: entry.controller.signal,
				[Symbol.dispose]() {
					if (entry.ended) {
						return;
					}
					entry.ended = true;
					entry.log.end();
					setTimeout(() => {
						builds.delete(ref);
						entry.log[Symbol.dispose]();
					}, keepMs).unref();
					changed(-1);
				},
			};
		},
		async find(ref, { signal, timeoutMs = waitMs }) {
			const deadline = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
			for (;;) {
				const entry = builds.get(ref);
				if (entry !== undefined) {
					return entry.log;
				}
				if (signal.aborted) {
					throw canceled(signal.reason);
				}
				if (deadline.aborted) {
					throw new SlipwayError("not-found", `no such job ${ref}`);
				}
				await new Promise<void>((resolve) => {
					const wake = (): void => {
						waiting.delete(wake);
						deadline.removeEventListener("abort", wake);
						resolve();
					};
					waiting.add(wake);
					deadline.addEventListener("abort", wake);
				});
			}
		},
		onChange: (listener) => void listeners.add(listener),
		cancelAll(reason) {
			for (const { controller, ended } of builds.values()) {
				if (!ended) {
					controller.abort(canceled(new SlipwayError("unavailable", reason)));
				}
			}
		},
	};
}
