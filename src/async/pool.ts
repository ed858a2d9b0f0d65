import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { type FromThread, fromPlainError, type MessagePortOrBuffer, type ToThread } from "./job.ts";

export interface RunOptions {
	/** On abort the caller's promise rejects at once; the thread takes new work only after the job has ended. */
	readonly signal: AbortSignal;
	/** Moved to the thread instead of copied. */
	readonly transfer?: readonly MessagePortOrBuffer[];
	/** What the job posts, in order, all of it before the promise resolves. */
	readonly onMessage?: (message: unknown) => void;
	/** Jobs with the same one run on the same thread if that is idle when they can start: what one keeps there, the next finds. */
	readonly companion?: object;
}

export interface ThreadPoolOptions {
	/** Threads at most. Default: the number of processors, 2 to 8. */
	readonly size?: number;
	/** Threads end when the pool had nothing to do for this long; default never. */
	readonly idleMs?: number;
	/** Called before each thread is started, which inherits the namespaces of the thread that starts it. */
	readonly beforeStart?: () => void;
}

/**
 * Worker threads that run jobs by name, `archive/extract` for `src/archive/extract.job.ts`. Threads start when there is
 * work for them and stay, for ever or for a while; an idle thread does not keep the process alive. Work waits in order of arrival. A job that
 * waits for another job of the same pool can wait for ever: give such work a pool of its own.
 */
export interface ThreadPool extends AsyncDisposable {
	readonly size: number;
	/** Fails with the job's error; `canceled` on abort; `unavailable` if the pool is closed or the thread died. */
	run<I, O>(job: string, input: I, options: RunOptions): Promise<O>;
	/** Starts threads ahead of the first job; a thread takes some 20 ms. */
	warm(threads?: number): void;
	/** Aborts what runs, fails what waits, and ends all threads. */
	[Symbol.asyncDispose](): Promise<void>;
}

export function createThreadPool(options: ThreadPoolOptions = {}): ThreadPool {
	return new Pool({ ...options, size: options.size ?? Math.min(8, Math.max(2, availableParallelism())) });
}

/** One call of `run`, waiting or running. */
interface Task {
	readonly job: string;
	readonly input: unknown;
	readonly options: RunOptions;
	/** Shared with the thread: 1 when aborted. */
	readonly flag: Int32Array<SharedArrayBuffer>;
	/** Idempotent, as only the first call counts. */
	settle(outcome: { readonly output: unknown } | { readonly error: SlipwayError }): void;
}

interface Thread {
	readonly worker: Worker;
	task: Task | undefined;
	/** Of its last job, as long as whoever gave the job may come again. */
	companion: WeakRef<object> | undefined;
}

/** Sources run as they are; the bundle keeps shared code in `chunks/` and entry points in their rooms, so one level up is right for both. */
const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));

class Pool implements ThreadPool {
	readonly size: number;
	readonly #threads = new Set<Thread>();
	readonly #waiting: Task[] = [];
	#closed = false;
	#restTimer: NodeJS.Timeout | undefined;

	readonly #beforeStart: (() => void) | undefined;
	readonly #idleMs: number | undefined;

	constructor({ size, beforeStart, idleMs }: ThreadPoolOptions & { readonly size: number }) {
		if (!Number.isInteger(size) || size < 1) {
			throw new SlipwayError("invalid-argument", `invalid size of thread pool ${size}`);
		}
		this.size = size;
		this.#beforeStart = beforeStart;
		this.#idleMs = idleMs;
	}

