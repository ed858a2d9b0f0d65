import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { HistoryEvent, HistoryRecord, WorkerInfo } from "../../client/client.ts";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import type { Descriptor } from "../../oci/descriptor.ts";
import { isDigest } from "../../oci/digest.ts";
import { formatGoDuration } from "../../oci/go-duration.ts";
import { formatPlatform, normalizePlatform } from "../../oci/platform.ts";
import type { FlagSpec, ParsedFlags } from "../flags.ts";
import { readStdin } from "../read-stdin.ts";
import type { Terminal } from "../terminal.ts";
import type { CommandContext } from "./buildctl.ts";
import { templateOf } from "./disk.ts";
import { historyStruct, infoStruct, workerStruct } from "./records.ts";
import { tabTable } from "./tab-table.ts";

const format: FlagSpec = {
	name: "format",
	kind: "string",
	value: "template",
	help: "Format the output with a Go template, such as '{{json .}}'",
};

export const debugFlags: Readonly<Record<string, readonly FlagSpec[]>> = {
	"dump-llb": [{ name: "dot", kind: "bool", help: "Output dot format" }],
	"dump-metadata": [{ name: "root", kind: "string", value: "dir", help: "State directory" }],
	workers: [
		{ name: "filter", short: "f", kind: "list", value: "filter", help: "Containerd-style filters" },
		{ name: "verbose", short: "v", kind: "bool", help: "Verbose output" },
		format,
	],
	info: [format],
	monitor: [
		{ name: "completed", kind: "bool", help: "Show completed builds too" },
		{ name: "ref", kind: "string", value: "ref", help: "Show the events of one build" },
	],
	logs: [
		{ name: "progress", kind: "string", value: "type", help: "Progress output type" },
		{ name: "trace", kind: "bool", help: "Show the OpenTelemetry trace" },
	],
	ctl: [
		{ name: "pin", kind: "bool", help: "Pin the build's record, so that it is not garbage collected" },
		{ name: "unpin", kind: "bool", help: "Unpin it" },
		{ name: "delete", kind: "bool", help: "Delete it" },
	],
	get: [],
	histories: [format],
};

/** What they are for. */
export const debugCommands: ReadonlyMap<string, string> = new Map([
	["dump-llb", "Show a graph in text form; needs no builder"],
	["dump-metadata", "Show buildkitd's own database (not Slipway's)"],
	["workers", "List workers"],
	["info", "Show the builder's version"],
	["monitor", "Show builds as they come and go"],
	["logs", "Show the log of a build"],
	["ctl", "Pin, unpin or delete the record of a build"],
	["get", "Write a blob of the builder to standard output"],
	["histories", "List the records of builds"],
]);

/** `buildctl debug NAME`. Those that need no builder are in `debugOffline`. */
export async function debug(name: string, context: CommandContext): Promise<void> {
	const { client, flags, terminal } = context;
	const { stdout } = terminal;
	const options = { signal: terminal.interrupted };
	switch (name) {
		case "workers": {
			const workers = await client.call("failed to list workers", (builder) =>
				builder.workers(flags.list("filter"), options),
			);
			const template = templateOf(flags);
			if (template !== undefined) {
				stdout.write(`${template(workers.map(workerStruct))}\n`);
			} else if (flags.bool("verbose")) {
				stdout.write(tabTable(workers.flatMap(workerLines)));
			} else {
				stdout.write(tabTable([["ID", "PLATFORMS"], ...workers.map((each) => [each.id, platforms(each)])]));
			}
			break;
		}
		case "info": {
			const info = await client.call("failed to call info", (builder) => builder.info(options));
			const template = templateOf(flags);
			const version = info.version;
			const lines = [
				["BuildKit:", `${version?.package ?? ""} ${version?.version ?? ""} ${version?.revision ?? ""}`],
				...(version?.dockerfileVersion ? [["Dockerfile:", version.dockerfileVersion]] : []),
			];
			const width = Math.max(...lines.map(([title = ""]) => title.length)) + 1;
			stdout.write(
				template === undefined
					? lines.map(([title = "", value = ""]) => `${title.padEnd(width)}${value}\n`).join("")
					: `${template(infoStruct(info))}\n`,
			);
			break;
		}
		case "histories":
			await histories(context);
			break;
		case "monitor":
			await monitor(context);
			break;
		case "logs":
			await logs(context);
			break;
		case "ctl":
			await control(context);
			break;
		case "get": {
			const digest = digestOf(argument(flags, "blob digest must be specified"));
			for await (const chunk of client.stream("", (builder) => builder.readBlob(digest, options))) {
				await stdout.writeBytes(chunk);
			}
			break;
		}
	}
}

