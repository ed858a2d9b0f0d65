import type { UsageRecord } from "../client/client.ts";
import { SlipwayError } from "../errors/errors.ts";
import { parseTemplate } from "./buildctl/go-template.ts";
import { GoStruct, GoTime } from "./buildctl/go-values.ts";
import { tabTable } from "./buildctl/tab-table.ts";
import { humanDuration, humanSize } from "./human-units.ts";

/** What `docker buildx du` and `prune` print. */

const tableFormat = "table {{.ID}}\\t{{.Reclaimable}}\\t{{.Size}}\\t{{.LastUsedAt}}";

const headers: Readonly<Record<string, string>> = {
	ID: "ID",
	Parents: "PARENTS",
	CreatedAt: "CREATED AT",
	Mutable: "MUTABLE",
	Reclaimable: "RECLAIMABLE",
	Shared: "SHARED",
	Size: "SIZE",
	Description: "DESCRIPTION",
	UsageCount: "USAGE COUNT",
	LastUsedAt: "LAST ACCESSED",
	Type: "TYPE",
};

export interface UsageFormat {
	/** `table`, `pretty`, `json`, a template, or `table` and a template. */
	readonly format: string;
	/** With the sums at the end, which a selection does not have. */
	readonly summary: boolean;
	readonly now: number;
}

/** Throws `invalid-argument` for a template that is none. */
export function usageText(records: readonly UsageRecord[], { format, summary, now }: UsageFormat): string {
	if (format === "pretty") {
		return `${records.map((record) => prettyText(record, now)).join("\n")}${summary ? usageSummary(records) : ""}`;
	}
	const text = format === "table" ? tableFormat : format;
	const isTable = text.startsWith("table ");
	const template = parseTemplate(
		(isTable ? text.slice("table ".length) : text).trim().replaceAll("\\t", "\t").replaceAll("\\n", "\n"),
	);
	const lines = records.map((record) => template(fieldsOf(record, { isTable, now })));
	if (!isTable) {
		return lines.map((line) => `${line}\n`).join("");
	}
	const head = template(
		new GoStruct(Object.entries(headers).map(([name, value]) => ({ name, json: name, value }))),
	);
	return (
		columns([head, ...lines].map((line) => line.split("\t"))) +
		(summary && format === "table" ? usageSummary(records) : "")
	);
}

/** In the order of the alphabet, which JSON has them in. */
function fieldsOf(
	record: UsageRecord,
	{ isTable, now }: { readonly isTable: boolean; readonly now: number },
): GoStruct {
	const values: Readonly<Record<string, unknown>> = {
		CreatedAt: String(new GoTime(record.createdAt ?? 0)),
		Description: record.description,
		ID: record.id + (isTable && record.mutable ? "*" : ""),
		LastUsedAt: lastUsed(record, now),
		Mutable: record.mutable,
		Parents: record.parents.length === 0 ? undefined : record.parents,
		Reclaimable: !record.inUse,
		Shared: record.shared,
		Size: humanSize(record.size) + (isTable && record.shared ? "*" : ""),
		Type: record.recordType,
		UsageCount: record.usageCount,
	};
	return new GoStruct(
		Object.entries(values).map(([name, value]) => ({ name, json: name, value })),
		{ escapesHtml: true },
	);
}

function lastUsed({ lastUsedAt }: UsageRecord, now: number): string {
	return lastUsedAt === undefined ? "" : `${humanDuration(now - lastUsedAt)} ago`;
}

function prettyText(record: UsageRecord, now: number): string {
	const line = (name: string, value: unknown): string => `${`${name}:`.padEnd(14)}${value}\n`;
	return [
		line("ID", record.id),
		...(record.parents.length === 0 ? [] : ["Parents:\n", ...record.parents.map((id) => ` - ${id}\n`)]),
		line("Created at", new GoTime(record.createdAt ?? 0)),
		line("Mutable", record.mutable),
		line("Reclaimable", !record.inUse),
		line("Shared", record.shared),
		line("Size", humanSize(record.size)),
		...(record.description === "" ? [] : [line("Description", record.description)]),
		line("Usage count", record.usageCount),
		...(record.lastUsedAt === undefined ? [] : [line("Last used", lastUsed(record, now))]),
		...(record.recordType === "" ? [] : [line("Type", record.recordType)]),
	].join("");
}

