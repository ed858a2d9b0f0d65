import { SlipwayError } from "../errors/errors.ts";
import { parseGoDuration } from "../oci/go-duration.ts";
import { builderIdentity, builderPlace, fileSystemView } from "./builder-place.ts";
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

/**
 * The builder that `slipway` starts for itself: it runs the commands of later calls with an engine that is warm, and ends when it was
 * idle for a while, on SIGTERM, when `slipway stop` asks for it, and
 * when a client has another version or other settings.
 */
export async function backgroundCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, flagSpecs);
	const options = engineOptions(flags, terminal);
	const idleExitMs = parseGoDuration(flags.string("idle-exit") ?? defaultIdleExit) / 1e6;
	// Before the engine goes to its own mount namespace.
	const view = fileSystemView();
	await using engine = await terminal.openEngine(options);
	const place = builderPlace(engine.root, terminal.env);
	if (place === undefined) {
		throw new SlipwayError(
			"permission-denied",
			"there is no runtime directory that only this user can write to",
		);
	}
	const { serveCommands } = await import("./command-server.ts");
	const { runCommand } = await import("./run-command.ts");
	const end = Promise.withResolvers<void>();
	let timer: NodeJS.Timeout | undefined;
	let retired = false;
	await using server = await serveCommands({
		path: place.commandSocket,
		identity: builderIdentity({
			program: process.argv[1] ?? "",
			env: terminal.env,
			engine: argv.filter((arg) => /^--(?:snapshotter|runtime)=/.test(arg)),
		}),
		view,
		engine,
		run: runCommand,
		onIdle() {
			if (retired) {
				end.resolve();
			} else {
				timer = setTimeout(end.resolve, idleExitMs);
			}
		},
		onBusy: () => clearTimeout(timer),
		onRetire() {
			retired = true;
			if (server.running === 0) {
				end.resolve();
			}
		},
	});
	terminal.interrupted.addEventListener("abort", () => end.resolve());
	terminal.stdout.write("listening\n");
	await end.promise;
	clearTimeout(timer);
	return 0;
}
