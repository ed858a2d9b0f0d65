import { Op as OpMessage } from "../api/generated/ops.ts";
import { toError, wrap } from "../errors/errors.ts";
import type { SourceIdentity } from "../frontend/frontend.ts";
import type { Definition } from "../llb/llb.ts";
import { load } from "../llb/load.ts";
import { fromPlatformMessage } from "../llb/op-from-message.ts";
import type { Platform } from "../oci/platform.ts";
import type { Edge } from "../solver/solver.ts";
import type { DeviceRegistry } from "../worker/cdi-devices.ts";
import type { Entitlement } from "./control.ts";
import { verticesOf } from "./vertices.ts";

export interface LoadGraphOptions {
	readonly allowed: ReadonlySet<Entitlement>;
	readonly devices: DeviceRegistry;
	/** What a source becomes by policies; undefined if there are none. */
	readonly judge:
		| ((source: SourceIdentity, platform: Platform | undefined) => Promise<SourceIdentity>)
		| undefined;
}

/** The graph of a definition that has ops, checked and with policies applied. */
export async function loadGraph(definition: Definition, options: LoadGraphOptions): Promise<Edge> {
	const { judge } = options;
	try {
		const judged = judge === undefined ? undefined : await judgeSources(definition, judge);
		const loaded = load(
			definition,
			judged === undefined ? {} : { mapSource: (source, digest) => judged.get(digest) ?? source },
		);
		return verticesOf(loaded, options, (nested) => loadGraph(nested, options));
	} catch (error) {
		const isUnknownOp = toError(error).message.startsWith("no support for");
		throw wrap(error, isUnknownOp ? "failed to load cache key" : "failed to load LLB");
	}
}

/** By the op's digest. What can't be read is left to `load`, which knows what to say about it. */
async function judgeSources(
	{ ops }: Definition,
	judge: NonNullable<LoadGraphOptions["judge"]>,
): Promise<ReadonlyMap<string, SourceIdentity>> {
	const judged = new Map<string, SourceIdentity>();
	for (const { digest, bytes } of ops) {
		let op: OpMessage;
		try {
			op = OpMessage.decode(bytes);
		} catch {
			continue;
		}
		if (op.op?.$case === "source") {
			const platform = op.platform === undefined ? undefined : fromPlatformMessage(op.platform);
			try {
				judged.set(digest, await judge(op.op.value, platform));
			} catch (error) {
				throw wrap(error, "error evaluating the source policy");
			}
		}
	}
	return judged;
}