/** `buildctl debug dump-llb`, `dump-metadata`. */
export async function debugOffline(name: string, flags: ParsedFlags, terminal: Terminal): Promise<void> {
	if (name === "dump-metadata") {
		throw new SlipwayError(
			"unimplemented",
			"buildctl debug dump-metadata reads buildkitd's own database files, which Slipway does not have: look into metadata.db of the state directory with sqlite3",
		);
	}
	const { dumpDefinition } = await import("../../llb/dump-definition.ts");
	const [file] = flags.args;
	const bytes =
		file === undefined || file === "-" ? await readStdin(terminal) : readFile(resolve(terminal.cwd, file));
	terminal.stdout.write(dumpDefinition(bytes, { dot: flags.bool("dot") }));
}

function digestOf(text: string): string {
	if (!isDigest(text)) {
		throw new SlipwayError("invalid-argument", "invalid checksum digest format");
	}
	return text;
}

function readFile(path: string): Uint8Array {
	try {
		return readFileSync(path);
	} catch (thrown) {
		throw wrap(thrown, `could not read ${path}`);
	}
}

function argument(flags: ParsedFlags, missing: string): string {
	const [first] = flags.args;
	if (first === undefined) {
		throw new SlipwayError("invalid-argument", missing);
	}
	return first;
}

function platforms(worker: WorkerInfo): string {
	return worker.platforms.map((each) => formatPlatform(normalizePlatform(each))).join(",");
}

function workerLines(worker: WorkerInfo): readonly (readonly string[])[] {
	const { version } = worker;
	return [
		["ID:", worker.id],
		["Platforms:", platforms(worker)],
		["BuildKit:", `${version?.package ?? ""} ${version?.version ?? ""} ${version?.revision ?? ""}`],
		...(version?.dockerfileVersion ? [["Dockerfile:", version.dockerfileVersion]] : []),
		["Labels:"],
		...sortedEntries(worker.labels).map(([name, value]) => ["", `${name}:`, value]),
		...(worker.devices.length === 0 ? [] : [["Devices:"]]),
		...worker.devices.flatMap((device) => [
			["", "Name:", device.name],
			device.onDemand
				? ["", "OnDemand:", String(device.onDemand)]
				: ["", "AutoAllow:", String(device.autoAllow)],
			...sortedEntries(device.annotations).map(([name, value]) => ["", "Annotations:", `${name}:`, value]),
		]),
		...(worker.devices.length === 0 ? [] : [[""]]),
		...worker.gcPolicy.flatMap((policy, index) => [
			[`GC Policy rule#${index}:`],
			["", "All:", String(policy.all)],
			...(policy.filters.length === 0 ? [] : [["", "Filters:", policy.filters.join(" ")]]),
			...(Number(policy.keepDuration) > 0
				? [["", "Keep duration:", formatGoDuration(Number(policy.keepDuration))]]
				: []),
			...space("Reserved space:", policy.reservedSpace),
			...space("Minimum free space:", policy.minFreeSpace),
			...space("Maximum used space:", policy.maxUsedSpace),
		]),
		[""],
	];
}

function sortedEntries(record: Readonly<Record<string, string>>): readonly (readonly [string, string])[] {
	return Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
}

function space(title: string, bytes: number): readonly (readonly string[])[] {
	return bytes > 0 ? [["", title, exactBytes(bytes)]] : [];
}

const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** Go's `%g` of a size: all digits that it has, in the largest decimal unit that is not larger than it. */
function exactBytes(bytes: number): string {
	const unit = Math.min(Math.floor((String(Math.trunc(bytes)).length - 1) / 3), units.length - 1);
	return `${bytes / 1000 ** unit}${units[unit]}`;
}

async function histories({ client, flags, terminal }: CommandContext): Promise<void> {
	const { stdout, interrupted } = terminal;
	const template = templateOf(flags);
	const titles = ["TYPE", "REF", "CREATED", "COMPLETED", "GENERATION", "PINNED"];
	let isFirst = true;
	for await (const event of client.stream(undefined, (builder) =>
		builder.history({ earlyExit: true }, { signal: interrupted }),
	)) {
		if (template !== undefined) {
			stdout.write(`${template(historyStruct(event))}\n`);
		} else {
			const row = [...historyRow(event), event.record.pinned ? "*" : ""];
			stdout.write(tabTable(isFirst ? [titles, row] : [row]));
		}
		isFirst = false;
	}
	if (isFirst && template === undefined) {
		stdout.write(tabTable([titles]));
	}
}

