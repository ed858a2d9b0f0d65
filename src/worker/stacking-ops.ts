import { diffCacheDigest, mergeCacheDigest, passthroughCacheDigest } from "../llb/cache-digest.ts";
import type { DiffOp, MergeOp, PassthroughOp } from "../llb/op.ts";
import type { Op } from "../solver/solver.ts";
import type { Output, WorkerServices } from "./worker.ts";

/** Ops that rearrange layers and touch no file. */
export function mergeOp(op: MergeOp, services: WorkerServices, description: string): Op<Output> {
	return {
		cacheMap: async () => ({
			map: { digest: mergeCacheDigest(op), inputs: op.inputs.map(() => ({})) },
			last: true,
		}),
		async execute(inputs, { signal }) {
			const refs = op.layers.flatMap((index) => inputs[index] ?? []);
			return [await services.cache.merge(refs, { description, signal })];
		},
	};
}

export function diffOp(op: DiffOp, services: WorkerServices, description: string): Op<Output> {
	return {
		cacheMap: async () => ({
			map: { digest: diffCacheDigest(op), inputs: op.inputs.map(() => ({})) },
			last: true,
		}),
		async execute(inputs, { signal }) {
			const lower = op.lower === undefined ? undefined : inputs[op.lower];
			const upper = op.upper === undefined ? undefined : inputs[op.upper];
			return [await services.cache.diff(lower, upper, { description, signal })];
		},
	};
}

export function passthroughOp(op: PassthroughOp): Op<Output> {
	return {
		cacheMap: async () => ({
			map: { digest: passthroughCacheDigest(op), inputs: op.inputs.map(() => ({})) },
			last: true,
		}),
		execute: async (inputs) => op.outputs.map((index) => inputs[index]?.clone()),
	};
}
