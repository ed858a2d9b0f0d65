import { SlipwayError } from "../errors/errors.ts";
import type { LoadedDefinition, LoadedOp } from "../llb/llb.ts";
import type { Digest } from "../oci/digest.ts";
import type { Edge, Vertex } from "../solver/solver.ts";
import type { VertexPayload } from "../worker/worker.ts";
import type { Entitlement } from "./control.ts";

/** The solver's view of a loaded graph: one vertex per op, the edge of the root. Linear in the number of ops. */
export function verticesOf(
	definition: LoadedDefinition,
	allowed: ReadonlySet<Entitlement>,
	loadNested?: VertexPayload["loadNested"],
): Edge {
	const vertices = new Map<Digest, Vertex>();
	const borrowed = borrowedSources(definition);
	for (const loaded of definition.ops.values()) {
		checkEntitlements(loaded, allowed);
		const source = loaded.sources[0] ?? borrowed.get(loaded.digest);
		vertices.set(loaded.digest, vertexOf(loaded, { vertices, source, loadNested }));
	}
	return edgeTo(definition.root, vertices);
}

type SourcePlace = LoadedOp["sources"][number];

/** BuildKit's graphs do not say where a download comes from: it is the line that uses it. */
function borrowedSources({ ops }: LoadedDefinition): ReadonlyMap<Digest, SourcePlace> {
	const found = new Map<Digest, SourcePlace>();
	for (const { op, sources } of ops.values()) {
		const [source] = sources;
		for (const { digest } of source === undefined ? [] : op.inputs) {
			const input = ops.get(digest)?.op;
			if (source !== undefined && input?.kind === "source" && !found.has(digest)) {
				if (/^(?:https?|git):/.test(input.identifier)) {
					found.set(digest, source);
				}
			}
		}
	}
	return found;
}

function vertexOf(
	loaded: LoadedOp,
	{
		vertices,
		source,
		loadNested,
	}: {
		readonly vertices: ReadonlyMap<Digest, Vertex>;
		readonly source: SourcePlace | undefined;
		readonly loadNested: VertexPayload["loadNested"];
	},
): Vertex {
	const { metadata } = loaded;
	const payload: VertexPayload = {
		op: loaded,
		...(loaded.op.kind === "build" && loadNested !== undefined ? { loadNested } : {}),
	};
	return {
		digest: loaded.digest,
		name: loaded.name,
		inputs: loaded.op.inputs.map((input) => edgeTo(input, vertices)),
		payload,
		options: {
			ignoreCache: metadata?.ignoreCache ?? false,
			...(metadata?.exportCache === undefined ? {} : { exportCache: metadata.exportCache }),
			...(metadata?.progressGroup === undefined ? {} : { progressGroup: metadata.progressGroup }),
			...(source === undefined ? {} : { source }),
		},
	};
}

function edgeTo(
	input: { readonly digest: Digest; readonly index: number },
	vertices: ReadonlyMap<Digest, Vertex>,
): Edge {
	const vertex = vertices.get(input.digest);
	if (vertex === undefined) {
		throw new SlipwayError("invalid-argument", `invalid missing input digest ${input.digest}`);
	}
	return { vertex, index: input.index };
}

function checkEntitlements({ op, sources }: LoadedOp, allowed: ReadonlySet<Entitlement>): void {
	if (op.kind !== "exec") {
		return;
	}
	const needed: Entitlement[] = [];
	if (op.network === "host") {
		needed.push("network.host");
	}
	if (op.security === "insecure") {
		needed.push("security.insecure");
	}
	const refused = needed.find((entitlement) => !allowed.has(entitlement));
	if (refused !== undefined) {
		throw new SlipwayError("permission-denied", `${refused} is not allowed`, {
			details: sources.slice(0, 1).map((source) => ({ kind: "source", ...source })),
		});
	}
}
