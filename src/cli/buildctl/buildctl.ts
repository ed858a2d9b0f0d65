import { version } from "../../daemon/version.ts";
import { findDetail, SlipwayError, toError } from "../../errors/errors.ts";
import { type FlagSpec, helpLines, type ParsedFlags } from "../flags.ts";
import type { Terminal } from "../terminal.ts";
import { address, explained, type LateClient, lateClient } from "./connect.ts";
import { debugCommands, debugFlags } from "./debug.ts";
import { diskUsageFlags, pruneFlags } from "./disk.ts";
import { parseArguments } from "./usage-errors.ts";

const globalFlags: readonly FlagSpec[] = [
	{ name: "debug", kind: "bool", help: "Show where an error comes from" },
	{
		name: "addr",
		kind: "string",
		value: "address",
		help: "Address of the builder (default $BUILDKIT_HOST, else unix:///run/buildkit/buildkitd.sock)",
	},
	{ name: "log-format", kind: "string", value: "format", help: "Format of logs: json or text" },
	{
		name: "tlsservername",
		kind: "string",
		value: "name",
		help: "Name that the builder's certificate must have",
	},
	{ name: "tlscacert", kind: "string", value: "file", help: "CA certificate for validation" },
	{ name: "tlscert", kind: "string", value: "file", help: "Client certificate" },
	{ name: "tlskey", kind: "string", value: "file", help: "Client key" },
	{
		name: "tlsdir",
		kind: "string",
		value: "dir",
		help: "Directory with ca.pem, cert.pem, key.pem, or ca.crt, tls.crt, tls.key",
	},
	{ name: "timeout", kind: "string", value: "seconds", help: "How long connecting may take (default 5)" },
	{ name: "wait", kind: "bool", help: "Wait until the builder can be reached" },
	{ name: "version", short: "v", kind: "bool", help: "Print the version" },
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
];

const commands: ReadonlyMap<string, string> = new Map([
	["du", "Disk usage"],
	["prune", "Clean up the build cache"],
	["prune-histories", "Clean up build histories"],
	["build, b", "Build"],
	["debug", "Debug utilities"],
]);

const help: FlagSpec = { name: "help", short: "h", kind: "bool", help: "Show this help" };

/** BuildKit's command line client: its commands, flags, messages and exit codes. */
export async function buildctlCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	let isDebug = false;
	let globals: ParsedFlags | undefined;
	try {
		globals = parseArguments(argv, globalFlags, { terminal, untilArgument: true });
		isDebug = globals.bool("debug");
		return await run(globals, terminal);
	} catch (thrown) {
		const error = toError(thrown);
		if (globals === undefined) {
			terminal.stdout.write(usage("buildctl", commands, globalFlags));
		}
		const detail = findDetail(error, "source");
		if (detail !== undefined) {
			const { formatSourceExcerpt } = await import("../../progress/source-excerpt.ts");
			terminal.stderr.write(formatSourceExcerpt(detail));
		}
		terminal.stderr.write(`error: ${error.message}\n`);
		for (let at: unknown = isDebug ? error : undefined; at instanceof Error; at = at.cause) {
			terminal.stderr.write(`${at.stack ?? at.message}\n`);
		}
		return 1;
	}
}

async function run(globals: ParsedFlags, terminal: Terminal): Promise<number> {
	const [command, ...rest] = globals.args;
	if (globals.bool("version")) {
		terminal.stdout.write(`buildctl slipway ${version}\n`);
		return 0;
	}
	const logFormat = globals.string("log-format") ?? "text";
	if (logFormat !== "text" && logFormat !== "json" && logFormat !== "") {
		throw new SlipwayError("invalid-argument", `unsupported log type ${JSON.stringify(logFormat)}`);
	}
	// What a build gives has the modes that it says, as with BuildKit's client.
	process.umask(0);
	const own = { globals, terminal };
	switch (command) {
		case undefined:
		case "help":
		case "h":
			terminal.stdout.write(usage("buildctl", commands, globalFlags));
			return 0;
		case "build":
		case "b": {
			const { build, buildFlags } = await import("./build.ts");
			return await withFlags({ ...own, name: "build", argv: rest, specs: buildFlags }, build);
		}
		case "du": {
			const { diskUsage } = await import("./disk.ts");
			return await withFlags({ ...own, name: "du", argv: rest, specs: [...diskUsageFlags, help] }, diskUsage);
		}
		case "prune": {
			const { prune } = await import("./disk.ts");
			return await withFlags({ ...own, name: "prune", argv: rest, specs: [...pruneFlags, help] }, prune);
		}
		case "prune-histories": {
			const { pruneHistories } = await import("./debug.ts");
			const specs = [...(debugFlags["histories"] ?? []), help];
			return await withFlags({ ...own, name: "prune-histories", argv: rest, specs }, pruneHistories);
		}
		case "debug":
			return await runDebug(rest, own);
		case "dial-stdio":
			await dialStdio(globals, terminal);
			return 0;
		default:
			return unknownCommand(command, terminal);
	}
}

