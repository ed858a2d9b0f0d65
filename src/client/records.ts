import type {
	BuildHistoryEvent,
	BuildHistoryRecord,
	UsageRecord as UsageMessage,
	Descriptor as WireDescriptor,
} from "../api/generated/control.ts";
import { BuildHistoryEventType } from "../api/generated/control.ts";
import type { Platform as WirePlatform } from "../api/generated/ops.ts";
import type { BuildkitVersion, WorkerRecord } from "../api/generated/worker.ts";
import { millisecondsOf } from "../api/timestamps.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";
import type { BuilderVersion, HistoryEvent, HistoryRecord, UsageRecord, WorkerInfo } from "./client.ts";

export function usageRecord(message: UsageMessage): UsageRecord {
	return {
		id: message.ID,
		mutable: message.Mutable,
		inUse: message.InUse,
		size: message.Size,
		parents: message.Parents.length === 0 && message.Parent !== "" ? [message.Parent] : message.Parents,
		createdAt: millisecondsOf(message.CreatedAt),
		lastUsedAt: millisecondsOf(message.LastUsedAt),
		usageCount: message.UsageCount,
		description: message.Description,
		recordType: message.RecordType,
		shared: message.Shared,
	};
}

export function workerInfo(message: WorkerRecord): WorkerInfo {
	return {
		id: message.ID,
		labels: Object.fromEntries(message.Labels),
		platforms: message.platforms.map(platform),
		gcPolicy: message.GCPolicy,
		version: builderVersion(message.BuildkitVersion),
		devices: message.CDIDevices.map((device) => ({
			name: device.Name,
			autoAllow: device.AutoAllow,
			annotations: Object.fromEntries(device.Annotations),
			onDemand: device.OnDemand,
		})),
	};
}

export function builderVersion(message: BuildkitVersion | undefined): BuilderVersion | undefined {
	return (
		message && {
			package: message.package,
			version: message.version,
			revision: message.revision,
			dockerfileVersion: message.dockerfileVersion,
		}
	);
}

/** Undefined for an event without a record, which says nothing. */
export function historyEvent({ type, record }: BuildHistoryEvent): HistoryEvent | undefined {
	if (record === undefined) {
		return undefined;
	}
	const name =
		type === BuildHistoryEventType.STARTED
			? "started"
			: type === BuildHistoryEventType.DELETED
				? "deleted"
				: "complete";
	return { type: name, record: historyRecord(record) };
}

function historyRecord(message: BuildHistoryRecord): HistoryRecord {
	const infos = [...message.Results.values(), ...(message.Result === undefined ? [] : [message.Result])];
	const results = infos.flatMap((info) => [
		...(info.ResultDeprecated === undefined ? [] : [info.ResultDeprecated]),
		...info.Results.values(),
	]);
	return {
		ref: message.Ref,
		frontend: message.Frontend,
		frontendOptions: Object.fromEntries(message.FrontendAttrs),
		exporters: message.Exporters.map(({ Type, Attrs }) => ({ type: Type, attrs: Object.fromEntries(Attrs) })),
		error: message.error && { code: message.error.code, message: message.error.message },
		createdAt: millisecondsOf(message.CreatedAt),
		completedAt: millisecondsOf(message.CompletedAt),
		logs: message.logs && descriptor(message.logs),
		trace: message.trace && descriptor(message.trace),
		externalError: message.externalError && descriptor(message.externalError),
		exporterResponse: Object.fromEntries(message.ExporterResponse),
		generation: message.Generation,
		pinned: message.pinned,
		cachedSteps: message.numCachedSteps,
		completedSteps: message.numCompletedSteps,
		totalSteps: message.numTotalSteps,
		warnings: message.numWarnings,
		results: distinct(results),
		attestations: distinct(infos.flatMap((info) => info.Attestations)),
	};
}

/** The same result is there under its exporter and under the name that older clients read. */
function distinct(messages: readonly WireDescriptor[]): readonly Descriptor[] {
	return [...new Map(messages.map((each) => [each.digest, descriptor(each)])).values()];
}

function descriptor(message: WireDescriptor): Descriptor {
	return {
		mediaType: message.mediaType,
		digest: message.digest as Digest,
		size: message.size,
		...(message.annotations.size === 0 ? {} : { annotations: Object.fromEntries(message.annotations) }),
	};
}

function platform(message: WirePlatform): Platform {
	return {
		architecture: message.Architecture,
		os: message.OS,
		...(message.Variant === "" ? {} : { variant: message.Variant }),
		...(message.OSVersion === "" ? {} : { osVersion: message.OSVersion }),
		...(message.OSFeatures.length === 0 ? {} : { osFeatures: message.OSFeatures }),
	};
}
