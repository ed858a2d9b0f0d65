import { version } from "../daemon/version.ts";
import { findDetail, hasCode, SlipwayError, toError } from "../errors/errors.ts";
import { buildCommand } from "./build-command.ts";
import { withHint } from "./hints.ts";
import type { Terminal } from "./terminal.ts";

const usage = `Usage: slipway COMMAND

Builds container images.

Commands:
  build     Build an image from a Dockerfile
  debug     debug build: as build, with a shell in the step that fails
  du        Show what the builder has on disk
  prune     Remove build cache
  doctor    Say what this machine allows, and what it lacks
  daemon    Serve BuildKit's API, for docker buildx, buildctl and others
  stop      End the background builder when its builds have ended

Run 'slipway COMMAND --help' for the flags of a command.
`;

/** The program that this one was called as: BuildKit's client and daemon have their own command lines. */
export async function runProgram(name: string, argv: readonly string[], terminal: Terminal): Promise<number> {
	switch (name) {
		case "buildctl": {
			const { buildctlCommand } = await import("./buildctl/buildctl.ts");
			return await buildctlCommand(argv, terminal);
		}
		case "slipwayd":
		case "buildkitd":
			return await runCommand(["daemon", ...argv], terminal);
		default:
			return await runCommand(argv, terminal);
	}
}

const commandsWithEngine: ReadonlySet<string | undefined> = new Set([
	"build",
	"b",
	"debug",
	"du",
	"prune",
	"daemon",
	"background-builder",
]);

/** True if the command line opens an engine, for which this process has to be root, if only in a namespace of its own. */
export function needsRoot(name: string, argv: readonly string[], env: Terminal["env"]): boolean {
	if (argv.includes("--help") || argv.includes("-h")) {
		return false;
	}
	if (name === "slipwayd" || name === "buildkitd") {
		return true;
	}
	const isElsewhere = argv.some((arg) => /^--builder(?:=|$)/.test(arg)) || Boolean(env["SLIPWAY_BUILDER"]);
	return name !== "buildctl" && commandsWithEngine.has(argv[0]) && !isElsewhere;
}

/** One command line, to its exit code; what goes wrong is told on the terminal. */
export async function runCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	try {
		return await dispatch(argv, terminal);
	} catch (thrown) {
		return await report(thrown, argv, terminal);
	}
}

async function dispatch(argv: readonly string[], terminal: Terminal): Promise<number> {
	const [command, ...rest] = argv;
	switch (command) {
		case "build":
		case "b":
			return await buildCommand(rest, terminal);
		case "debug": {
			const [what, ...others] = rest;
			const { debugBuildCommand } = await import("./build-command.ts");
			if (what === "--help" || what === "-h") {
				return await debugBuildCommand([what], terminal);
			}
			if (what !== "build") {
				throw new SlipwayError("invalid-argument", "usage: slipway debug build [flags] PATH | URL | -");
			}
			return await debugBuildCommand(others, terminal);
		}
		case "stop": {
			const { stopCommand } = await import("./stop-command.ts");
			return await stopCommand(rest, terminal);
		}
		case "du": {
			const { diskUsageCommand } = await import("./disk-command.ts");
			return await diskUsageCommand(rest, terminal);
		}
		case "prune": {
			const { pruneCommand } = await import("./disk-command.ts");
			return await pruneCommand(rest, terminal);
		}
		case "doctor": {
			const { doctorCommand } = await import("./doctor-command.ts");
			return await doctorCommand(rest, terminal);
		}
		case "daemon": {
			const { daemonCommand } = await import("./daemon-command.ts");
			return await daemonCommand(rest, terminal);
		}
		case "background-builder": {
			const { backgroundCommand } = await import("./background-command.ts");
			return await backgroundCommand(rest, terminal);
		}
		case "version":
		case "--version":
		case "-v":
			terminal.stdout.write(`slipway ${version}\n`);
			return 0;
		case "help":
		case "--help":
		case "-h":
			terminal.stdout.write(usage);
			return 0;
		case undefined:
			terminal.stderr.write(usage);
			return 1;
		default:
			terminal.stderr.write(
				`ERROR: unknown command: ${JSON.stringify(command)}\n\nRun 'slipway --help' for the commands.\n`,
			);
			return 1;
	}
}

async function report(thrown: unknown, argv: readonly string[], terminal: Terminal): Promise<number> {
	const error = toError(thrown);
	const detail = findDetail(error, "source");
	if (detail !== undefined) {
		const { formatSourceExcerpt } = await import("../progress/source-excerpt.ts");
		terminal.stderr.write(formatSourceExcerpt(detail));
	}
	terminal.stderr.write(`ERROR: ${withHint(error.message)}\n`);
	if (argv.includes("--debug") || argv.includes("-D")) {
		for (let at: unknown = error; at instanceof Error; at = at.cause) {
			terminal.stderr.write(`${at.stack ?? at.message}\n`);
		}
	}
	return hasCode(error, "canceled") || terminal.interrupted.aborted ? 130 : 1;
}
