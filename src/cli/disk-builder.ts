import { statfsSync } from "node:fs";
import { resolve } from "node:path";
import type { Client, PruneRequest, UsageRecord } from "../client/client.ts";
import { defaultRoot } from "../daemon/default-root.ts";
import type { Engine } from "../daemon/engine.ts";
import { builderPlace } from "./builder-place.ts";
import { engineOptions } from "./engine-options.ts";
import type { ParsedFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

/** The half of a builder that `du` and `prune` are about. */
export type DiskBuilder = Pick<Client, "diskUsage" | "prune"> & AsyncDisposable;

/** The builder that `--builder` names, else the background builder if it runs, else an engine on the state directory. */
export async function openDiskBuilder(flags: ParsedFlags, terminal: Terminal): Promise<DiskBuilder> {
	const { env, interrupted: signal } = terminal;
	const address = flags.string("builder") || env["SLIPWAY_BUILDER"];
	if (address) {
		const { connectClient } = await import("../client/connect.ts");
		return await connectClient(address, { env, signal });
	}
	const options = engineOptions(flags, terminal);
	const root = options.root ?? resolve(defaultRoot(env));
	const place = builderPlace(root, env);
	if (place !== undefined && (await isListening(place.apiSocket))) {
		const { connectClient } = await import("../client/connect.ts");
		return await connectClient(`unix://${place.apiSocket}`, { env, signal });
	}
	return await ownBuilder(await terminal.openEngine(options));
}

async function isListening(path: string): Promise<boolean> {
	const { connect } = await import("./forward.ts");
	const socket = await connect(path);
	socket?.destroy();
	return socket !== undefined;
}

async function ownBuilder(engine: Engine): Promise<DiskBuilder> {
	const { applyRule, matchUsage } = await import("../control/service-usage.ts");
	const { cache } = engine.parts;
	const disk = (): { readonly freeBytes: number; readonly totalBytes: number } => {
		const { bsize, blocks, bavail } = statfsSync(engine.root);
		return { totalBytes: bsize * blocks, freeBytes: bsize * bavail };
	};
	return {
		async diskUsage(filters, { signal }) {
			const matches = matchUsage("diskusage", filters);
			return (await cache.usage({ signal })).filter(matches).map(clientRecord);
		},
		async *prune(request: PruneRequest, { signal }) {
			const rule = {
				all: request.all ?? false,
				filters: request.filters ?? [],
				keepDurationMs: Number(request.keepDuration ?? 0n) / 1e6,
				reservedBytes: request.reservedSpace ?? 0,
				maxUsedBytes: request.maxUsedSpace ?? 0,
				minFreeBytes: request.minFreeSpace ?? 0,
			};
			for await (const record of applyRule({ cache, disk }, rule, signal)) {
				yield clientRecord(record);
			}
		},
		[Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
	};
}

type CacheUsage = Awaited<ReturnType<Engine["parts"]["cache"]["usage"]>>[number];

function clientRecord({ bytes, inodes: _, ...record }: CacheUsage): UsageRecord {
	return { ...record, size: bytes };
}
