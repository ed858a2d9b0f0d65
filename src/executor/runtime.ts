import { readFileSync } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";
import { findProgram } from "../sys/find-program.ts";
import { inUserNamespace } from "../sys/namespace.ts";
import { spawn } from "../sys/spawn.ts";

/** An OCI runtime's program: crun, or runc, which takes the same arguments and three times as long. */
export interface Runtime {
	readonly name: "crun" | "runc";
	readonly path: string;
	/** Where the runtime keeps its own notes about containers. */
	readonly stateDir: string;
}

/** The first of crun and runc on the search path, or `program` if given. Throws `failed-precondition` with what to install. */
export function findRuntime(options: {
	readonly searchPath: string;
	readonly stateDir: string;
	readonly program?: string;
}): Runtime {
	const candidates = options.program === undefined ? ["crun", "runc"] : [options.program];
	for (const candidate of candidates) {
		const path = findProgram(candidate, options.searchPath);
		if (path !== undefined) {
			return { name: candidate.includes("runc") ? "runc" : "crun", path, stateDir: options.stateDir };
		}
	}
	throw new SlipwayError(
		"failed-precondition",
		options.program === undefined
			? "no OCI runtime found on PATH: RUN needs crun (preferred) or runc; on Debian: apt-get install crun"
			: `OCI runtime ${options.program} not found`,
	);
}

/** The command that runs a bundle; errors of the runtime itself go to `logFile`, the process's output to the command's. */
export function runCommand(
	runtime: Runtime,
	container: {
		readonly id: string;
		readonly bundle: string;
		readonly pidFile: string;
		readonly logFile: string;
	},
	console?: string,
): [string, ...string[]] {
	return [
		...logTo(runtime, container.logFile),
		"run",
		...consoleFlags(console),
		"--bundle",
		container.bundle,
		"--pid-file",
		container.pidFile,
		container.id,
	];
}

/** The command that runs one more process, described by `processFile` (`process` of the runtime spec), in a container that runs. */
export function execCommand(
	runtime: Runtime,
	process: {
		readonly id: string;
		readonly processFile: string;
		readonly pidFile: string;
		readonly logFile: string;
	},
	console?: string,
): [string, ...string[]] {
	return [
		...logTo(runtime, process.logFile),
		"exec",
		...consoleFlags(console),
		"--process",
		process.processFile,
		"--pid-file",
		process.pidFile,
		process.id,
	];
}

/** Where a process's terminal is sent. Only crun can while it waits for the process; runc copies to its own, which it does well. */
function consoleFlags(path: string | undefined): readonly string[] {
	return path === undefined ? [] : ["--console-socket", path];
}

function logTo(runtime: Runtime, logFile: string): [string, ...string[]] {
	// Root of a user namespace has no control groups; runc finds that out by itself.
	const groups = runtime.name === "crun" && inUserNamespace() ? ["--cgroup-manager=disabled"] : [];
	return [runtime.path, ...groups, "--root", runtime.stateDir, "--log", logFile, "--log-format", "json"];
}

/** As in BuildKit the exit code of the runtime stands for that of the process which never was; the runtime's own words follow. */
export function notStarted({ name }: Runtime, code: number, log: string): SlipwayError {
	return new SlipwayError("unknown", `exit code: ${code}: ${name} could not start the process: ${log}`, {
		details: [{ kind: "exit", code }],
	});
}

/** Removes what the runtime knows of a container, and ends its processes. One that it does not know is no error. */
export async function deleteContainer(runtime: Runtime, id: string): Promise<void> {
	const child = spawn({
		argv: [runtime.path, "--root", runtime.stateDir, "delete", "--force", id],
		env: runtimeEnvironment,
		stdout: "null",
		stderr: "null",
	});
	await child.exited;
}

/** Of all commands of the runtime. */
export const runtimeEnvironment: Readonly<Record<string, string>> = {
	PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
};

/** The runtime's own error messages, or undefined if it had nothing to say. */
export function readRuntimeLog(logFile: string): string | undefined {
	let text: string;
	try {
		text = readFileSync(logFile, "utf8");
	} catch {
		return undefined;
	}
	const messages = text.split("\n").flatMap((line) => {
		if (line === "") {
			return [];
		}
		try {
			const entry = JSON.parse(line) as { readonly level?: string; readonly msg?: string };
			return entry.level === "error" || entry.level === "fatal" ? [entry.msg ?? line] : [];
		} catch {
			return [line];
		}
	});
	return messages.length === 0 ? undefined : messages.join("; ");
}
