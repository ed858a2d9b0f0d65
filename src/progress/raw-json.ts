import type { Position, SourceRange } from "../errors/errors.ts";
import { goJson } from "../oci/go-json.ts";
import { formatGoTime } from "../oci/go-time.ts";
import type { LogRecord, ProgressEvent, StatusRecord, VertexRecord, WarningRecord } from "./progress.ts";

/**
 * A batch of events as one line of JSON: `SolveStatus` of BuildKit's Go client (client/graph.go), zero values left out
 * where Go leaves them out.
 */
export function formatSolveStatus(batch: readonly ProgressEvent[]): string {
	const list = <T>(items: readonly T[]): readonly T[] | undefined => (items.length === 0 ? undefined : items);
	return goJson({
		vertexes: list(batch.flatMap((event) => (event.kind === "vertex" ? [vertexJson(event.vertex)] : []))),
		statuses: list(batch.flatMap((event) => (event.kind === "status" ? [statusJson(event.status)] : []))),
		logs: list(batch.flatMap((event) => (event.kind === "log" ? [logJson(event.log)] : []))),
		warnings: list(batch.flatMap((event) => (event.kind === "warning" ? [warningJson(event.warning)] : []))),
	});
}

function vertexJson(vertex: VertexRecord): object {
	const { progressGroup: group } = vertex;
	return {
		digest: vertex.digest,
		inputs: vertex.inputs.length === 0 ? undefined : vertex.inputs,
		name: vertex.name || undefined,
		started: timeJson(vertex.started),
		completed: timeJson(vertex.completed),
		cached: vertex.cached || undefined,
		error: vertex.error || undefined,
		progressGroup:
			group === undefined
				? undefined
				: { id: group.id || undefined, name: group.name || undefined, weak: group.weak || undefined },
	};
}

function statusJson(status: StatusRecord): object {
	return {
		id: status.id,
		vertex: status.vertex,
		name: status.name || undefined,
		total: status.total || undefined,
		current: status.current,
		timestamp: formatGoTime(status.timestamp),
		started: timeJson(status.started),
		completed: timeJson(status.completed),
	};
}

function logJson({ vertex, stream, data, timestamp }: LogRecord): object {
	return { vertex, stream, data, timestamp: formatGoTime(timestamp) };
}

function warningJson(warning: WarningRecord): object {
	const { source, ranges = [] } = warning;
	return {
		vertex: warning.vertex,
		level: warning.level || undefined,
		short: warning.short === "" ? undefined : Buffer.from(warning.short),
		detail: warning.detail.length === 0 ? undefined : warning.detail.map((line) => Buffer.from(line)),
		url: warning.url || undefined,
		sourceInfo:
			source === undefined
				? undefined
				: {
						filename: source.filename || undefined,
						data: source.data.length === 0 ? undefined : source.data,
						language: source.language || undefined,
					},
		range: ranges.length === 0 ? undefined : ranges.map(rangeJson),
	};
}

function rangeJson({ start, end }: SourceRange): object {
	return { start: positionJson(start), end: positionJson(end) };
}

function positionJson({ line, character }: Position): object {
	return { line: line || undefined, character: character || undefined };
}

function timeJson(ms: number | undefined): string | undefined {
	return ms === undefined ? undefined : formatGoTime(ms);
}
