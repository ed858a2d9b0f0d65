import type { CacheManager, RefId } from "../cache/cache.ts";
import type { DatabaseKeyStore } from "../cache/key-store.ts";
import { isNothing } from "../cache/result-store.ts";
import type { Database } from "../database/database.ts";

/** Keys that lead to pruned records go, and the database gives back what it has no use for. */
export function afterPrune(
	cache: CacheManager,
	{ keys, database }: { readonly keys: DatabaseKeyStore; readonly database: Database },
): void {
	keys.removeGone((id) => isNothing(id) || cache.has(id as RefId));
	const pragma = (name: string): number => Number(database.get(`PRAGMA ${name}`)?.[name] ?? 0);
	const free = pragma("freelist_count");
	if (free * pragma("page_size") > minFreeBytes && free * 2 > pragma("page_count")) {
		database.run("VACUUM");
	}
	// The log of changes has some megabytes at times, most of them about what is gone now.
	database.get("PRAGMA wal_checkpoint(TRUNCATE)");
}

/** Less is used again soon. */
const minFreeBytes = 4 << 20;
