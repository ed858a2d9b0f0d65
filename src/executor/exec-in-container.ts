import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { canceled } from "../errors/errors.ts";
import type { RuntimeSpec } from "../oci/runtime-spec.ts";
import type { ExecOptions, ExitStatus } from "./executor.ts";
import { lookupUser } from "./passwd.ts";
import { runProcess } from "./process-io.ts";
import { execCommand, notStarted, type Runtime, readRuntimeLog, runtimeEnvironment } from "./runtime.ts";

export interface ExecPlaces {
	/** Of the container. */
	readonly bundle: string;
	/** For what the runtime is told about the process; not in the bundle, which may go at any time. */
	readonly notes: string;
}

/** Runs one more process in the container of this bundle; what it may do is what the first one may. */
export async function execInContainer(
	runtime: Runtime,
	{ bundle, notes }: ExecPlaces,
	options: ExecOptions,
): Promise<ExitStatus> {
	mkdirSync(notes, { recursive: true, mode: 0o700 });
	const name = join(notes, `${options.id}-${randomBytes(8).toString("hex")}`);
	const files = { processFile: `${name}.json`, pidFile: `${name}.pid`, logFile: `${name}.log` };
	writeFileSync(files.processFile, JSON.stringify(processOf(bundle, options)), { mode: 0o600 });
	try {
		const status = await runProcess({
			argv: (console) => execCommand(runtime, { id: options.id, ...files }, console),
			sendsTerminal: runtime.name === "crun",
			env: runtimeEnvironment,
			pidFile: files.pidFile,
			io: options.io ?? {},
			onOutput: options.onOutput,
			onStarted: options.onStarted,
			signal: options.signal,
		});
		if (options.signal.aborted) {
			throw canceled(options.signal.reason);
		}
		const log = status.code === 0 ? undefined : readRuntimeLog(files.logFile);
		if (log !== undefined) {
			throw notStarted(runtime, status.code, log);
		}
		return { code: status.code, outOfMemory: false };
	} finally {
		for (const file of Object.values(files)) {
			rmSync(file, { force: true });
		}
	}
}

function processOf(bundle: string, { process, io }: ExecOptions): RuntimeSpec["process"] {
	const { process: first } = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8")) as RuntimeSpec;
	const user = process.user === "" ? undefined : lookupUser(join(bundle, "rootfs"), process.user);
	const { terminal: _, rlimits: __, consoleSize: ___, ...rest } = first;
	return {
		...rest,
		...(io?.terminal ? { terminal: true } : {}),
		...(user === undefined
			? {}
			: {
					user: {
						uid: user.uid,
						gid: user.gid,
						additionalGids: [...new Set([user.gid, ...user.additionalGids])],
					},
				}),
		args: process.args,
		env: process.env,
		cwd: process.cwd,
		rlimits: [],
	};
}
