import type { StatusResponse } from "../api/generated/control.ts";
import type { SourceInfo } from "../api/generated/ops.ts";
import { millisecondsOf } from "../api/timestamps.ts";
import type { SourceFile } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { ProgressEvent } from "../progress/progress.ts";

const decoder = new TextDecoder();

/** One message of `Control.Status` as events: vertices first, since the others name them. */
export function* statusEvents(response: StatusResponse): Generator<ProgressEvent> {
	for (const vertex of response.vertexes) {
		const started = millisecondsOf(vertex.started);
		const completed = millisecondsOf(vertex.completed);
		yield {
			kind: "vertex",
			vertex: {
				digest: vertex.digest as Digest,
				inputs: vertex.inputs as readonly Digest[],
				name: vertex.name,
				cached: vertex.cached,
				...(started === undefined ? {} : { started }),
				...(completed === undefined ? {} : { completed }),
				...(vertex.error === "" ? {} : { error: vertex.error }),
				...(vertex.progressGroup === undefined ? {} : { progressGroup: vertex.progressGroup }),
			},
		};
	}
	for (const status of response.statuses) {
		const started = millisecondsOf(status.started);
		const completed = millisecondsOf(status.completed);
		yield {
			kind: "status",
			status: {
				vertex: status.vertex as Digest,
				id: status.ID,
				name: status.name,
				current: status.current,
				total: status.total,
				timestamp: millisecondsOf(status.timestamp) ?? 0,
				...(started === undefined ? {} : { started }),
				...(completed === undefined ? {} : { completed }),
			},
		};
	}
	for (const log of response.logs) {
		yield {
			kind: "log",
			log: {
				vertex: log.vertex as Digest,
				stream: log.stream === 2 ? 2 : 1,
				data: log.msg,
				timestamp: millisecondsOf(log.timestamp) ?? 0,
			},
		};
	}
	for (const warning of response.warnings) {
		yield {
			kind: "warning",
			warning: {
				vertex: warning.vertex as Digest,
				level: warning.level,
				short: decoder.decode(warning.short),
				detail: warning.detail.map((line) => decoder.decode(line)),
				...(warning.url === "" ? {} : { url: warning.url }),
				...(warning.info === undefined ? {} : { source: sourceFile(warning.info) }),
				ranges: warning.ranges.map(({ start, end }) => ({
					start: { line: start?.line ?? 0, character: start?.character ?? 0 },
					end: { line: end?.line ?? 0, character: end?.character ?? 0 },
				})),
			},
		};
	}
}

function sourceFile({ filename, data, language }: SourceInfo): SourceFile {
	return { filename, data, ...(language === "" ? {} : { language }) };
}
