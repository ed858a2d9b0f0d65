import { builderVersion } from "../daemon/builder-version.ts";
import { defaultConfigFile } from "../daemon/config.ts";
import { StateDirectoryInUse } from "../daemon/state-directory.ts";
import { SlipwayError } from "../errors/errors.ts";
import { parseGoDuration } from "../oci/go-duration.ts";
import { builderIdentity, builderPlace, fileSystemView } from "./builder-place.ts";
import { inUseExitCode } from "./command-frames.ts";
import { engineOptions } from "./engine-options.ts";
import { type FlagSpec, parseFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

const flagSpecs: readonly FlagSpec[] = [
	{ name: "root", kind: "string", help: "State directory" },
	{ name: "snapshotter", kind: "string", help: "How layers are stored" },
	{ name: "runtime", kind: "string", help: "OCI runtime" },
	{ name: "idle-exit", kind: "string", help: "End after this time without a build" },
];

/** How long a builder stays when nothing is to be done, unless `--idle-exit` says otherwise. */
const defaultIdleExit = "10m";
const drainMs = 60_000;

/**
 * The builder that `slipway` starts for itself: it runs the commands of later calls with an engine that is warm, serves BuildKit's API
 * beside them, and ends when it was idle for a while, on SIGTERM, when `slipway stop` asks for it, and when a client has
 * another version or other settings.
 */
export async function backgroundCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	try {
		return await serve(argv, terminal);
	} catch (thrown) {
		if (!(thrown instanceof StateDirectoryInUse)) {
			throw thrown;
		}
		terminal.stderr.write(`${thrown.message}\n`);
		return inUseExitCode;
	}
}

async function serve(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, flagSpecs);
	const { root, snapshotter, runtime } = engineOptions(flags, terminal);
	const { env } = terminal;
	const place = root === undefined ? undefined : builderPlace(root, env);
	if (root === undefined || place === undefined) {
		throw new SlipwayError(
			"permission-denied",
			"the background builder needs a state directory and a runtime directory that only this user can write to",
		);
	}
	// Before the engine goes to its own mount namespace.
	const view = fileSystemView(env);
	const { startDaemon } = await import("../daemon/daemon.ts");
	const { mergeConfig } = await import("../daemon/merge-config.ts");
	const { loadConfigFile } = await import("../daemon/config-file.ts");
	const { createLogger } = await import("../daemon/logger.ts");
	// These places are those of the machine's daemon.
	const {
		debugAddress: _,
		traceSocket: __,
		...config
	} = mergeConfig(
		loadConfigFile(defaultConfigFile),
		{
			addresses: [`unix://${place.apiSocket}`],
			snapshotter,
			allowPlainTcp: false,
			entitlements: ["network.host", "security.insecure", "device"],
			idleExitMs: parseGoDuration(flags.string("idle-exit") ?? defaultIdleExit) / 1e6,
			...(runtime === undefined ? {} : { binary: runtime }),
		},
		root,
	);
	const logger = createLogger(config.log, (line) => terminal.stderr.write(line));
	await using daemon = await startDaemon(config, {
		// Commands send their traces themselves: each to where its own environment says.
		env: Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("OTEL_"))),
		logger,
		version: builderVersion,
		drainMs,
	});
	const { createLastResort } = await import("../daemon/last-resort.ts");
	using lastResort = createLastResort({ logger, stop: daemon.stop });
	const { serveCommands } = await import("./command-server.ts");
	const { runCommand } = await import("./run-command.ts");
	let busy: Disposable | undefined;
	let retired = false;
	await using server = await serveCommands({
		path: place.commandSocket,
		identity: builderIdentity({
			program: process.argv[1] ?? "",
			env,
			engine: argv.filter((arg) => /^--(?:snapshotter|runtime)=/.test(arg)),
		}),
		view,
		engine: { ...daemon.engine, build: daemon.api.build },
		run: runCommand,
		onBusy() {
			busy ??= daemon.hold();
		},
		onIdle() {
			busy?.[Symbol.dispose]();
			busy = undefined;
			if (retired) {
				daemon.stop();
			}
		},
		onRetire() {
			retired = true;
			if (server.running === 0) {
				daemon.stop();
			}
		},
	});
	terminal.interrupted.addEventListener("abort", () => daemon.stop());
	terminal.stdout.write("listening\n");
	await daemon.stopped;
	return lastResort.gaveUp ? 1 : 0;
}
