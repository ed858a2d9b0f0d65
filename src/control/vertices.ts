import { SlipwayError } from "../errors/errors.ts";
import type { LoadedDefinition, LoadedOp } from "../llb/llb.ts";
import type { Digest } from "../oci/digest.ts";
import type { Edge, Vertex } from "../solver/solver.ts";
import type { VertexPayload } from "../worker/worker.ts";
import type { Entitlement } from "./control.ts";

/** The solver's view of a loaded graph: one vertex per op, the edge of the root. Linear in the number of ops. */
export function verticesOf(definition: LoadedDefinition, allowed: ReadonlySet<Entitlement>): Edge {
	const vertices = new Map<Digest, Vertex>();
	for (const loaded of definition.ops.values()) {
		checkEntitlements(loaded, allowed);
		vertices.set(loaded.digest, vertexOf(loaded, vertices));
	}
	return edgeTo(definition.root, vertices);
}

function vertexOf(loaded: LoadedOp, vertices: ReadonlyMap<Digest, Vertex>): Vertex {
	const { metadata } = loaded;
	const source = loaded.sources[0];
	const payload: VertexPayload = { op: loaded };
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
