import type { Engine, EngineOptions } from "../daemon/engine.ts";

/**
 * What a command sees of its surroundings: the person's terminal, environment and directory, and a builder. Made from this
 * process's own (`own-terminal.ts`), from those of a client when the command runs in the daemon (`command-server.ts`), and
 * in tests from plain values.
 */
export interface Terminal {
	readonly stdin: Input;
	readonly stdout: Output;
	readonly stderr: Output;
	readonly env: Readonly<Record<string, string | undefined>>;
	/** What relative paths start from; absolute. */
	readonly cwd: string;
	/** Called whenever the terminal's size has changed, until the function that this gives is called. */
	onResize(listener: () => void): () => void;
	/** Aborted by Ctrl-C and by SIGTERM. */
	readonly interrupted: AbortSignal;
	/** The builder of the state directory. Whoever opens it disposes it, be it a new one or the daemon's. */
	openEngine(options: EngineOptions): Promise<Engine>;
}

export interface Input extends NodeJS.ReadableStream {
	readonly isTTY?: boolean;
	/** Of a terminal: keys come one by one and as they are, Ctrl-C too. */
	setRawMode?(isRaw: boolean): unknown;
}

export interface Output {
	write(text: string): unknown;
	/** Resolves when there is room for more. */
	writeBytes(chunk: Uint8Array): Promise<void>;
	/** Its descriptor, where it belongs to this process. */
	readonly fd?: number;
	readonly isTTY?: boolean | undefined;
	readonly columns?: number | undefined;
	readonly rows?: number | undefined;
}
