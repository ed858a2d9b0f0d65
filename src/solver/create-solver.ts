import { SlipwayError } from "../errors/errors.ts";
import { Graph } from "./graph.ts";
import { SolverJob } from "./job.ts";
import type { Solver, SolverOptions } from "./solver.ts";

/** Disposing the solver closes all its jobs. The stores stay the caller's. */
export function createSolver<R>(options: SolverOptions<R>): Solver<R> {
	const graph = new Graph(options);
	const jobs = new Map<string, SolverJob<R>>();
	let closed = false;

	return {
		openJob(jobOptions) {
			if (closed) {
				throw new SlipwayError(
					"failed-precondition",
					`job ${jobOptions.id} cannot be opened: the solver is closed`,
				);
			}
			if (jobs.has(jobOptions.id)) {
				throw new SlipwayError("already-exists", `job ${jobOptions.id} is already open`);
			}
			const job = new SolverJob(graph, jobOptions, () => jobs.delete(jobOptions.id));
			jobs.set(job.id, job);
			return job;
		},
		async [Symbol.asyncDispose]() {
			closed = true;
			await Promise.all([...jobs.values()].map((job) => job[Symbol.asyncDispose]()));
		},
	};
}
