import { ownTerminal } from "./own-terminal.ts";
import { runProgram } from "./run-command.ts";

// Not for the programs that this one starts.
const { SLIPWAY_CALLED_AS: name = "slipway" } = process.env;
delete process.env["SLIPWAY_CALLED_AS"];
runProgram(name, process.argv.slice(2), ownTerminal()).then(
	(code) => {
		process.exitCode = code;
	},
	(thrown: unknown) => {
		process.stderr.write(`ERROR: ${thrown}\n`);
		process.exitCode = 1;
	},
);
