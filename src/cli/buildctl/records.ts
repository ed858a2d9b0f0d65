import type {
	BuilderInfo,
	BuilderVersion,
	HistoryEvent,
	UsageRecord,
	WorkerInfo,
} from "../../client/client.ts";
import type { Descriptor } from "../../oci/descriptor.ts";
import { GoDuration, GoEnum, GoNil, GoStruct, GoTime } from "./go-values.ts";

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
		["Parents", "parents", listOrNil(record.parents)],
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
					["Filter", "filter", listOrNil(policy.filters)],
					["KeepDuration", "keepDuration", new GoDuration(Number(policy.keepDuration))],
					["ReservedSpace", "reservedSpace", policy.reservedSpace],
					["MaxUsedSpace", "maxUsedSpace", policy.maxUsedSpace],
					["MinFreeSpace", "minFreeSpace", policy.minFreeSpace],
				),
			),
		],
		["BuildkitVersion", "buildkitVersion", versionStruct(worker.version)],
		["CDIDevices", "cdiDevices", listOrNil(worker.devices)],
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

/** `BuildHistoryEventType`. */
const eventTypes = {
	started: new GoEnum(0, "STARTED"),
	complete: new GoEnum(1, "COMPLETE"),
	deleted: new GoEnum(2, "DELETED"),
} as const;

function listOrNil<T>(list: readonly T[]): readonly T[] | GoNil {
	return list.length === 0 ? new GoNil("[]") : list;
}

/** As messages of protobuf are: what is empty is there for templates, and not in JSON. */
export function historyStruct({ type, record }: HistoryEvent): GoStruct {
	return message(
		["Type", "type", eventTypes[type]],
		[
			"Record",
			"record",
			message(
				["Ref", "Ref", record.ref],
				["Frontend", "Frontend", record.frontend],
				["FrontendAttrs", "FrontendAttrs", record.frontendOptions],
				[
					"Exporters",
					"Exporters",
					record.exporters.map(({ type: name, attrs }) =>
						message(["Type", "Type", name], ["Attrs", "Attrs", attrs]),
					),
				],
				["Error", "error", record.error],
				["CreatedAt", "CreatedAt", timestamp(record.createdAt)],
				["CompletedAt", "CompletedAt", timestamp(record.completedAt)],
				["Logs", "logs", descriptor(record.logs)],
				["ExporterResponse", "ExporterResponse", record.exporterResponse],
				["Result", "Result", resultOf(record)],
				["Generation", "Generation", record.generation],
				["Trace", "trace", descriptor(record.trace)],
				["Pinned", "pinned", record.pinned],
				["NumCachedSteps", "numCachedSteps", record.cachedSteps],
				["NumTotalSteps", "numTotalSteps", record.totalSteps],
				["NumCompletedSteps", "numCompletedSteps", record.completedSteps],
				["ExternalError", "externalError", descriptor(record.externalError)],
				["NumWarnings", "numWarnings", record.warnings],
			),
		],
	);
}

function resultOf({ results, attestations }: HistoryEvent["record"]): GoStruct | undefined {
	return results.length + attestations.length === 0
		? undefined
		: message(
				["ResultDeprecated", "ResultDeprecated", descriptor(results[0])],
				["Attestations", "Attestations", attestations.map(descriptor)],
				["Results", "Results", Object.fromEntries(results.map((each, index) => [index, descriptor(each)]))],
			);
}

function descriptor(value: Descriptor | undefined): GoStruct | undefined {
	return (
		value &&
		message(
			["MediaType", "media_type", value.mediaType],
			["Digest", "digest", value.digest],
			["Size", "size", value.size],
			["Annotations", "annotations", value.annotations ?? {}],
		)
	);
}

/** The message, which is what templates see of a history. */
function timestamp(milliseconds: number | undefined): GoStruct | undefined {
	if (milliseconds === undefined) {
		return undefined;
	}
	const seconds = Math.floor(milliseconds / 1000);
	const nanoseconds = Math.floor((milliseconds - seconds * 1000) * 1e6);
	return new GoStruct(
		[
			{ name: "Seconds", json: "seconds", value: seconds },
			{ name: "Nanos", json: "nanos", value: nanoseconds },
		],
		{ text: `seconds:${seconds}  nanos:${nanoseconds}` },
	);
}

function time(milliseconds: number | undefined): GoTime | undefined {
	return milliseconds === undefined ? undefined : new GoTime(milliseconds);
}

function struct(...fields: readonly (readonly [name: string, json: string, value: unknown])[]): GoStruct {
	return new GoStruct(fields.map(([name, json, value]) => ({ name, json, value })));
}

function message(...fields: readonly (readonly [name: string, json: string, value: unknown])[]): GoStruct {
	return new GoStruct(fields.map(([name, json, value]) => ({ name, json, value, omitEmpty: true })));
}
