import type * as control from "../api/generated/control.ts";
import type { Range, SourceInfo } from "../api/generated/ops.ts";
import { timestampOf } from "../api/timestamps.ts";
import type { SourceFile, SourceRange } from "../errors/errors.ts";
import type { LogRecord, StatusRecord, VertexRecord, WarningRecord } from "../progress/progress.ts";

/** Progress records as `StatusResponse` has them. */
export function vertexMessage(vertex: VertexRecord): control.Vertex {
	return {
		digest: vertex.digest,
		inputs: vertex.inputs,
		name: vertex.name,
		cached: vertex.cached,
		started: optionalTimestamp(vertex.started),
		completed: optionalTimestamp(vertex.completed),
		error: vertex.error ?? "",
		progressGroup: vertex.progressGroup,
	};
}

export function statusMessage(status: StatusRecord): control.VertexStatus {
	return {
		ID: status.id,
		vertex: status.vertex,
		name: status.name,
		current: Math.round(status.current),
		total: Math.round(status.total),
		timestamp: timestampOf(status.timestamp),
		started: optionalTimestamp(status.started),
		completed: optionalTimestamp(status.completed),
	};
}

export function logMessage(log: LogRecord): control.VertexLog {
	return { vertex: log.vertex, stream: log.stream, msg: log.data, timestamp: timestampOf(log.timestamp) };
}

export function warningMessage(warning: WarningRecord): control.VertexWarning {
	const encoder = new TextEncoder();
	return {
		vertex: warning.vertex,
		level: warning.level,
		short: encoder.encode(warning.short),
		detail: warning.detail.map((line) => encoder.encode(line)),
		url: warning.url ?? "",
		info: warning.source === undefined ? undefined : sourceMessage(warning.source),
		ranges: (warning.ranges ?? []).map(rangeMessage),
	};
}

function sourceMessage({ filename, data, language }: SourceFile): SourceInfo {
	return { filename, data, definition: undefined, language: language ?? "" };
}

function rangeMessage({ start, end }: SourceRange): Range {
	return { start, end };
}

function optionalTimestamp(milliseconds: number | undefined): ReturnType<typeof timestampOf> | undefined {
	return milliseconds === undefined ? undefined : timestampOf(milliseconds);
}