/** Docker's tables: columns are at least seven wide, with three blanks behind. */
function columns(rows: readonly (readonly string[])[]): string {
	const widths: number[] = [];
	for (const row of rows) {
		for (const [at, cell] of row.slice(0, -1).entries()) {
			widths[at] = Math.max(widths[at] ?? 10, [...cell].length + 3);
		}
	}
	return rows
		.map(
			(row) =>
				`${row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0))).join("")}\n`,
		)
		.join("");
}

function usageSummary(records: readonly UsageRecord[]): string {
	const sum = (wanted: (record: UsageRecord) => boolean): number =>
		records.filter(wanted).reduce((total, { size }) => total + size, 0);
	const total = sum(() => true);
	const shared = sum((record) => record.shared);
	return tabTable([
		...(shared === 0
			? []
			: [
					["Shared:", humanSize(shared)],
					["Private:", humanSize(total - shared)],
				]),
		["Reclaimable:", humanSize(sum(({ inUse }) => !inUse))],
		["Total:", humanSize(total)],
	]);
}

export interface PrunedText {
	/** What is printed for a record as it goes. */
	line(record: UsageRecord): string;
	/** The last line. */
	total(): string;
}

export function prunedText(verbose: boolean, now: () => number): PrunedText {
	let bytes = 0;
	let isFirst = true;
	return {
		line(record) {
			bytes += record.size;
			if (verbose) {
				return verboseText(record, now());
			}
			const row = [
				`${record.id}${record.mutable ? "*" : ""}`.padEnd(40),
				String(!record.inUse).padEnd(5),
				`${humanSize(record.size)}${record.shared ? "*" : ""}`.padEnd(10),
				lastUsed(record, now()),
			];
			const rows = isFirst ? [["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"], row] : [row];
			isFirst = false;
			return tabTable(rows);
		},
		total: () => tabTable([["Total:", humanSize(bytes)]]),
	};
}

function verboseText(record: UsageRecord, now: number): string {
	return tabTable([
		["ID:", record.id],
		...(record.parents.length === 0 ? [] : [["Parent:", record.parents.join(",")]]),
		["Created at:", String(new GoTime(record.createdAt ?? 0))],
		["Mutable:", String(record.mutable)],
		["Reclaimable:", String(!record.inUse)],
		["Shared:", String(record.shared)],
		["Size:", humanSize(record.size)],
		...(record.description === "" ? [] : [["Description:", record.description]]),
		["Usage count:", String(record.usageCount)],
		...(record.lastUsedAt === undefined ? [] : [["Last used:", lastUsed(record, now)]]),
		...(record.recordType === "" ? [] : [["Type:", record.recordType]]),
		[""],
	]);
}

export interface RecordSelection {
	/** containerd's filter, which a builder understands. */
	readonly filters: readonly string[];
	/** `until`, or `unused-for`: nanoseconds; what was used later stays. */
	readonly unusedFor: string | undefined;
}

/** `--filter name=value` as buildx takes it, each name once; all of them must match. Throws `invalid-argument`. */
export function parseSelection(given: readonly string[]): RecordSelection {
	const values = new Map<string, string>();
	for (const text of given.filter((each) => each !== "")) {
		const equals = text.indexOf("=");
		if (equals === -1) {
			throw invalid(
				`invalid argument ${JSON.stringify(text)} for "--filter" flag: bad format of filter (expected name=value)`,
			);
		}
		const name = text.slice(0, equals).trim().toLowerCase();
		const value = text.slice(equals + 1).trim();
		if (values.has(name) && values.get(name) !== value) {
			throw invalid(`${JSON.stringify(name)} filter expects only one value`);
		}
		values.set(name, value);
	}
	if (values.has("until") && values.has("unused-for")) {
		throw invalid('conflicting filters "until" and "unused-for"');
	}
	const filters = [...values]
		.filter(([name]) => name !== "until" && name !== "unused-for")
		.map(([name, value]) =>
			name === "id" ? `${name}~=${value}` : /[!~]$/.test(name) ? `${name}=${value}` : `${name}==${value}`,
		);
	return {
		filters: filters.length === 0 ? [] : [filters.join(",")],
		unusedFor: values.get("until") ?? values.get("unused-for"),
	};
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
