import { SlipwayError, wrap } from "../errors/errors.ts";
import { buildCacheDigest } from "../llb/cache-digest.ts";
import { decodeDefinition } from "../llb/definition-message.ts";
import type { Definition } from "../llb/llb.ts";
import { type BuildOp, buildDefinitionInput, buildFilenameAttr } from "../llb/op.ts";
import type { Builder, Edge, Op } from "../solver/solver.ts";
import { mountTree } from "./mounted-tree.ts";
import { emptyTree } from "./ref-reader.ts";
import { readTreeFile } from "./tree-reader.ts";
import type { Output, WorkerServices } from "./worker.ts";

export interface BuildOpServices {
	readonly worker: Pick<WorkerServices, "mountRoot" | "beforeMounts">;
	readonly builder: Builder<Output>;
	/** The graph of a definition, by the rules of the build that the op is in. */
	readonly load: ((definition: Definition) => Promise<Edge>) | undefined;
}

/** Builds the graph that lies as a file in an input; its output is the op's. */
export function buildOp(op: BuildOp, { worker, builder, load }: BuildOpServices): Op<Output> {
	return {
		// What it waits for needs the places.
		unlimited: true,
		cacheMap: async () => ({
			map: { digest: buildCacheDigest(op), inputs: op.inputs.map(() => ({})) },
			last: true,
		}),
		async execute(inputs, { signal, progress, vertex }) {
			const ref = definitionInput(op, inputs);
			const name = op.attrs.get(buildFilenameAttr) ?? buildDefinitionInput;
			const mounts = (await ref?.mounts({ signal, progress, vertex })) ?? emptyTree;
			const bytes = readDefinition(name, () => {
				using tree = mountTree(mounts, worker);
				return readTreeFile(tree.path, name);
			});
			const definition = decodeDefinition(bytes);
			if (load === undefined || definition.ops.length === 0) {
				throw new SlipwayError("invalid-argument", "invalid empty definition");
			}
			const built = await builder.build(await load(definition), { signal });
			try {
				return [built.result?.clone()];
			} finally {
				await built.release();
			}
		},
	};
}

function definitionInput(op: BuildOp, inputs: readonly Output[]): Output {
	if (op.builder !== undefined) {
		throw new SlipwayError("unknown", "only LLB builder is currently allowed");
	}
	const index = op.builderInputs.get(buildDefinitionInput);
	if (index === undefined) {
		throw new SlipwayError("unknown", `no llb definition input ${buildDefinitionInput} found`);
	}
	if (index < 0 || index >= inputs.length) {
		throw new SlipwayError("unknown", `invalid index ${index}`);
	}
	return inputs[index];
}

function readDefinition(name: string, read: () => Uint8Array): Uint8Array {
	try {
		return read();
	} catch (error) {
		throw wrap(error, `failed to open ${name}`);
	}
}
