import type {
	BuilderInfo,
	BuilderVersion,
	HistoryEvent,
	UsageRecord,
	WorkerInfo,
} from "../../client/client.ts";
import type { Descriptor } from "../../oci/descriptor.ts";
import { GoStruct, GoTime } from "./go-template.ts";

/** What templates see: the structures of BuildKit's Go client, field by field in its order. */
export function usageStruct(record: UsageRecord): GoStruct {
	return struct(
		["ID", "id", record.id],
		["Mutable", "mutable", record.mutable],
		["InUse", "inUse", record.inUse],
		["Size", "size", record.size],
		["CreatedAt", "createdAt", new GoTime(record.createdAt ?? 0)],
		["LastUsedAt", "lastUsedAt", time(record.lastUsedAt)],
		["UsageCount", "usageCount", record.usageCount],
		["Parents", "parents", record.parents.length === 0 ? undefined : record.parents],
		["Description", "description", record.description],
		["RecordType", "recordType", record.recordType],
		["Shared", "shared", record.shared],
	);
}

export function workerStruct(worker: WorkerInfo): GoStruct {
	return struct(
		["ID", "id", worker.id],
		["Labels", "labels", worker.labels],
		[
			"Platforms",
			"platforms",
			worker.platforms.map(({ architecture, os, variant }) => ({
				architecture,
				os,
				...(variant === undefined ? {} : { variant }),
			})),
		],
		[
			"GCPolicy",
			"gcPolicy",
			worker.gcPolicy.map((policy) =>
				struct(
					["All", "all", policy.all],
					["Filter", "filter", policy.filters.length === 0 ? undefined : policy.filters],
					["KeepDuration", "keepDuration", Number(policy.keepDuration)],
					["ReservedSpace", "reservedSpace", policy.reservedSpace],
					["MaxUsedSpace", "maxUsedSpace", policy.maxUsedSpace],
					["MinFreeSpace", "minFreeSpace", policy.minFreeSpace],
				),
			),
		],
		["BuildkitVersion", "buildkitVersion", versionStruct(worker.version)],
		["CDIDevices", "cdiDevices", filled(worker.devices)],
	);
}

export function infoStruct(info: BuilderInfo): GoStruct {
	return struct(["BuildkitVersion", "buildkitVersion", versionStruct(info.version)]);
}

function versionStruct(version: BuilderVersion | undefined): GoStruct {
	const dockerfile = version?.dockerfileVersion ?? "";
	return struct(
		["Package", "package", version?.package ?? ""],
		["Version", "version", version?.version ?? ""],
		["Revision", "revision", version?.revision ?? ""],
		...(dockerfile === "" ? [] : [["DockerfileVersion", "dockerfileVersion", dockerfile] as const]),
	);
}

/** The numbers of `BuildHistoryEventType`. */
const eventNumbers = { started: 0, complete: 1, deleted: 2 } as const;

export function historyStruct({ type, record }: HistoryEvent): GoStruct {
	const optional = (name: string, json: string, value: unknown) =>
		value === undefined || value === "" || value === 0 || value === false
			? []
			: [[name, json, value] as const];
	return struct(...optional("Type", "type", eventNumbers[type]), [
		"Record",
		"record",
		struct(
			...optional("Ref", "Ref", record.ref),
			...optional("Frontend", "Frontend", record.frontend),
			...optional("FrontendAttrs", "FrontendAttrs", filled(record.frontendOptions)),
			...optional(
				"Exporters",
				"Exporters",
				filled(record.exporters.map(({ type, attrs }) => ({ Type: type, Attrs: attrs }))),
			),
			...optional("Error", "error", record.error),
			...optional("CreatedAt", "CreatedAt", timestamp(record.createdAt)),
			...optional("CompletedAt", "CompletedAt", timestamp(record.completedAt)),
			...optional("Logs", "logs", descriptor(record.logs)),
			...optional("ExporterResponse", "ExporterResponse", filled(record.exporterResponse)),
			...optional("Generation", "Generation", record.generation),
			...optional("Trace", "trace", descriptor(record.trace)),
			...optional("Pinned", "pinned", record.pinned),
			...optional("NumCachedSteps", "numCachedSteps", record.cachedSteps),
			...optional("NumTotalSteps", "numTotalSteps", record.totalSteps),
			...optional("NumCompletedSteps", "numCompletedSteps", record.completedSteps),
			...optional("NumWarnings", "numWarnings", record.warnings),
		),
	]);
}

function descriptor(value: Descriptor | undefined): GoStruct | undefined {
	return (
		value &&
		struct(
			["MediaType", "media_type", value.mediaType],
			["Digest", "digest", value.digest],
			["Size", "size", value.size],
		)
	);
}

function filled<T extends object>(value: T): T | undefined {
	return Object.keys(value).length === 0 ? undefined : value;
}

/** The message, which is what templates see of a history. */
function timestamp(milliseconds: number | undefined): GoStruct | undefined {
	if (milliseconds === undefined) {
		return undefined;
	}
	const seconds = Math.floor(milliseconds / 1000);
	const nanoseconds = Math.floor((milliseconds - seconds * 1000) * 1e6);
	return struct(["Seconds", "seconds", seconds], ["Nanos", "nanos", nanoseconds]);
}

function time(milliseconds: number | undefined): GoTime | undefined {
	return milliseconds === undefined ? undefined : new GoTime(milliseconds);
}

function struct(...fields: readonly (readonly [name: string, json: string, value: unknown])[]): GoStruct {
	return new GoStruct(fields.map(([name, json, value]) => ({ name, json, value })));
}
