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
			const engine = await openEngine(options);
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
