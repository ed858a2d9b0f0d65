import type { FailedProcess } from "../control/control.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { FlagSpec, ParsedFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

/** The flags that `slipway debug build` has besides those of `slipway build`. */
export const debugFlags: readonly FlagSpec[] = [
	{
		name: "shell",
		kind: "string",
		value: "program",
		help: "Program that is started in the failed step's container (default /bin/sh)",
	},
	{
		name: "state",
		kind: "string",
		value: "when",
		help: "Files that it sees: after (as the step left them, the default) or before the step",
	},
];

export interface DebugOptions {
	readonly shell: string;
	readonly state: "after" | "before";
}

export function debugOptions(flags: ParsedFlags): DebugOptions {
	const state = flags.string("state") ?? "after";
	if (state !== "after" && state !== "before") {
		throw new SlipwayError(
			"invalid-argument",
			`invalid --state ${JSON.stringify(state)}: use after or before`,
		);
	}
	return { shell: flags.string("shell") || "/bin/sh", state };
}

/** Where the other state of the root is found in the shell. */
const otherState = { after: "/slipway-before", before: "/slipway-after" } as const;

/** A shell in the place of the process that failed: its container, environment, directory, user, mounts and secrets. */
export async function openDebugShell(
	failed: FailedProcess,
	options: DebugOptions,
	terminal: Terminal,
): Promise<void> {
	const { step } = failed;
	const { meta } = step;
	const trees = failed[options.state];
	const others = failed[options.state === "after" ? "before" : "after"];
	const rootIndex = step.mounts.findIndex((mount) => mount.dest === "/");
	const other = otherState[options.state];
	await using container = await failed.newContainer(
		{
			mounts: [
				...step.mounts.map((mount, index) => ({ mount, ref: trees[index] })),
				{
					mount: {
						kind: "bind",
						dest: other,
						selector: "",
						readonly: true,
						contentCache: "default",
						resultId: "",
					},
					ref: others[rootIndex],
				},
			],
			network: step.network,
			platform: undefined,
			extraHosts: meta.extraHosts,
			hostname: meta.hostname,
		},
		{ signal: terminal.interrupted },
	);
	const command = meta.args.map(shellWord).join(" ");
	terminal.stderr.write(
		[
			"",
			`${failed.error.message}`,
			"",
			`${options.shell} runs in the step's container, with the files ${options.state === "after" ? "as the step left them" : "as they were before the step"}; those ${options.state === "after" ? "from before" : "that it left"} are in ${other}.`,
			`The step's command is in $SLIPWAY_COMMAND: ${command}`,
			"",
			"",
		].join("\n"),
	);
	const { stdin, stdout, stderr } = terminal;
	const isTerminal = stdin.isTTY === true && stdout.isTTY === true;
	const process = await container.start({
		args: [options.shell],
		env: [
			...meta.env,
			`SLIPWAY_COMMAND=${command}`,
			...(isTerminal ? [`TERM=${terminal.env["TERM"] ?? "xterm"}`] : []),
		],
		secretEnv: step.secretEnv,
		cwd: meta.cwd,
		user: meta.user,
		security: step.security,
		terminal: isTerminal,
		stdin: stdin as unknown as AsyncIterable<Uint8Array>,
		onStdout: (chunk) => stdout.writeBytes(chunk),
		onStderr: (chunk) => stderr.writeBytes(chunk),
		removeMountStubsRecursive: true,
	});
	const resize = (): void => {
		const { columns, rows } = stdout;
		if (columns !== undefined && rows !== undefined) {
			process.resize({ columns, rows });
		}
	};
	const stopWatching = terminal.onResize(resize);
	if (isTerminal) {
		stdin.setRawMode?.(true);
		resize();
	}
	try {
		await process.exited;
	} finally {
		stopWatching();
		if (isTerminal) {
			stdin.setRawMode?.(false);
		}
		stdin.pause();
	}
}

function shellWord(word: string): string {
	return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