/** `buildctl prune-histories`: deletes the records that are not pinned. */
export async function pruneHistories({ client, flags, terminal }: CommandContext): Promise<void> {
	const { stdout, interrupted } = terminal;
	const template = templateOf(flags);
	const titles = ["TYPE", "REF", "CREATED", "COMPLETED", "GENERATION"];
	const options = { signal: interrupted };
	if (template === undefined) {
		stdout.write(tabTable([titles]));
	}
	const failures: unknown[] = [];
	for await (const event of client.stream(undefined, (builder) =>
		builder.history({ earlyExit: true }, options),
	)) {
		if (event.record.pinned) {
			continue;
		}
		try {
			await client.call("", (builder) =>
				builder.updateHistory({ ref: event.record.ref, delete: true }, options),
			);
		} catch (thrown) {
			failures.push(thrown);
			continue;
		}
		stdout.write(
			template === undefined ? tabTable([historyRow(event)]) : `${template(historyStruct(event))}\n`,
		);
	}
	if (failures.length > 0) {
		throw failures.length === 1
			? failures[0]
			: new SlipwayError("unknown", failures.map((each) => (each as Error).message).join("\n"), {
					cause: failures[0],
				});
	}
}

function historyRow({ type, record }: HistoryEvent): readonly string[] {
	return [
		type.toUpperCase(),
		record.ref,
		localTime(record.createdAt),
		localTime(record.completedAt),
		String(record.generation),
	];
}

/** RFC 3339 in the zone of this machine, without fractions. */
function localTime(milliseconds: number | undefined): string {
	if (milliseconds === undefined) {
		return "";
	}
	const offset = -new Date(milliseconds).getTimezoneOffset();
	const shifted = new Date(milliseconds + offset * 60_000).toISOString().slice(0, 19);
	const two = (value: number): string => String(value).padStart(2, "0");
	const distance = Math.abs(offset);
	return offset === 0
		? `${shifted}Z`
		: `${shifted}${offset < 0 ? "-" : "+"}${two(Math.floor(distance / 60))}:${two(distance % 60)}`;
}

async function monitor({ client, flags, terminal }: CommandContext): Promise<void> {
	const { stdout, interrupted } = terminal;
	const request = { activeOnly: !flags.bool("completed"), ref: flags.string("ref") ?? "" };
	for await (const { type, record } of client.stream(undefined, (builder) =>
		builder.history(request, { signal: interrupted }),
	)) {
		stdout.write(
			[
				`event: ${type.toUpperCase()} ref:${record.ref}`,
				...(record.totalSteps === 0 ? [] : [`  cache: ${record.cachedSteps}/${record.totalSteps}`]),
				...(record.warnings === 0 ? [] : [`  warnings: ${record.warnings}`]),
				...blobLines(record),
				"",
			].join("\n"),
		);
	}
}

function blobLines(record: HistoryRecord): readonly string[] {
	const line = (title: string, blob: Descriptor): string =>
		`  ${title}: media_type:"${blob.mediaType}" digest:"${blob.digest}" size:${blob.size}`;
	return [
		...(record.logs === undefined ? [] : [line("logs", record.logs)]),
		...(record.trace === undefined ? [] : [line("trace", record.trace)]),
		...record.results.map((blob) => line("descriptor", blob)),
		...record.attestations.map((blob) => line("attestation", blob)),
	];
}

async function logs({ client, flags, terminal }: CommandContext): Promise<void> {
	const ref = argument(flags, "build ref must be specified");
	const options = { signal: terminal.interrupted };
	if (flags.bool("trace")) {
		for await (const { record } of client.stream(undefined, (builder) =>
			builder.history({ ref, earlyExit: true }, options),
		)) {
			if (record.trace === undefined) {
				throw new SlipwayError("not-found", `ref ${ref} does not have trace`);
			}
			const { digest } = record.trace;
			for await (const chunk of client.stream("", (builder) => builder.readBlob(digest, options))) {
				await terminal.stdout.writeBytes(chunk);
			}
			return;
		}
		throw new SlipwayError("not-found", `ref ${ref} not found`);
	}
	const { createDisplay } = await import("../../progress/display.ts");
	const display = createDisplay({
		mode: flags.string("progress") ?? "auto",
		out: terminal.stdout,
		env: terminal.env,
	});
	try {
		await client.call(undefined, (builder) => builder.status(ref, display, options));
	} finally {
		display.end();
	}
}

async function control({ client, flags, terminal }: CommandContext): Promise<void> {
	const ref = argument(flags, "build ref must be specified");
	const [pin, unpin, remove] = [flags.bool("pin"), flags.bool("unpin"), flags.bool("delete")];
	const fail = (message: string): never => {
		throw new SlipwayError("invalid-argument", message);
	};
	if (!pin && !unpin && !remove) {
		fail("must specify one of --pin, --unpin, --delete");
	}
	if (pin && unpin) {
		fail("cannot specify both --pin and --unpin");
	}
	if (remove && (pin || unpin)) {
		fail("cannot specify --delete with --pin or --unpin");
	}
	await client.call("", (builder) =>
		builder.updateHistory({ ref, pinned: pin, delete: remove }, { signal: terminal.interrupted }),
	);
}
