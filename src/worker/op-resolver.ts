import { SlipwayError } from "../errors/errors.ts";
import type { LoadedOp } from "../llb/llb.ts";
import type { Builder, Op, Vertex } from "../solver/solver.ts";
import { buildOp } from "./build-op.ts";
import { type CacheMounts, createCacheMounts } from "./cache-mounts.ts";
import { execOp } from "./exec-op.ts";
import { fileOp } from "./file-op.ts";
import { sourceOp } from "./source-op.ts";
import { diffOp, mergeOp, passthroughOp } from "./stacking-ops.ts";
import { withSlot } from "./step-limits.ts";
import { clientsOf, type Output, type VertexPayload, type WorkerServices } from "./worker.ts";

/** What the solver calls to make an op for a vertex whose payload is a `VertexPayload`. */
export function createOpResolver(
	services: WorkerServices,
	cacheMounts: CacheMounts = createCacheMounts(services.cache),
): (vertex: Vertex, builder: Builder<Output>) => Op<Output> {
	return (vertex, builder) => {
		const payload = vertex.payload as VertexPayload;
		const loaded: LoadedOp = payload.op;
		const { op } = loaded;
		switch (op.kind) {
			case "source":
				return sourceOp(op, services);
			case "exec": {
				const [native] = services.platforms;
				const platform = op.platform ?? native;
				if (platform === undefined) {
					throw new SlipwayError("internal", "the worker has no platform");
				}
				return reporting(
					vertex,
					withSlot(
						execOp(
							{
								op,
								loaded,
								platform,
								ignoreCache: vertex.options.ignoreCache,
								resources: loaded.metadata?.linuxResources,
							},
							services,
							cacheMounts,
						),
					),
				);
			}
			case "file":
				return reporting(vertex, withSlot(fileOp(op, loaded, services)));
			case "merge":
				return mergeOp(op, services, loaded.name);
			case "diff":
				return diffOp(op, services, loaded.name);
			case "passthrough":
				return passthroughOp(op);
			case "build":
				return buildOp(op, { worker: services, builder, load: payload.loadNested });
		}
	};
}

/** Tells the builds that wait for the step what it has made. */
function reporting(vertex: Vertex, op: Op<Output>): Op<Output> {
	return {
		...op,
		execute: async (inputs, context) => {
			const outputs = await op.execute(inputs, context);
			for (const { onOutputs } of clientsOf(context)) {
				onOutputs?.(vertex, outputs);
			}
			return outputs;
		},
	};
}
