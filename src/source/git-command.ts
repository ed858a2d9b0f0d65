import { redactUrl, SlipwayError, toError } from "../errors/errors.ts";
import { progressTime } from "../progress/progress.ts";
import { spawn } from "../sys/spawn.ts";
import type { ChildProcess } from "../sys/sys.ts";
import { explainGitFailure, redactOutput } from "./git-error.ts";
import type { SourceOptions } from "./source.ts";

/** Runs git, apart from all configuration of this machine. */
export interface Git {
	/** What git printed. Throws one sentence of what went wrong, a `GitFailure` as its cause. */
	run(args: readonly string[], where?: GitPlace): Promise<string>;
}

export interface GitPlace {
	readonly gitDir?: string;
	readonly workTree?: string;
	/** Standard output is for people: show it in the log as well. */
	readonly show?: boolean;
}

/** How git failed, for those who try in another way. */
export class GitFailure extends Error {
	readonly code: number;
	/** The end of it. */
	readonly stderr: string;

	constructor(code: number, stderr: string) {
		super(`git ended with ${code}`);
		this.name = "GitFailure";
		this.code = code;
		this.stderr = stderr;
	}
}

export interface GitOptions extends SourceOptions {
	/** Shown in errors, redacted. */
	readonly remote: string;
	/** Only `PATH` and the proxies are taken. */
	readonly env: Readonly<Record<string, string | undefined>>;
	/** Configuration with secrets: not in the command line, which every user of the machine can read. */
	readonly config: readonly (readonly [name: string, value: string])[];
	readonly sshCommand: string;
	readonly sshAuthSock: string | undefined;
	/** The longest time of one command. */
	readonly timeoutMs: number;
}

const proxyNames = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"].flatMap((name) => [
	name,
	name.toUpperCase(),
]);

/** On every command line: before the command, none of them secret. */
const settings = [
	// A repository must not name directories of this machine as its submodules.
	"protocol.file.allow=user",
	// A hook could only come from a template that the machine's owner installed for his own repositories.
	"core.hooksPath=/dev/null",
	// Cleaning up is part of the command, so that nothing runs on when the repository is given back.
	"gc.autoDetach=false",
	"maintenance.autoDetach=false",
	"advice.detachedHead=false",
].flatMap((setting) => ["-c", setting]);

/** More than any answer that is read here; a server decides how many refs it shows. */
const maxOutputBytes = 64 << 20;
/** Of errors the last bytes are kept: there git says why it gave up. */
const maxErrorBytes = 64 << 10;
/** Shown of one command. */
const maxLogBytes = 1 << 20;
/** Between the polite signal and the other one. */
const killDelayMs = 5_000;

export function createGit(options: GitOptions): Git {
	const env = environment(options);
	return {
		async run(args, where = {}) {
			const { gitDir, workTree } = where;
			const { code, stdout, stderr } = await runProcess(
				[
					// The mode of files is the umask's, and posix_spawn cannot set one.
					"/bin/sh",
					"-c",
					'umask 022 && exec git "$@"',
					"git",
					...settings,
					...(workTree === undefined ? [] : ["--work-tree", workTree]),
					...(gitDir === undefined ? [] : ["--git-dir", gitDir]),
					...args,
				],
				{ ...options, env, cwd: workTree, show: where.show === true },
			);
			if (code !== 0) {
				throw explainGitFailure(new GitFailure(code, stderr), options.remote);
			}
			return stdout;
		},
	};
}

/** As `run`, undefined if git says no. */
export async function tryGit(
	git: Git,
	args: readonly string[],
	where?: GitPlace,
): Promise<string | undefined> {
	try {
		return await git.run(args, where);
	} catch (thrown) {
		if (gitFailureOf(thrown) !== undefined) {
			return undefined;
		}
		throw thrown;
	}
}

/** How git failed, if that is what the error is about. */
export function gitFailureOf(thrown: unknown): GitFailure | undefined {
	for (let at = thrown; at instanceof Error; at = at.cause) {
		if (at instanceof GitFailure) {
			return at;
		}
	}
	return undefined;
}

