import { existsSync } from "node:fs";
import { entitlements } from "../control/control.ts";
import { defaultConfigFile } from "../daemon/config.ts";
import { defaultRoot } from "../daemon/default-root.ts";
import type { EngineOptions } from "../daemon/engine.ts";
import { canceled } from "../errors/errors.ts";
import type { Output, Terminal } from "./terminal.ts";

/** The terminal of this process. Its first SIGINT or SIGTERM ends the command in order; one who insists gets the end at once. */
export function ownTerminal(): Terminal {
	const interrupt = new AbortController();
	const onSignal = (): void => {
		if (interrupt.signal.aborted) {
			process.exit(130);
		}
		interrupt.abort(canceled());
	};
	process.on("SIGINT", onSignal);
	process.on("SIGTERM", onSignal);
	return {
		// Making the stream takes milliseconds that most builds need not spend.
		get stdin() {
			return process.stdin;
		},
		stdout: ownOutput(process.stdout),
		stderr: ownOutput(process.stderr),
		env: process.env,
		cwd: process.cwd(),
		onResize(listener) {
			process.stdout.on("resize", listener);
			return () => process.stdout.off("resize", listener);
		},
		interrupted: interrupt.signal,
		async openEngine(options) {
			const { openEngine } = await import("../daemon/engine.ts");
			const { collectOccasionally } = await import("../daemon/occasional-collection.ts");
			const engine = await openEngine(
				existsSync(defaultConfigFile) ? await withConfigFile(options) : options,
			);
			return {
				...engine,
				async build(request, buildOptions) {
					try {
						return await engine.build(request, buildOptions);
					} finally {
						await collectOccasionally(engine, { signal: interrupt.signal, warn: options.warn });
					}
				},
			};
		},
	};
}

/** Registries, networks and so on are for all builders of the machine; what the command line says goes first. */
async function withConfigFile(options: EngineOptions): Promise<EngineOptions> {
	const { loadConfigFile } = await import("../daemon/config-file.ts");
	const { mergeConfig } = await import("../daemon/merge-config.ts");
	const { configuredOptions } = await import("../daemon/daemon.ts");
	const root = options.root ?? defaultRoot(options.env);
	const flags = { root, entitlements, allowPlainTcp: false };
	const config = mergeConfig(loadConfigFile(defaultConfigFile), flags, root);
	return {
		...configuredOptions(config),
		...options,
		snapshotter: options.snapshotter === "auto" ? config.worker.snapshotter : options.snapshotter,
	};
}

function ownOutput(stream: NodeJS.WriteStream & { readonly fd: number }): Output {
	// Who reads may go away before the end.
	stream.on("error", () => {});
	return {
		write: (text) => stream.write(text),
		writeBytes: (chunk) => new Promise((resolve) => stream.write(chunk, () => resolve())),
		fd: stream.fd,
		get isTTY() {
			return stream.isTTY;
		},
		get columns() {
			return stream.columns;
		},
		get rows() {
			return stream.rows;
		},
	};
}
