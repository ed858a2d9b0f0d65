import type { StepContext } from "../solver/solver.ts";
import { clientsOf, type FailedStepState, type Output } from "./worker.ts";

/** Trees that a failed step leaves; the caller's handles stay the caller's, but for those in `made`. */
export interface LeftTrees {
	readonly inputs: readonly Output[];
	readonly mounts: readonly Output[];
	/** Of them, those that were made to be kept: released here. */
	readonly made?: readonly Output[];
}

/** Hands on what a failed step left, if a client wants to look at it. That this fails too is nobody's news. */
export async function keepFailed(
	{ op, subject }: Pick<FailedStepState, "op" | "subject">,
	context: StepContext,
	leave: () => Promise<LeftTrees>,
): Promise<void> {
	const keepers = clientsOf(context).flatMap(({ keepFailed: keep }) => keep ?? []);
	if (keepers.length === 0 || context.signal.aborted) {
		return;
	}
	const left = await leave().catch(() => undefined);
	if (left === undefined) {
		return;
	}
	for (const keep of keepers) {
		keep({
			vertex: context.vertex,
			op,
			...(subject === undefined ? {} : { subject }),
			inputs: left.inputs.map((each) => each?.clone()),
			mounts: left.mounts.map((each) => each?.clone()),
		});
	}
	await Promise.all((left.made ?? []).map((each) => each?.release()));
}
