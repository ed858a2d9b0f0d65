import { canceled, findDetail, hasCode, toError } from "../errors/errors.ts";
import { buildCommand } from "./build-command.ts";
import type { Terminal } from "./terminal.ts";
import { version } from "./version.ts";

const usage = `Usage: slipway COMMAND

Builds container images.

Commands:
  build     Build an image from a Dockerfile

Run 'slipway COMMAND --help' for the flags of a command.
`;

const interrupt = new AbortController();
const terminal: Terminal = {
	// Making the stream takes milliseconds that most builds need not spend.
	get stdin() {
		return process.stdin;
	},
	stdout: process.stdout,
	stderr: process.stderr,
	env: process.env,
	interrupted: interrupt.signal,
};

/** The first signal ends the build in order; one who insists gets the end at once. */
function onSignal(): void {
	if (interrupt.signal.aborted) {
		process.exit(130);
	}
	interrupt.abort(canceled());
}

async function run(argv: readonly string[]): Promise<number> {
	const [command, ...rest] = argv;
	switch (command) {
		case "build":
		case "b":
			return await buildCommand(rest, terminal);
		case "version":
		case "--version":
		case "-v":
			process.stdout.write(`slipway ${version}\n`);
			return 0;
		case "help":
		case "--help":
		case "-h":
			process.stdout.write(usage);
			return 0;
		case undefined:
			process.stderr.write(usage);
			return 1;
		default:
			process.stderr.write(
				`ERROR: unknown command: ${JSON.stringify(command)}\n\nRun 'slipway --help' for the commands.\n`,
			);
			return 1;
	}
}

async function report(thrown: unknown): Promise<number> {
	const error = toError(thrown);
	const detail = findDetail(error, "source");
	if (detail !== undefined) {
		const { formatSourceExcerpt } = await import("../progress/source-excerpt.ts");
		process.stderr.write(formatSourceExcerpt(detail));
	}
	process.stderr.write(`ERROR: ${error.message}\n`);
	if (process.argv.includes("--debug") || process.argv.includes("-D")) {
		for (let at: unknown = error; at instanceof Error; at = at.cause) {
			process.stderr.write(`${at.stack ?? at.message}\n`);
		}
	}
	if (hasCode(error, "canceled") || interrupt.signal.aborted) {
		return 130;
	}
	return 1;
}

process.on("SIGINT", onSignal);
process.on("SIGTERM", onSignal);
process.stdout.on("error", () => {});
process.stderr.on("error", () => {});
run(process.argv.slice(2))
	.catch(report)
	.then(
		(code) => {
			process.exitCode = code;
		},
		(thrown: unknown) => {
			process.stderr.write(`ERROR: ${thrown}\n`);
			process.exitCode = 1;
		},
	);
