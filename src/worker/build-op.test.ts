import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { ImmutableRef } from "../cache/cache.ts";
import { encodeDefinition } from "../llb/definition-message.ts";
import { mkfile } from "../llb/file-steps.ts";
import type { Definition } from "../llb/llb.ts";
import { load } from "../llb/load.ts";
import { type BuildOp, buildDefinitionInput, buildFilenameAttr } from "../llb/op.ts";
import { scratch } from "../llb/state.ts";
import { sha256 } from "../oci/digest.ts";
import type { Edge, StepContext } from "../solver/solver.ts";
import { buildOp } from "./build-op.ts";
import type { Output } from "./worker.ts";

let directory = "";
const definition = scratch()
	.file(mkfile("/inner", 0o644, "inner"))
	.marshal();

before(() => {
	directory = mkdtempSync(join(tmpdir(), "slipway-build-op-"));
	writeFileSync(join(directory, buildDefinitionInput), encodeDefinition(definition));
	writeFileSync(join(directory, "other.llb"), encodeDefinition(definition));
	writeFileSync(join(directory, "garbage"), "\xff\xff\xff");
});
after(() => rmSync(directory, { recursive: true }));

const context: StepContext = {
	signal: new AbortController().signal,
	vertex: sha256("vertex"),
	progress: { write: () => {} },
	clients: () => [],
};

function op(more: Partial<BuildOp> = {}): BuildOp {
	return {
		kind: "build",
		inputs: [{ digest: sha256("input"), index: 0 }],
		filters: [],
		builderInputs: new Map([[buildDefinitionInput, 0]]),
		attrs: new Map(),
		...more,
	};
}

/** Executes on an input with the files above; gives the graphs that were built, and how often results were released. */
async function execute(built: BuildOp): Promise<{
	readonly outputs: readonly Output[];
	readonly graphs: readonly Definition[];
	readonly released: number;
}> {
	const graphs: Definition[] = [];
	let released = 0;
	const clone = {} as ImmutableRef;
	const input = {
		mounts: async () => [{ type: "bind", source: directory, options: ["rbind", "ro"] }],
	} as unknown as ImmutableRef;
	const { execute: run } = buildOp(built, {
		worker: { mountRoot: directory, beforeMounts: () => {} },
		builder: {
			build: async () => ({
				result: { clone: () => clone } as unknown as ImmutableRef,
				keys: [],
				release: async () => {
					released++;
				},
			}),
		},
		load: async (graph) => {
			graphs.push(graph);
			return {} as Edge;
		},
	});
	const outputs = await run([input], context);
	assert.equal(outputs[0], clone);
	return { outputs, graphs, released };
}

test("a build op builds the graph in its input, and hands its result on", async () => {
	const { graphs, released } = await execute(op());
	assert.equal(graphs.length, 1);
	assert.deepEqual([...load(graphs[0] ?? definition).ops.keys()], [...load(definition).ops.keys()]);
	assert.equal(released, 1);
});

test("the file may have another name", async () => {
	const { graphs } = await execute(op({ attrs: new Map([[buildFilenameAttr, "other.llb"]]) }));
	assert.equal(graphs.length, 1);
});

for (const [title, wrong, message] of [
	["another builder", op({ builder: 0 }), /^only LLB builder is currently allowed$/],
	["no input", op({ builderInputs: new Map() }), /^no llb definition input buildkit.llb.definition found$/],
	[
		"an input that it has not",
		op({ builderInputs: new Map([[buildDefinitionInput, 3]]) }),
		/^invalid index 3$/,
	],
	[
		"a file that is not there",
		op({ attrs: new Map([[buildFilenameAttr, "none"]]) }),
		/^failed to open none: /,
	],
	["a file that is no graph", op({ attrs: new Map([[buildFilenameAttr, "garbage"]]) }), /./],
] as const) {
	test(`${title} is an error`, async () => {
		await assert.rejects(execute(wrong), { message });
	});
}
