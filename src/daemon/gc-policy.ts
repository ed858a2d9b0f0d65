import type { GcRule } from "../control/service.ts";
import { type DiskSpace, diskSpaceBytes } from "./config-values.ts";

/** What a person says of garbage collection, as `[worker.oci]` and `[[worker.oci.gcpolicy]]` have it. */
export interface GcSettings {
	/** Default true. */
	readonly enabled?: boolean;
	readonly reserved?: DiskSpace;
	readonly maxUsed?: DiskSpace;
	readonly minFree?: DiskSpace;
	/** In place of the default policy. */
	readonly policy?: readonly GcRuleSettings[];
}

export interface GcRuleSettings {
	readonly all: boolean;
	readonly filters: readonly string[];
	readonly keepDurationMs: number;
	readonly reserved?: DiskSpace;
	readonly maxUsed?: DiskSpace;
	readonly minFree?: DiskSpace;
}

const dayMs = 24 * 3600 * 1000;

/** The rules in order, BuildKit's unless others are given: what is easily made again goes first. */
export function gcPolicy(settings: GcSettings, diskBytes: number): readonly GcRule[] {
	if (settings.enabled === false) {
		return [];
	}
	const own = settings.policy ?? [];
	return (own.length > 0 ? own : defaultPolicy(settings, diskBytes)).map((rule) => ({
		all: rule.all,
		filters: rule.filters,
		keepDurationMs: rule.keepDurationMs,
		reservedBytes: diskSpaceBytes(rule.reserved, diskBytes),
		maxUsedBytes: diskSpaceBytes(rule.maxUsed, diskBytes),
		minFreeBytes: diskSpaceBytes(rule.minFree, diskBytes),
	}));
}

function defaultPolicy(settings: GcSettings, diskBytes: number): readonly GcRuleSettings[] {
	const { reserved, maxUsed, minFree } = settings;
	const limits =
		reserved === undefined && maxUsed === undefined && minFree === undefined
			? defaultLimits(diskBytes)
			: {
					...(reserved === undefined ? {} : { reserved }),
					...(maxUsed === undefined ? {} : { maxUsed }),
					...(minFree === undefined ? {} : { minFree }),
				};
	return [
		{
			all: false,
			filters: ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"],
			keepDurationMs: 2 * dayMs,
			maxUsed: { kind: "bytes", bytes: 512e6 },
		},
		{ all: false, filters: [], keepDurationMs: 60 * dayMs, ...limits },
		{ all: false, filters: [], keepDurationMs: 0, ...limits },
		{ all: true, filters: [], keepDurationMs: 0, ...limits },
	];
}

function defaultLimits(
	diskBytes: number,
): Required<Pick<GcRuleSettings, "reserved" | "maxUsed" | "minFree">> {
	const atMost = (percent: number, bytes: number): DiskSpace => {
		const space: DiskSpace = { kind: "percent", percent };
		return diskSpaceBytes(space, diskBytes) > bytes ? { kind: "bytes", bytes } : space;
	};
	return {
		reserved: atMost(10, 10e9),
		maxUsed: atMost(80, 100e9),
		minFree: { kind: "percent", percent: 20 },
	};
}
