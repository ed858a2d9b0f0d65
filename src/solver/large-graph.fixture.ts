import { parentPort, workerData } from "node:worker_threads";
import { createWorld, vertex } from "./fake-graph.ts";
import { createMemoryKeyStore } from "./memory-key-store.ts";
import type { Edge } from "./solver.ts";

/** What one build of a large graph called. */
export interface LargeGraphCalls {
	readonly executed: number;
	readonly loaded: number;
	readonly lookups: number;
	readonly events: number;
	/** Handles that were not released at the end of the job. */
	readonly leaked: number;
}

const { shape, size } = workerData as { readonly shape: "chain" | "fan"; readonly size: number };

function chain(): Edge {
	let edge = vertex("start", { output: () => "x" });
	for (let i = 1; i < size; i++) {
		edge = vertex(`v${i}`, { inputs: [edge], digest: `v${i}`, output: () => `x${i}` });
	}
	return edge;
}

/** A vertex above inputs with one vertex below them all. */
function fan(): Edge {
	const inputs = [vertex("start", { output: () => "x" })];
	const middle = Array.from({ length: size - 2 }, (_, i) =>
		vertex(`v${i}`, { inputs, output: () => `x${i}` }),
	);
	return vertex("end", { inputs: middle, output: () => "y" });
}

let lookups = 0;
const store = createMemoryKeyStore();
const keys: typeof store = {
	...store,
	targets: (from, link) => {
		lookups++;
		return store.targets(from, link);
	},
};
await using world = createWorld({ keys });
const edge = shape === "fan" ? fan() : chain();

async function build(): Promise<LargeGraphCalls> {
	world.clear();
	lookups = 0;
	const job = world.openJob();
	await job.text(edge);
	await job[Symbol.asyncDispose]();
	return {
		executed: world.executed().length,
		loaded: world.calls.filter((call) => call.startsWith("load ")).length,
		lookups,
		events: job.events.length,
		leaked: world.live.size,
	};
}

parentPort?.postMessage([await build(), await build()]);
