import { SlipwayError, wrap } from "../errors/errors.ts";
import type { LoadedDefinition, LoadedOp } from "../llb/llb.ts";
import type { Digest } from "../oci/digest.ts";
import type { Edge, Vertex } from "../solver/solver.ts";
import type { DeviceRegistry } from "../worker/cdi-devices.ts";
import type { VertexPayload } from "../worker/worker.ts";
import type { Entitlement } from "./control.ts";
import { grantDevices } from "./entitlements.ts";

/** What a build may use. */
export interface Grants {
	readonly allowed: ReadonlySet<Entitlement>;
	readonly devices: DeviceRegistry;
}

/** The solver's view of a loaded graph: one vertex per op, the edge of the root. Linear in the number of ops. */
export function verticesOf(
	definition: LoadedDefinition,
	grants: Grants,
	loadNested?: VertexPayload["loadNested"],
): Edge {
	const vertices = new Map<Digest, Vertex>();
	const borrowed = borrowedSources(definition);
	for (const op of definition.ops.values()) {
		const loaded = checkEntitlements(op, grants);
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

/** The op with the devices that it gets in place of those that it asks for. */
function checkEntitlements(loaded: LoadedOp, { allowed, devices }: Grants): LoadedOp {
	const { op, sources } = loaded;
	if (op.kind !== "exec") {
		return loaded;
	}
	const details = sources.slice(0, 1).map((source) => ({ kind: "source", ...source }) as const);
	const needed: Entitlement[] = [];
	if (op.network === "host") {
		needed.push("network.host");
	}
	if (op.security === "insecure") {
		needed.push("security.insecure");
	}
	const refused = needed.find((entitlement) => !allowed.has(entitlement));
	if (refused !== undefined) {
		throw new SlipwayError("permission-denied", `${refused} is not allowed`, { details });
	}
	if (op.devices.length === 0) {
		return loaded;
	}
	try {
		return { ...loaded, op: { ...op, devices: grantDevices(op.devices, allowed, devices) } };
	} catch (error) {
		throw wrap(error, "", { details });
	}
}
