import { statfsSync } from "node:fs";
import { applyRule } from "../control/service-usage.ts";
import { toError } from "../errors/errors.ts";
import type { Engine } from "./engine.ts";

export interface OccasionalCollection {
	readonly signal: AbortSignal;
	readonly warn: (message: string) => void;
	/** Milliseconds since the epoch; default now. */
	readonly now?: number;
	/** Of the disk that the state directory is on; default: asked. */
	readonly disk?: () => DiskSpaceLeft;
}

export interface DiskSpaceLeft {
	readonly totalBytes: number;
	readonly freeBytes: number;
}

const minute = 60_000;

/** Where the disk has less than this left, a collection is due sooner: the default policy wants it free. */
const minFreeShare = 0.2;
const soonMs = 10 * minute;
const lateMs = 24 * 60 * minute;

/**
 * Garbage collection for an engine that lives for one build: after it, by the policy of the daemon's configuration, once a day, or each ten
 * minutes while the disk is nearly full. Otherwise it costs two calls of some microseconds. Failing is a warning.
 */
export async function collectOccasionally(
	engine: Engine,
	{
		signal,
		warn,
		now = Date.now(),
		disk = () => {
			const { bsize, blocks, bavail } = statfsSync(engine.root);
			return { totalBytes: bsize * blocks, freeBytes: bsize * bavail };
		},
	}: OccasionalCollection,
): Promise<void> {
	const { cache, database } = engine.parts;
	try {
		database.define(
			"CREATE TABLE IF NOT EXISTS collection (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL)",
		);
		const row = database.get("SELECT at FROM collection");
		const lastMs = row === undefined ? undefined : Number(row["at"]);
		const note = (): void => database.run("INSERT OR REPLACE INTO collection (id, at) VALUES (1, ?)", now);
		if (lastMs === undefined) {
			// A new directory: its day begins.
			note();
			return;
		}
		const { totalBytes, freeBytes } = disk();
		const dueMs = freeBytes < totalBytes * minFreeShare ? soonMs : lateMs;
		// A clock that was set back must not put it off for ever.
		if (now - lastMs < dueMs && now >= lastMs) {
			return;
		}
		note();
		const { loadConfigFile } = await import("./config-file.ts");
		const { defaultConfigFile } = await import("./config.ts");
		const { gcPolicy } = await import("./gc-policy.ts");
		for (const rule of gcPolicy(loadConfigFile(defaultConfigFile).worker.gc, totalBytes)) {
			for await (const _ of applyRule({ cache, disk }, rule, signal)) {
				signal.throwIfAborted();
			}
		}
	} catch (thrown) {
		if (!signal.aborted) {
			warn(`garbage collection failed: ${toError(thrown).message}`);
		}
	}
}
