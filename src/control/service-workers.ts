import type { InfoResponse, ListWorkersRequest, ListWorkersResponse } from "../api/generated/control.ts";
import type { Platform as PlatformMessage } from "../api/generated/ops.ts";
import type { Platform } from "../oci/platform.ts";
import type { BuilderVersion, GcRule, WorkerDescription } from "./service.ts";
import { parseFilters } from "./service-filter.ts";

export function listWorkers(
	worker: WorkerDescription,
	version: BuilderVersion,
	{ filter }: ListWorkersRequest,
): ListWorkersResponse {
	const matches = parseFilters(filter)(([name, ...rest]) => {
		if (name === "id") {
			return worker.id || undefined;
		}
		return name === "labels" ? worker.labels.get(rest.join(".")) : undefined;
	});
	if (!matches) {
		return { record: [] };
	}
	return {
		record: [
			{
				ID: worker.id,
				Labels: new Map(worker.labels),
				platforms: worker.platforms().map(platformMessage),
				GCPolicy: worker.gcPolicy.map(ruleMessage),
				BuildkitVersion: version,
				CDIDevices: worker.devices().map(({ name, annotations, autoAllowed }) => ({
					Name: name,
					AutoAllow: autoAllowed,
					Annotations: new Map(Object.entries(annotations)),
					OnDemand: false,
				})),
			},
		],
	};
}

export function builderInfo(version: BuilderVersion): InfoResponse {
	return { buildkitVersion: version };
}

function platformMessage(platform: Platform): PlatformMessage {
	return {
		Architecture: platform.architecture,
		OS: platform.os,
		Variant: platform.variant ?? "",
		OSVersion: platform["os.version"] ?? "",
		OSFeatures: platform["os.features"] ?? [],
	};
}

function ruleMessage(rule: GcRule): ListWorkersResponse["record"][number]["GCPolicy"][number] {
	return {
		all: rule.all,
		filters: rule.filters,
		keepDuration: String(BigInt(Math.round(rule.keepDurationMs)) * 1_000_000n),
		reservedSpace: rule.reservedBytes,
		maxUsedSpace: rule.maxUsedBytes,
		minFreeSpace: rule.minFreeBytes,
	};
}