function environment(options: GitOptions): Record<string, string> {
	const env: Record<string, string> = {
		LC_ALL: "C",
		GIT_TERMINAL_PROMPT: "0",
		GIT_CONFIG_NOSYSTEM: "1",
		GIT_CONFIG_GLOBAL: "/dev/null",
		GIT_ATTR_NOSYSTEM: "1",
		HOME: "/dev/null",
		GIT_SSH_COMMAND: options.sshCommand,
		// A server that sends nothing at all for ten minutes is gone.
		GIT_HTTP_LOW_SPEED_LIMIT: "1",
		GIT_HTTP_LOW_SPEED_TIME: "600",
		GIT_CONFIG_COUNT: String(options.config.length),
	};
	for (const [at, [name, value]] of options.config.entries()) {
		env[`GIT_CONFIG_KEY_${at}`] = name;
		env[`GIT_CONFIG_VALUE_${at}`] = value;
	}
	for (const name of ["PATH", ...proxyNames]) {
		const value = options.env[name];
		if (value !== undefined) {
			env[name] = value;
		}
	}
	if (options.sshAuthSock !== undefined) {
		env["SSH_AUTH_SOCK"] = options.sshAuthSock;
	}
	return env;
}

interface RunOptions extends SourceOptions {
	readonly remote: string;
	readonly env: Readonly<Record<string, string>>;
	readonly cwd: string | undefined;
	readonly show: boolean;
	readonly timeoutMs: number;
}

async function runProcess(
	argv: readonly [string, ...string[]],
	options: RunOptions,
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
	const { signal, timeoutMs, cwd, env } = options;
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	// A session of its own has no terminal that ssh could ask for a password at.
	// Nor has git a repository around it: that of whoever started the builder has settings, and logins, of its own.
	const child = spawn({ argv, env, group: "session", cwd: cwd ?? "/" });
	const limit = AbortSignal.timeout(timeoutMs);
	const output = new AbortController();
	const stop = AbortSignal.any([signal, limit, output.signal]);
	let killer: NodeJS.Timeout | undefined;
	const kill = (): void => {
		child.kill("SIGTERM", { group: true });
		killer = setTimeout(() => child.kill("SIGKILL", { group: true }), killDelayMs);
	};
	stop.addEventListener("abort", kill, { once: true });
	const tooMuch = (): void => {
		output.abort(new SlipwayError("resource-exhausted", `git printed more than ${maxOutputBytes} bytes`));
	};
	try {
		const [{ code }, stdout, stderr] = await Promise.all([
			child.exited,
			readOutput(child, options, tooMuch),
			readErrors(child, options),
		]);
		if (signal.aborted) {
			throw toError(signal.reason);
		}
		if (limit.aborted) {
			throw new SlipwayError(
				"deadline-exceeded",
				`failed to fetch remote ${redactUrl(options.remote)}: git did not end within ${timeoutMs / 1000} seconds`,
			);
		}
		output.signal.throwIfAborted();
		return { code, stdout, stderr };
	} finally {
		stop.removeEventListener("abort", kill);
		clearTimeout(killer);
	}
}

async function readOutput(child: ChildProcess, options: RunOptions, tooMuch: () => void): Promise<string> {
	const chunks: Uint8Array[] = [];
	let size = 0;
	for await (const chunk of child.stdout ?? []) {
		size += chunk.length;
		if (size > maxOutputBytes) {
			tooMuch();
		} else {
			chunks.push(chunk);
		}
	}
	const text = Buffer.concat(chunks).toString("utf8");
	if (options.show) {
		log(1, text, options);
	}
	return text;
}

async function readErrors(child: ChildProcess, options: RunOptions): Promise<string> {
	let tail = Buffer.alloc(0);
	let line = "";
	let shown = 0;
	for await (const chunk of child.stderr ?? []) {
		tail = Buffer.concat([tail, chunk]).subarray(-maxErrorBytes);
		// By lines, so that what must not be seen is not cut in two.
		line += Buffer.from(chunk).toString("utf8");
		const end = line.lastIndexOf("\n") + 1;
		if (shown < maxLogBytes && end > 0) {
			shown += end;
			log(2, line.slice(0, end), options);
		}
		line = line.slice(end).slice(-maxErrorBytes);
	}
	if (shown < maxLogBytes) {
		log(2, line, options);
	}
	return tail.toString("utf8");
}

function log(stream: 1 | 2, text: string, { progress, vertex }: SourceOptions): void {
	if (text !== "") {
		progress.write({
			kind: "log",
			log: { vertex, stream, data: Buffer.from(redactOutput(text)), timestamp: progressTime() },
		});
	}
}
