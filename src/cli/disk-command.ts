import { createInterface } from "node:readline";
import { parseDiskSpace } from "../daemon/config-values.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { parseGoDuration } from "../oci/go-duration.ts";
import { openDiskBuilder } from "./disk-builder.ts";
import { parseSelection, prunedText, type RecordSelection, usageText } from "./disk-text.ts";
import { type FlagSpec, helpLines, type ParsedFlags, parseFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

const sharedFlags: readonly FlagSpec[] = [
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
	{
		name: "filter",
		kind: "list",
		value: "filter",
		help: "Only records that match, such as type=source.local, until=24h",
	},
	{ name: "verbose", kind: "bool", help: "Everything that is known of a record" },
	{
		name: "builder",
		kind: "string",
		value: "address",
		help: "Builder in place of the own one, such as unix:///run/buildkit/buildkitd.sock ($SLIPWAY_BUILDER)",
	},
	{
		name: "root",
		kind: "string",
		value: "dir",
		help: "State directory (default $SLIPWAY_ROOT, else /var/lib/slipway)",
	},
	{
		name: "snapshotter",
		kind: "string",
		value: "name",
		help: "How layers are stored: auto, overlayfs, native (default auto)",
	},
	{ name: "runtime", kind: "string", value: "program", help: "OCI runtime (default crun, else runc)" },
	{ name: "debug", short: "D", kind: "bool", help: "Where errors come from" },
];

const diskUsageFlags: readonly FlagSpec[] = [
	...sharedFlags,
	{ name: "format", kind: "string", value: "format", help: "table, pretty, json or a Go template" },
];

const pruneFlags: readonly FlagSpec[] = [
	...sharedFlags,
	{ name: "all", short: "a", kind: "bool", help: "Include internal records and frontend images" },
	{ name: "force", short: "f", kind: "bool", help: "Do not ask" },
	{ name: "keep-duration", kind: "string", value: "duration", help: "Keep what was used within this time" },
	{ name: "reserved-space", kind: "string", value: "bytes", help: "This much is always kept" },
	{ name: "keep-storage", kind: "string", value: "bytes", help: "Old name of --reserved-space" },
	{ name: "max-used-space", kind: "string", value: "bytes", help: "At most this much is kept" },
	{
		name: "min-free-space",
		kind: "string",
		value: "bytes",
		help: "Remove until this much of the disk is free",
	},
];

/** `slipway du`. */
export async function diskUsageCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, diskUsageFlags);
	if (
		isAnswered(flags, terminal, ["slipway du [flags]", "Shows what the builder has on disk.", diskUsageFlags])
	) {
		return 0;
	}
	const format = flags.string("format");
	if (format && flags.bool("verbose")) {
		throw new SlipwayError("invalid-argument", "--format and --verbose cannot be used together");
	}
	const selection = parseSelection(flags.list("filter"));
	const unusedForMs = durationMs("filter until", selection.unusedFor);
	await using builder = await openDiskBuilder(flags, terminal);
	const records = await builder.diskUsage(selection.filters, { signal: terminal.interrupted });
	const now = Date.now();
	const bySize = records.toSorted((a, b) => a.size - b.size || (a.id < b.id ? -1 : 1));
	terminal.stdout.write(
		usageText(
			bySize.filter(({ lastUsedAt }) => unusedForMs === 0 || (lastUsedAt ?? 0) < now - unusedForMs),
			{
				format: format || (flags.bool("verbose") ? "pretty" : "table"),
				summary: flags.list("filter").length === 0,
				now,
			},
		),
	);
	return 0;
}

/** `slipway prune`. */
export async function pruneCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, pruneFlags);
	if (isAnswered(flags, terminal, ["slipway prune [flags]", "Removes build cache.", pruneFlags])) {
		return 0;
	}
	const all = flags.bool("all");
	const selection = parseSelection(flags.list("filter"));
	const request = {
		all,
		filters: selection.filters,
		keepDuration: keepDuration(flags, selection),
		reservedSpace: bytes(flags, flags.given("reserved-space") ? "reserved-space" : "keep-storage"),
		maxUsedSpace: bytes(flags, "max-used-space"),
		minFreeSpace: bytes(flags, "min-free-space"),
	};
	if (!flags.bool("force")) {
		const what = all ? "all" : "all dangling";
		const question = `WARNING! This will remove ${what} build cache. Are you sure you want to continue?`;
		if (!(await agrees(terminal, question))) {
			return 0;
		}
	}
	await using builder = await openDiskBuilder(flags, terminal);
	const text = prunedText(flags.bool("verbose"), Date.now);
	for await (const record of builder.prune(request, { signal: terminal.interrupted })) {
		terminal.stdout.write(text.line(record));
	}
	terminal.stdout.write(text.total());
	return 0;
}

/** Help was asked for, and shown. Arguments are an error. */
function isAnswered(
	flags: ParsedFlags,
	terminal: Terminal,
	[command, what, specs]: readonly [command: string, what: string, specs: readonly FlagSpec[]],
): boolean {
	if (flags.bool("help")) {
		terminal.stdout.write(
			`${[`Usage: ${command}`, "", what, "", "Flags:", ...helpLines(specs)].join("\n")}\n`,
		);
		return true;
	}
	if (flags.args.length > 0) {
		throw new SlipwayError(
			"invalid-argument",
			`${command.split(" ", 2).join(" ")} takes no arguments, but got ${flags.args[0]}`,
		);
	}
	return false;
}

function keepDuration(flags: ParsedFlags, { unusedFor }: RecordSelection): bigint {
	const flag = flags.string("keep-duration");
	if (flag !== undefined && unusedFor !== undefined) {
		throw new SlipwayError(
			"invalid-argument",
			"--keep-duration and --filter until say the same: use one of them",
		);
	}
	const ms = durationMs(flag === undefined ? "filter until" : "keep-duration", flag ?? unusedFor);
	return BigInt(Math.round(ms * 1e6));
}

function durationMs(flag: string, text: string | undefined): number {
	if (text === undefined) {
		return 0;
	}
	try {
		return parseGoDuration(text) / 1e6;
	} catch (thrown) {
		throw wrap(thrown, `--${flag} expects a duration (e.g., '24h')`);
	}
}

function bytes(flags: ParsedFlags, name: string): number {
	const text = flags.string(name);
	if (text === undefined) {
		return 0;
	}
	const space = parseDiskSpace(text);
	if (space.kind !== "bytes") {
		throw new SlipwayError("invalid-argument", `--${name} ${text}: a number of bytes such as 10GB is wanted`);
	}
	return space.bytes;
}

/** Only `y` and `yes` are; the end of the input is a no. */
async function agrees(terminal: Terminal, question: string): Promise<boolean> {
	terminal.stdout.write(`${question} [y/N] `);
	const lines = createInterface({ input: terminal.stdin });
	const stop = (): void => lines.close();
	terminal.interrupted.addEventListener("abort", stop, { once: true });
	try {
		for await (const line of lines) {
			return /^y(?:es)?$/i.test(line.trim());
		}
		terminal.interrupted.throwIfAborted();
		return false;
	} finally {
		terminal.interrupted.removeEventListener("abort", stop);
		lines.close();
	}
}
