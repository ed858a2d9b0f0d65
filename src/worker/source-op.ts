import { SlipwayError } from "../errors/errors.ts";
import { sourceCacheDigest } from "../llb/cache-digest.ts";
import type { SourceOp } from "../llb/op.ts";
import type { Op, StepContext } from "../solver/solver.ts";
import type { SourceInstance } from "../source/source.ts";
import { type Output, sessionsOf, type WorkerServices } from "./worker.ts";

/** Files from outside of the build; what they are is the source's business. */
export function sourceOp(op: SourceOp, services: WorkerServices): Op<Output> {
	let context: StepContext | undefined;
	let instance: SourceInstance | undefined;
	const open = (now: StepContext): SourceInstance => {
		context = now;
		instance ??= sourceFor(op.identifier, services).open({
			identifier: op.identifier,
			attrs: Object.fromEntries(op.attrs),
			platform: op.platform,
			sessions: () => (context === undefined ? [] : sessionsOf(context)),
		});
		return instance;
	};
	return {
		async cacheMap(index, now) {
			const { key, last } = await open(now).cacheKey(index, now);
			return { map: { digest: sourceCacheDigest(key), inputs: [] }, last };
		},
		async execute(_, now) {
			return [await open(now).snapshot(now)];
		},
	};
}

function sourceFor(
	identifier: string,
	services: WorkerServices,
): NonNullable<ReturnType<WorkerServices["sources"]["get"]>> {
	const end = identifier.indexOf("://");
	if (end === -1) {
		throw new SlipwayError("invalid-argument", `failed to parse ${identifier}: invalid`);
	}
	const scheme = identifier.slice(0, end);
	const source = services.sources.get(scheme);
	if (source === undefined) {
		throw new SlipwayError("invalid-argument", `unknown scheme ${scheme}: not found`);
	}
	return source;
}
