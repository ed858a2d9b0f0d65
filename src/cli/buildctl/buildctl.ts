import type { Client } from "../../client/client.ts";
import type { DialOptions, TlsFiles } from "../../client/dial.ts";
import { version } from "../../daemon/version.ts";
import { findDetail, hasCode, SlipwayError, toError } from "../../errors/errors.ts";
import { type FlagSpec, helpLines, type ParsedFlags, parseFlags } from "../flags.ts";
import type { Terminal } from "../terminal.ts";
import { debugFlags } from "./debug.ts";
import { diskUsageFlags, pruneFlags } from "./disk.ts";

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

const defaultAddress = "unix:///run/buildkit/buildkitd.sock";

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
	try {
		const globals = parseFlags(argv, globalFlags, { untilArgument: true });
		isDebug = globals.bool("debug");
		await run(globals, terminal);
		return 0;
	} catch (thrown) {
		const error = toError(thrown);
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

async function run(globals: ParsedFlags, terminal: Terminal): Promise<void> {
	const [command, ...rest] = globals.args;
	if (globals.bool("version")) {
		terminal.stdout.write(`buildctl slipway ${version}\n`);
		return;
	}
	const logFormat = globals.string("log-format") ?? "text";
	if (logFormat !== "text" && logFormat !== "json" && logFormat !== "") {
		throw new SlipwayError("invalid-argument", `unsupported log type ${JSON.stringify(logFormat)}`);
	}
	switch (command) {
		case undefined:
		case "help":
		case "h":
			terminal.stdout.write(usage("buildctl", commands, globalFlags));
			return;
		case "build":
		case "b": {
			const { build, buildFlags } = await import("./build.ts");
			await withFlags(`buildctl ${command}`, rest, buildFlags, globals, terminal, build);
			return;
		}
		case "du": {
			const { diskUsage } = await import("./disk.ts");
			await withFlags("buildctl du", rest, [...diskUsageFlags, help], globals, terminal, diskUsage);
			return;
		}
		case "prune": {
			const { prune } = await import("./disk.ts");
			await withFlags("buildctl prune", rest, [...pruneFlags, help], globals, terminal, prune);
			return;
		}
		case "prune-histories": {
			const { pruneHistories } = await import("./debug.ts");
			const flags = [...(debugFlags["histories"] ?? []), help];
			await withFlags("buildctl prune-histories", rest, flags, globals, terminal, pruneHistories);
			return;
		}
		case "debug":
			await runDebug(rest, globals, terminal);
			return;
		case "dial-stdio":
			await dialStdio(globals, terminal);
			return;
		default:
			throw new SlipwayError(
				"invalid-argument",
				`unknown command ${JSON.stringify(command)}: see 'buildctl --help' for the commands`,
			);
	}
}

async function runDebug(argv: readonly string[], globals: ParsedFlags, terminal: Terminal): Promise<void> {
	const [name = "", ...rest] = argv;
	const flags = Object.hasOwn(debugFlags, name) ? debugFlags[name] : undefined;
	if (flags === undefined) {
		const names = Object.keys(debugFlags).join(", ");
		if (name === "" || name === "--help" || name === "-h") {
			terminal.stdout.write(`Usage: buildctl debug COMMAND\n\nCommands: ${names}\n`);
			return;
		}
		throw new SlipwayError(
			"invalid-argument",
			`unknown command ${JSON.stringify(name)}: use one of ${names}`,
		);
	}
	const { debug, debugOffline } = await import("./debug.ts");
	if (name === "dump-llb" || name === "dump-metadata") {
		await debugOffline(name, parseFlags(rest, flags), terminal);
		return;
	}
	await withFlags(`buildctl debug ${name}`, rest, [...flags, help], globals, terminal, (client, parsed) =>
		debug(name, client, parsed, terminal),
	);
}

async function withFlags(
	title: string,
	argv: readonly string[],
	specs: readonly FlagSpec[],
	globals: ParsedFlags,
	terminal: Terminal,
	action: (client: Client, flags: ParsedFlags, terminal: Terminal) => Promise<void>,
): Promise<void> {
	const flags = parseFlags(argv, specs);
	if (flags.bool("help")) {
		terminal.stdout.write(usage(title, new Map(), specs));
		return;
	}
	await using client = await connect(globals, terminal);
	await action(client, flags, terminal);
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

function address(globals: ParsedFlags, { env }: Terminal): string {
	return globals.string("addr") || env["BUILDKIT_HOST"] || defaultAddress;
}

async function connect(globals: ParsedFlags, terminal: Terminal): Promise<Client> {
	const { connectClient } = await import("../../client/connect.ts");
	const target = address(globals, terminal);
	const tls = await tlsOf(globals);
	const timeoutMs = Number(globals.string("timeout") ?? 5) * 1000;
	if (!(timeoutMs >= 0)) {
		throw new SlipwayError("invalid-argument", `invalid --timeout ${globals.string("timeout")}: use seconds`);
	}
	const deadline = AbortSignal.timeout(timeoutMs);
	const options: DialOptions = {
		env: terminal.env,
		signal: AbortSignal.any([terminal.interrupted, deadline]),
		...(tls === undefined ? {} : { tls }),
	};
	for (;;) {
		try {
			const client = await connectClient(target, options);
			if (globals.bool("wait")) {
				await client.info({ signal: options.signal });
			}
			return client;
		} catch (thrown) {
			const isLater = hasCode(thrown, "unavailable") && globals.bool("wait") && !options.signal.aborted;
			if (!isLater) {
				throw deadline.aborted
					? new SlipwayError(
							"deadline-exceeded",
							`failed to dial ${JSON.stringify(target)}, make sure the builder is running: no answer within ${timeoutMs / 1000} s`,
							{ cause: thrown },
						)
					: thrown;
			}
			await new Promise((wake) => setTimeout(wake, 1000));
		}
	}
}

async function tlsOf(globals: ParsedFlags): Promise<TlsFiles | undefined> {
	const [ca, cert, key] = ["tlscacert", "tlscert", "tlskey"].map((name) => globals.string(name) || undefined);
	const directory = globals.string("tlsdir") ?? "";
	const serverName = globals.string("tlsservername") || undefined;
	const named = serverName === undefined ? {} : { serverName };
	if (directory !== "") {
		if (ca !== undefined || cert !== undefined || key !== undefined) {
			throw new SlipwayError(
				"invalid-argument",
				"cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time",
			);
		}
		const { tlsDirectory } = await import("../../client/dial.ts");
		return { ...tlsDirectory(directory), ...named };
	}
	if (ca === undefined && cert === undefined && key === undefined) {
		return undefined;
	}
	return {
		...named,
		...(ca === undefined ? {} : { ca }),
		...(cert === undefined ? {} : { cert }),
		...(key === undefined ? {} : { key }),
	};
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
	const connection = await dial(target, { env: terminal.env, signal: terminal.interrupted });
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
