import { Op as OpMessage } from "../api/generated/ops.ts";
import { findDetail } from "../errors/errors.ts";
import type { FailedStep } from "../frontend/frontend.ts";
import { messageOfOp } from "../llb/op-message.ts";
import type { FailedStepState } from "../worker/worker.ts";
import type { BuildRefs } from "./refs.ts";

/**
 * What steps that failed left behind, for a client that wants to look into it. Each belongs to the build until somebody takes it
 * as refs, and at the latest until the build ends.
 */
export interface FailedSteps extends AsyncDisposable {
	keep(state: FailedStepState): void;
	/** By the vertex that the error names. */
	find(error: unknown, refs: BuildRefs): FailedStep | undefined;
}

export function createFailedSteps(): FailedSteps {
	const kept = new Map<string, FailedStepState>();
	const taken = new Map<string, FailedStep>();

	const release = async ({ inputs, mounts }: FailedStepState): Promise<void> => {
		await Promise.all([...inputs, ...mounts].map((output) => output?.release()));
	};

	return {
		keep(state) {
			const before = kept.get(state.vertex);
			kept.set(state.vertex, state);
			if (before !== undefined) {
				void release(before);
			}
		},
		find(error, refs) {
			const digest = findDetail(error, "vertex")?.digest;
			const state = digest === undefined ? undefined : kept.get(digest);
			if (digest === undefined || state === undefined) {
				return digest === undefined ? undefined : taken.get(digest);
			}
			kept.delete(digest);
			const adopt = (outputs: FailedStepState["inputs"]): FailedStep["inputs"] =>
				outputs.map((output) => output && refs.adopt({ ops: [], metadata: new Map() }, output));
			const step = {
				op: OpMessage.encode(messageOfOp(state.op.op)).finish(),
				description: state.op.metadata?.description ?? new Map(),
				...(state.subject === undefined ? {} : { subject: state.subject }),
				inputs: adopt(state.inputs),
				mounts: adopt(state.mounts),
			};
			taken.set(digest, step);
			return step;
		},
		async [Symbol.asyncDispose]() {
			await Promise.all([...kept.values()].map(release));
			kept.clear();
		},
	};
}
