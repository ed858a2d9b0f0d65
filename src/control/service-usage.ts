import type * as messages from "../api/generated/control.ts";
import type { MessageStream, ServerCall } from "../api/grpc.ts";
import { timestampOf } from "../api/timestamps.ts";
import type { CacheManager, UsageRecord } from "../cache/cache.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import type { ControlServiceOptions, GcRule } from "./service.ts";
import { type Filter, type FilterFields, parseFilters } from "./service-filter.ts";

type UsageServices = Pick<ControlServiceOptions, "cache" | "disk">;

export async function diskUsage(
	{ cache }: UsageServices,
	{ filter, ageLimit }: messages.DiskUsageRequest,
	{ signal }: ServerCall,
): Promise<messages.DiskUsageResponse> {
	const matches = filterOf("diskusage", filter);
	const limitMs = Number(ageLimit) / 1e6;
	const records = await cache.usage({ signal });
	return {
		record: records
			.filter((record) => matches(fieldsOf(record)) && (limitMs === 0 || isUnusedFor(record, limitMs)))
			.map(usageMessage),
	};
}

export async function prune(
	services: UsageServices,
	request: messages.PruneRequest,
	stream: Pick<MessageStream<never, messages.UsageRecord>, "send">,
	{ signal }: ServerCall,
): Promise<void> {
	const rule: GcRule = {
		all: request.all,
		filters: request.filter,
		keepDurationMs: Number(request.keepDuration) / 1e6,
		reservedBytes: request.reservedSpace,
		maxUsedBytes: request.maxUsedSpace,
		minFreeBytes: request.minFreeSpace,
	};
	for (const [name, value] of Object.entries(rule)) {
		if (typeof value === "number" && value < 0) {
			throw new SlipwayError("invalid-argument", `${name} of prune must not be negative but is ${value}`);
		}
	}
	for await (const record of applyRule(services, rule, signal)) {
		await stream.send(usageMessage(record));
	}
}

/** Deletes what a rule of garbage collection is about; `prune` is one such rule. */
export async function* applyRule(
	{ cache, disk }: UsageServices,
	rule: GcRule,
	signal: AbortSignal,
): AsyncGenerator<UsageRecord, void> {
	const matches = filterOf("prune", rule.filters);
	const keepBytes = await bytesToKeep(cache, disk, rule, signal);
	const { totalBytes, freeBytes } = disk();
	yield* cache.prune({
		all: rule.all,
		...(rule.keepDurationMs > 0 ? { keepDurationMs: rule.keepDurationMs } : {}),
		...(keepBytes === undefined ? {} : { keepBytes, usedAtMostBytes: totalBytes - freeBytes }),
		matches: (record) => matches(fieldsOf(record)),
		signal,
	});
}

/** As BuildKit computes it: as much as is allowed, less where the disk lacks space, never less than what is reserved. */
async function bytesToKeep(
	cache: CacheManager,
	disk: ControlServiceOptions["disk"],
	{ reservedBytes, maxUsedBytes, minFreeBytes }: GcRule,
	signal: AbortSignal,
): Promise<number | undefined> {
	if (maxUsedBytes === 0 && reservedBytes === 0 && minFreeBytes === 0) {
		return undefined;
	}
	if (maxUsedBytes === 0 && minFreeBytes === 0) {
		return reservedBytes;
	}
	let keep = maxUsedBytes === 0 ? Number.POSITIVE_INFINITY : maxUsedBytes;
	const excess = minFreeBytes === 0 ? 0 : minFreeBytes - disk().freeBytes;
	if (excess > 0) {
		const records = await cache.usage({ signal });
		const used = records.reduce((sum, { bytes, shared }) => sum + (shared ? 0 : bytes), 0);
		keep = Math.min(keep, used - excess);
	}
	return Math.max(keep, reservedBytes, 0);
}

/** Which records one of the filters matches; all without filters. `what` they are for is in the error of a wrong one. */
export function matchUsage(what: string, texts: readonly string[]): (record: UsageRecord) => boolean {
	const matches = filterOf(what, texts);
	return (record) => matches(fieldsOf(record));
}

function filterOf(what: string, texts: readonly string[]): Filter {
	try {
		return parseFilters(texts);
	} catch (error) {
		throw wrap(error, `failed to parse ${what} filters [${texts.join(" ")}]`);
	}
}

function isUnusedFor({ lastUsedAt }: UsageRecord, limitMs: number): boolean {
	return lastUsedAt === undefined || lastUsedAt < Date.now() - limitMs;
}

function fieldsOf(record: UsageRecord): FilterFields {
	const present = (is: boolean): string | undefined => (is ? "" : undefined);
	return ([name]) => {
		switch (name) {
			case "id":
				return record.id;
			case "parents":
				return record.parents.join(";") || undefined;
			case "description":
				return record.description || undefined;
			case "inuse":
				return present(record.inUse);
			case "mutable":
				return present(record.mutable);
			case "immutable":
				return present(!record.mutable);
			case "type":
				return record.recordType;
			case "shared":
				return present(record.shared);
			case "private":
				return present(!record.shared);
			default:
				return undefined;
		}
	};
}

function usageMessage(record: UsageRecord): messages.UsageRecord {
	return {
		ID: record.id,
		Mutable: record.mutable,
		InUse: record.inUse,
		Size: record.bytes,
		Parent: "",
		CreatedAt: timestampOf(record.createdAt),
		LastUsedAt: record.lastUsedAt === undefined ? undefined : timestampOf(record.lastUsedAt),
		UsageCount: record.usageCount,
		Description: record.description,
		RecordType: record.recordType,
		Shared: record.shared,
		Parents: record.parents,
	};
}