	run<I, O>(job: string, input: I, options: RunOptions): Promise<O> {
		if (!/^[a-z-]+\/[a-z-]+$/.test(job)) {
			return Promise.reject(new SlipwayError("invalid-argument", `invalid job name ${JSON.stringify(job)}`));
		}
		if (options.signal.aborted) {
			return Promise.reject(toError(options.signal.reason));
		}
		if (this.#closed) {
			return Promise.reject(poolClosed());
		}
		const { promise, resolve, reject } = Promise.withResolvers<O>();
		const onAbort = (): void => {
			Atomics.store(task.flag, 0, 1);
			const thread = [...this.#threads].find((each) => each.task === task);
			if (thread !== undefined) {
				send(thread, { kind: "abort" });
			} else {
				this.#waiting.splice(this.#waiting.indexOf(task), 1);
			}
			task.settle({ error: toError(options.signal.reason) });
		};
		let settled = false;
		const task: Task = {
			job,
			input,
			options,
			flag: new Int32Array(new SharedArrayBuffer(4)),
			settle(outcome) {
				if (settled) {
					return;
				}
				settled = true;
				options.signal.removeEventListener("abort", onAbort);
				if ("error" in outcome) {
					reject(outcome.error);
				} else {
					resolve(outcome.output as O);
				}
			},
		};
		options.signal.addEventListener("abort", onAbort);
		this.#waiting.push(task);
		this.#schedule();
		return promise;
	}

	warm(threads: number = this.size): void {
		while (!this.#closed && this.#threads.size < Math.min(threads, this.size)) {
			this.#start();
		}
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#closed = true;
		clearTimeout(this.#restTimer);
		for (const task of this.#waiting.splice(0)) {
			task.settle({ error: poolClosed() });
		}
		await Promise.all(
			[...this.#threads].map(async (thread) => {
				if (thread.task !== undefined) {
					Atomics.store(thread.task.flag, 0, 1);
					thread.task.settle({ error: poolClosed() });
				}
				await thread.worker.terminate();
			}),
		);
		this.#threads.clear();
	}

	#schedule(): void {
		for (let task = this.#waiting[0]; task !== undefined; task = this.#waiting[0]) {
			const thread = this.#threadFor(task.options.companion);
			if (thread === undefined) {
				return;
			}
			this.#waiting.shift();
			this.#give(thread, task);
		}
	}

	/** One that did the companion's last job; else one that nobody comes back to; else any. */
	#threadFor(companion: object | undefined): Thread | undefined {
		const idle = [...this.#threads].filter((each) => each.task === undefined);
		return (
			(companion === undefined ? undefined : idle.find((each) => each.companion?.deref() === companion)) ??
			idle.find((each) => each.companion?.deref() === undefined) ??
			(this.#threads.size < this.size ? this.#start() : idle[0])
		);
	}

	#give(thread: Thread, task: Task): void {
		clearTimeout(this.#restTimer);
		thread.task = task;
		thread.companion = task.options.companion && new WeakRef(task.options.companion);
		thread.worker.ref();
		try {
			const message: ToThread = { kind: "run", job: task.job, input: task.input, aborted: task.flag.buffer };
			thread.worker.postMessage(message, task.options.transfer ?? []);
		} catch (thrown) {
			thread.task = undefined;
			thread.worker.unref();
			task.settle({
				error: new SlipwayError("invalid-argument", `input of job ${task.job} cannot be sent to a thread`, {
					cause: thrown,
				}),
			});
		}
	}

	#start(): Thread {
		this.#beforeStart?.();
		const worker = new Worker(new URL(`../async/pool-thread${extension}`, import.meta.url), {
			name: "slipway",
		});
		const thread: Thread = { worker, task: undefined, companion: undefined };
		this.#threads.add(thread);
		worker.unref();
		worker.on("message", (message: FromThread) => {
			this.#receive(thread, message);
		});
		worker.on("error", (thrown) => {
			this.#lost(thread, toError(thrown));
		});
		worker.on("exit", (code) => {
			this.#lost(thread, new SlipwayError("unavailable", `worker thread ended with code ${code}`));
		});
		return thread;
	}

	#receive(thread: Thread, message: FromThread): void {
		const task = thread.task;
		if (task === undefined) {
			return;
		}
		if (message.kind === "post") {
			if (!task.options.signal.aborted) {
				task.options.onMessage?.(message.message);
			}
			return;
		}
		thread.task = undefined;
		thread.worker.unref();
		task.settle(
			message.kind === "done" ? { output: message.output } : { error: fromPlainError(message.error) },
		);
		this.#schedule();
		this.#restLater();
	}

	#restLater(): void {
		clearTimeout(this.#restTimer);
		const threads = [...this.#threads];
		if (this.#idleMs !== undefined && threads.every(({ task }) => task === undefined)) {
			this.#restTimer = setTimeout(() => {
				for (const thread of threads) {
					this.#threads.delete(thread);
					void thread.worker.terminate();
				}
			}, this.#idleMs).unref();
		}
	}

	/** A thread that died takes its job with it; the pool goes on with a new one. */
	#lost(thread: Thread, error: SlipwayError): void {
		if (!this.#threads.delete(thread)) {
			return;
		}
		thread.task?.settle({
			error: new SlipwayError("unavailable", `job ${thread.task.job} failed: ${error.message}`, {
				cause: error,
			}),
		});
		if (!this.#closed) {
			this.#schedule();
		}
	}
}

function send(thread: Thread, message: ToThread): void {
	thread.worker.postMessage(message);
}

function poolClosed(): SlipwayError {
	return canceled(new SlipwayError("unavailable", "thread pool is closed"));
}
