import { spawnSync } from "node:child_process";

/** Runs a tool to its end and gives what it printed. Throws with its error output. */
export function tool(
	command: string,
	args: readonly string[],
	options: { readonly env?: Readonly<Record<string, string>> } = {},
): string {
	const run = spawnSync(command, args, {
		encoding: "utf8",
		maxBuffer: 256 * 1024 * 1024,
		env: { ...process.env, ...options.env },
	});
	if (run.error !== undefined) {
		throw new Error(
			`${command} cannot be run: ${run.error.message}; 'make packages' installs what the tests need`,
		);
	}
	if (run.status !== 0) {
		throw new Error(`${command} ${args.join(" ")} ended with ${run.status}:\n${run.stderr}${run.stdout}`);
	}
	return run.stdout;
}
