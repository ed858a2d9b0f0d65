/** What a command sees of its surroundings; made in `main.ts`, and in tests from plain values. */
export interface Terminal {
	readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
	readonly stdout: Output;
	readonly stderr: Output;
	readonly env: Readonly<Record<string, string | undefined>>;
	/** Aborted by Ctrl-C and by SIGTERM. */
	readonly interrupted: AbortSignal;
}

export interface Output {
	write(text: string): unknown;
	readonly isTTY?: boolean | undefined;
	readonly columns?: number | undefined;
	readonly rows?: number | undefined;
}