interface Surroundings {
	readonly globals: ParsedFlags;
	readonly terminal: Terminal;
}

/** With the exit code of BuildKit's client. */
function unknownCommand(name: string, { stderr }: Terminal): number {
	stderr.write(`No help topic for '${name}'\n`);
	return 3;
}

async function runDebug(argv: readonly string[], own: Surroundings): Promise<number> {
	const { terminal } = own;
	const [name = "", ...rest] = argv;
	const flags = Object.hasOwn(debugFlags, name) ? debugFlags[name] : undefined;
	if (flags === undefined) {
		if (name === "" || name === "help" || name === "h") {
			terminal.stdout.write(usage("buildctl debug", debugCommands, [help]));
			return 0;
		}
		if (!name.startsWith("-")) {
			return unknownCommand(name, terminal);
		}
		parseArguments(argv, [help], { terminal });
		terminal.stdout.write(usage("buildctl debug", debugCommands, [help]));
		return 0;
	}
	const { debug, debugOffline } = await import("./debug.ts");
	const specs = [...flags, help];
	const shown = `debug ${name}`;
	if (name === "dump-llb" || name === "dump-metadata") {
		const parsed = parseArguments(rest, specs, { terminal });
		if (parsed.bool("help")) {
			terminal.stdout.write(usage(`buildctl ${shown}`, new Map(), specs));
		} else {
			await debugOffline(name, parsed, terminal);
		}
		return 0;
	}
	return await withFlags({ ...own, name: shown, argv: rest, specs }, (context) => debug(name, context));
}

/** What a command works with. */
export interface CommandContext {
	readonly client: LateClient;
	readonly flags: ParsedFlags;
	readonly globals: ParsedFlags;
	readonly terminal: Terminal;
}

interface CommandLine extends Surroundings {
	readonly name: string;
	readonly argv: readonly string[];
	readonly specs: readonly FlagSpec[];
}

async function withFlags(
	{ name, argv, specs, globals, terminal }: CommandLine,
	action: (context: CommandContext) => Promise<void>,
): Promise<number> {
	const flags = parseArguments(argv, specs, { terminal });
	if (flags.bool("help")) {
		terminal.stdout.write(usage(`buildctl ${name}`, new Map(), specs));
		return 0;
	}
	const { openCommandTrace } = await import("../../client/command-trace.ts");
	const [command = ""] = name.split(" ");
	await using trace = openCommandTrace({
		name: command,
		argv: ["buildctl", command, ...argv],
		program: { name: "buildctl", version },
		env: terminal.env,
		// BuildKit's client keeps quiet about it.
		warn: () => {},
	});
	await using client = lateClient(globals, terminal, trace);
	try {
		await action({ client, flags, globals, terminal });
		trace.end();
		return 0;
	} catch (thrown) {
		trace.end(toError(thrown).message);
		throw thrown;
	}
}

function usage(title: string, names: ReadonlyMap<string, string>, flags: readonly FlagSpec[]): string {
	const list = [...names].map(([name, what]) => `  ${name.padEnd(18)}${what}`);
	return [
		`Usage: ${title} [flags]${names.size === 0 ? "" : " COMMAND"}`,
		...(names.size === 0 ? [] : ["", "Commands:", ...list]),
		"",
		"Flags:",
		...helpLines(flags),
		"",
	].join("\n");
}

/** Joins standard input and output with the builder's socket: the far end of `docker-container://` and its like. */
async function dialStdio(globals: ParsedFlags, terminal: Terminal): Promise<void> {
	const target = address(globals, terminal);
	const scheme = /^([^:]*):\/\//.exec(target)?.[1];
	if (scheme !== "unix") {
		throw new SlipwayError(
			"invalid-argument",
			scheme === undefined
				? `invalid address ${target}`
				: `invalid address ${target} (expected unix://, got ${scheme}://)`,
		);
	}
	const { dial } = await import("../../client/dial.ts");
	const connection = await dial(target, { env: terminal.env, signal: terminal.interrupted }).catch(
		(thrown: unknown) => {
			throw explained(thrown, target);
		},
	);
	const stop = (): void => void connection.destroy();
	terminal.interrupted.addEventListener("abort", stop);
	terminal.stdin.on("data", (chunk) => {
		if (!connection.write(chunk)) {
			terminal.stdin.pause();
			connection.once("drain", () => terminal.stdin.resume());
		}
	});
	terminal.stdin.on("end", () => connection.end());
	try {
		for await (const chunk of connection) {
			await terminal.stdout.writeBytes(chunk as Uint8Array);
		}
	} finally {
		terminal.interrupted.removeEventListener("abort", stop);
		terminal.stdin.pause();
	}
}
