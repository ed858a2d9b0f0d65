import { ownTerminal } from "./own-terminal.ts";
import { needsRoot, runProgram } from "./run-command.ts";

// Not for the programs that this one starts.
const { SLIPWAY_CALLED_AS: name = "slipway" } = process.env;
delete process.env["SLIPWAY_CALLED_AS"];
const argv = process.argv.slice(2);

async function run(): Promise<number> {
	if (process.getuid?.() === 0 || !needsRoot(name, argv, process.env)) {
		return await runProgram(name, argv, ownTerminal());
	}
	const { runInUserNamespace } = await import("../daemon/user-namespace.ts");
	const [node, program = ""] = [process.execPath, process.argv[1]];
	return await runInUserNamespace([node, ...process.execArgv, program, ...argv], {
		...process.env,
		SLIPWAY_CALLED_AS: name,
	});
}

run().then(
	(code) => {
		process.exitCode = code;
	},
	(thrown: unknown) => {
		process.stderr.write(`ERROR: ${thrown instanceof Error ? thrown.message : thrown}\n`);
		process.exitCode = 1;
	},
);
