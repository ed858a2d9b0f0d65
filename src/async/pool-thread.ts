import { parentPort } from "node:worker_threads";
import { canceled, SlipwayError } from "../errors/errors.ts";
import { type FromThread, type JobContext, type JobModule, type ToThread, toPlainError } from "./job.ts";

/** The other end of the pool: loads job modules by name and runs one at a time. */

const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
const port = parentPort;
let running: AbortController | undefined;

port?.on("message", (message: ToThread) => {
	switch (message.kind) {
		case "run":
			void work(message.job, message.input, new Int32Array(message.aborted));
			return;
		case "abort":
			running?.abort(canceled());
	}
});

async function work(job: string, input: unknown, aborted: Int32Array): Promise<void> {
	const controller = new AbortController();
	running = controller;
	const context: JobContext = {
		signal: controller.signal,
		throwIfAborted() {
			if (Atomics.load(aborted, 0) !== 0) {
				throw canceled();
			}
		},
		post(message, transfer = []) {
			answer({ kind: "post", message }, transfer);
		},
	};
	let result: FromThread;
	try {
		const module = await load(job);
		context.throwIfAborted();
		result = { kind: "done", output: await module.run(input, context) };
	} catch (thrown) {
		result = { kind: "failed", error: toPlainError(thrown) };
	}
	running = undefined;
	try {
		answer(result, []);
	} catch (thrown) {
		answer(
			{
				kind: "failed",
				error: toPlainError(
					new SlipwayError("internal", `output of job ${job} cannot be sent to its caller`, {
						cause: thrown,
					}),
				),
			},
			[],
		);
	}
}

async function load(job: string): Promise<JobModule<unknown, unknown>> {
	const module: Partial<JobModule<unknown, unknown>> = await import(
		new URL(`../${job}.job${extension}`, import.meta.url).href
	);
	if (typeof module.run !== "function") {
		throw new SlipwayError("internal", `job ${job} exports no run`);
	}
	return module as JobModule<unknown, unknown>;
}

function answer(message: FromThread, transfer: Parameters<JobContext["post"]>[1] = []): void {
	port?.postMessage(message, transfer);
}
