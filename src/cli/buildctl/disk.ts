import type { UsageRecord } from "../../client/client.ts";
import { parseGoDuration } from "../../oci/go-duration.ts";
import { formatBytes } from "../../progress/number-text.ts";
import type { FlagSpec, ParsedFlags } from "../flags.ts";
import type { CommandContext } from "./buildctl.ts";
import { parseTemplate } from "./go-template.ts";
import { GoTime } from "./go-values.ts";
import { usageStruct } from "./records.ts";
import { tabTable } from "./tab-table.ts";

const shared: readonly FlagSpec[] = [
	{ name: "filter", short: "f", kind: "list", value: "filter", help: "Filter records" },
	{ name: "verbose", short: "v", kind: "bool", help: "Verbose output" },
	{
		name: "format",
		kind: "string",
		value: "template",
		help: "Format the output with a Go template, such as '{{json .}}'",
	},
];

export const diskUsageFlags: readonly FlagSpec[] = shared;

export const pruneFlags: readonly FlagSpec[] = [
	...shared,
	{ name: "all", kind: "bool", help: "Include internal records and frontend images" },
	{ name: "keep-duration", kind: "string", value: "duration", help: "Keep what was used within this time" },
	{ name: "keep-storage", kind: "string", value: "MB", help: "Keep at most this much" },
	{ name: "keep-storage-min", kind: "string", value: "MB", help: "Always keep this much" },
	{ name: "free-storage", kind: "string", value: "MB", help: "Keep this much of the disk free" },
];

export async function diskUsage({ client, flags, terminal }: CommandContext): Promise<void> {
	const filters = flags.list("filter");
	const template = templateOf(flags);
	const records = await client.call("failed to call diskusage", (builder) =>
		builder.diskUsage(filters, { signal: terminal.interrupted }),
	);
	if (template !== undefined) {
		terminal.stdout.write(`${template(records.map(usageStruct))}\n`);
		return;
	}
	terminal.stdout.write(flags.bool("verbose") ? verboseText(records) : table([header, ...records.map(row)]));
	if (filters.length === 0) {
		terminal.stdout.write(summary(records));
	}
}

export async function prune({ client, flags, terminal }: CommandContext): Promise<void> {
	const template = templateOf(flags);
	const duration = flags.string("keep-duration");
	const request = {
		filters: flags.list("filter"),
		all: flags.bool("all"),
		...(duration === undefined ? {} : { keepDuration: BigInt(parseGoDuration(duration)) }),
		reservedSpace: megabytes(flags, "keep-storage-min"),
		maxUsedSpace: megabytes(flags, "keep-storage"),
		minFreeSpace: megabytes(flags, "free-storage"),
	};
	const removed = client.stream("failed to call prune", (builder) =>
		builder.prune(request, { signal: terminal.interrupted }),
	);
	let total = 0;
	let isFirst = true;
	for await (const record of removed) {
		total += record.size;
		if (template !== undefined) {
			terminal.stdout.write(`${template(usageStruct(record))}\n`);
		} else if (flags.bool("verbose")) {
			terminal.stdout.write(verboseText([record]));
		} else {
			terminal.stdout.write(table(isFirst ? [header, row(record)] : [row(record)]));
			isFirst = false;
		}
	}
	if (template === undefined) {
		terminal.stdout.write(tabTable([["Total:", formatBytes(total)]]));
	}
}

export function templateOf(flags: ParsedFlags): ((data: unknown) => string) | undefined {
	const format = flags.string("format");
	return format === undefined || format === "" ? undefined : parseTemplate(format);
}

function megabytes(flags: ParsedFlags, name: string): number {
	return Math.trunc(Number(flags.string(name) ?? 0) * 1e6);
}

const header = ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"];

/** The last column has a title and no values, as in BuildKit's client. */
function row(record: UsageRecord): readonly string[] {
	return [
		`${record.id}${record.mutable ? "*" : ""}`.padEnd(71),
		String(!record.inUse).padEnd(11),
		`${formatBytes(record.size)}${record.shared ? "*" : ""}`,
		"",
	];
}

function table(rows: readonly (readonly string[])[]): string {
	return tabTable(rows);
}

function verboseText(records: readonly UsageRecord[]): string {
	const rows = records.flatMap((record) => [
		["ID:", record.id],
		...(record.parents.length === 0 ? [] : [["Parents:", record.parents.join(";")]]),
		["Created at:", String(new GoTime(record.createdAt ?? 0))],
		["Mutable:", String(record.mutable)],
		["Reclaimable:", String(!record.inUse)],
		["Shared:", String(record.shared)],
		["Size:", formatBytes(record.size)],
		...(record.description === "" ? [] : [["Description:", record.description]]),
		["Usage count:", String(record.usageCount)],
		...(record.lastUsedAt === undefined ? [] : [["Last used:", String(new GoTime(record.lastUsedAt))]]),
		...(record.recordType === "" ? [] : [["Type:", record.recordType]]),
		[""],
	]);
	return tabTable(rows);
}

function summary(records: readonly UsageRecord[]): string {
	const sum = (wanted: (record: UsageRecord) => boolean): number =>
		records.filter(wanted).reduce((total, { size }) => total + size, 0);
	const total = sum(({ size }) => size > 0);
	const sharedBytes = sum((record) => record.shared);
	return tabTable([
		...(sharedBytes > 0
			? [
					["Shared:", formatBytes(sharedBytes)],
					["Private:", formatBytes(total - sharedBytes)],
				]
			: []),
		["Reclaimable:", formatBytes(sum(({ size, inUse }) => size > 0 && !inUse))],
		["Total:", formatBytes(total)],
	]);
}
