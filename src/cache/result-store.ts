import type { ResultStore } from "../solver/solver.ts";
import type { CacheManager, ImmutableRef, RefId } from "./cache.ts";

/** The id of the result that has no files. No record has it: theirs have 25 characters. */
const nothing = "scratch";

/** True for the id of a result that no record has and that is always there. */
export function isNothing(id: string): boolean {
	return id === nothing;
}

/** Results of the solver are refs, or undefined for the empty tree; they are kept as long as their records. */
export function createResultStore(cache: CacheManager): ResultStore<ImmutableRef | undefined> {
	return {
		save: async (ref) =>
			ref === undefined ? { id: nothing, createdAt: 0 } : { id: ref.id, createdAt: ref.createdAt },
		async load({ id }) {
			const ref = id === nothing ? undefined : await cache.get(id as RefId);
			return ref === undefined && id !== nothing ? undefined : { result: ref };
		},
		exists: async ({ id }) => id === nothing || cache.has(id as RefId),
	};
}
