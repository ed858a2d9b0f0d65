import { ownTerminal } from "./own-terminal.ts";
import { runCommand } from "./run-command.ts";

runCommand(process.argv.slice(2), ownTerminal()).then(
	(code) => {
		process.exitCode = code;
	},
	(thrown: unknown) => {
		process.stderr.write(`ERROR: ${thrown}\n`);
		process.exitCode = 1;
	},
);
