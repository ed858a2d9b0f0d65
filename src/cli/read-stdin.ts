import type { Terminal } from "./terminal.ts";

/** All of standard input. Rejects when the person interrupts. */
export async function readStdin({ stdin, interrupted }: Terminal): Promise<Uint8Array> {
	const chunks: Uint8Array[] = [];
	for await (const chunk of stdin) {
		interrupted.throwIfAborted();
		chunks.push(typeof chunk === "string" ? Buffer.from(chunk) : chunk);
	}
	return Buffer.concat(chunks);
}
