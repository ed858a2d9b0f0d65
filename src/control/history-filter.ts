import type { BuildHistoryRecord } from "../api/generated/control.ts";
import { millisecondsOf } from "../api/timestamps.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { parseGitRemote } from "../llb/git-remote.ts";
import { csvFields } from "../oci/csv-fields.ts";
import { parseGoDuration } from "../oci/go-duration.ts";
import { goTimeToMs, parseGoTime } from "../oci/go-time.ts";
import { type Filter, parseFilters } from "./service-filter.ts";

type RecordFilter = (record: BuildHistoryRecord) => boolean;

/**
 * Records that match one of the filters, at most `limit` (0 is all), the newest of them. The fields of a filter must all match: `ref`, `status` (running,
 * completed, error, canceled) and `repository` as containerd's filters, `startedAt`, `completedAt` and `duration` with `<`, `>`,
 * `<=`, `>=` and a duration or a time. Throws `invalid-argument`.
 */
export function filterRecords(
	records: readonly BuildHistoryRecord[],
	{ filters, limit }: { readonly filters: readonly string[]; readonly limit: number },
): readonly BuildHistoryRecord[] {
	if (limit < 0) {
		throw new SlipwayError("invalid-argument", `invalid limit ${limit}`);
	}
	const tests = filters.map(parseRecordFilter);
	const found = tests.length === 0 ? records : records.filter((record) => tests.some((test) => test(record)));
	if (limit === 0) {
		return found;
	}
	return found
		.toSorted((a, b) => (millisecondsOf(b.CreatedAt) ?? 0) - (millisecondsOf(a.CreatedAt) ?? 0))
		.slice(0, limit);
}

function parseRecordFilter(text: string): RecordFilter {
	const tests: RecordFilter[] = [];
	const others: string[] = [];
	for (const field of csvFields(text)) {
		const test = parseTimeFilter(field);
		if (test === undefined) {
			others.push(field);
		} else {
			tests.push(test);
		}
	}
	const matches = staticFilter(others, text);
	return (record) => tests.every((test) => test(record)) && matches(([name]) => fieldOf(record, name));
}

function staticFilter(fields: readonly string[], text: string): Filter {
	try {
		return parseFilters([fields.join(",")]);
	} catch (error) {
		throw wrap(error, `failed to parse history filters ${text}`);
	}
}

function parseTimeFilter(field: string): RecordFilter | undefined {
	const [, key, operator = "", value = ""] = /^(.*?)(>=|<=|>|<)(.*)$/s.exec(field) ?? [];
	if (key === "duration") {
		const wanted = durationMs(value);
		if (wanted === undefined) {
			throw new SlipwayError("invalid-argument", `invalid duration ${value}`);
		}
		return (record) => {
			const completed = millisecondsOf(record.CompletedAt);
			return compare(
				completed === undefined ? 0 : completed - (millisecondsOf(record.CreatedAt) ?? 0),
				operator,
				wanted,
			);
		};
	}
	if (key !== "startedAt" && key !== "completedAt") {
		return undefined;
	}
	const wanted = timeSeconds(value);
	return (record) => {
		const time = key === "startedAt" ? record.CreatedAt : record.CompletedAt;
		return compare(time?.seconds ?? 0, operator, wanted);
	};
}

function durationMs(text: string): number | undefined {
	try {
		return parseGoDuration(text) / 1e6;
	} catch {
		return undefined;
	}
}

/** A duration counts back from now. */
function timeSeconds(text: string): number {
	const ago = durationMs(text);
	try {
		return Math.floor((ago === undefined ? goTimeToMs(parseGoTime(text)) : Date.now() - ago) / 1000);
	} catch (error) {
		throw new SlipwayError("invalid-argument", `invalid time ${text}`, { cause: error });
	}
}

function compare(value: number, operator: string, wanted: number): boolean {
	switch (operator) {
		case ">=":
			return value >= wanted;
		case "<=":
			return value <= wanted;
		case ">":
			return value > wanted;
		default:
			return value < wanted;
	}
}

function fieldOf(record: BuildHistoryRecord, name: string | undefined): string | undefined {
	switch (name) {
		case "ref":
			return record.Ref || undefined;
		case "status":
			return statusOf(record);
		case "repository":
			return record.FrontendAttrs.get("vcs:source") ?? remoteOf(record.FrontendAttrs.get("context"));
		default:
			return undefined;
	}
}

function statusOf(record: BuildHistoryRecord): string {
	if (record.CompletedAt === undefined) {
		return "running";
	}
	if (record.error === undefined) {
		return "completed";
	}
	return record.error.message.includes("context canceled") ? "canceled" : "error";
}

/** A context that is a URL or one of ssh's; others are directories. */
const isGitUrl = /^[a-zA-Z0-9]+:\/\/|^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:/;

function remoteOf(context: string | undefined): string | undefined {
	return context !== undefined && isGitUrl.test(context) ? parseGitRemote(context)?.remote : undefined;
}
