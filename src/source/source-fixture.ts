import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { sha256 } from "../oci/digest.ts";
import type { ProgressEvent } from "../progress/progress.ts";
import type { Session } from "../session/session.ts";
import type { SourceOptions } from "./source.ts";

/** A session that has nothing but these secrets and agents (by id, the path of a socket). */
export function fakeSession(options: {
	readonly secrets?: Readonly<Record<string, string>>;
	readonly agents?: Readonly<Record<string, string>>;
}): Session {
	const refuse = (): never => assert.fail("not asked for by these sources");
	return {
		id: "session",
		sharedKey: "",
		files: { sync: refuse },
		auth: { credentials: refuse },
		secrets: {
			secret: async (id) => {
				const text = options.secrets?.[id];
				return text === undefined ? undefined : Buffer.from(text);
			},
		},
		ssh: {
			agent: async (id) => {
				const socketPath = options.agents?.[id];
				return socketPath === undefined
					? undefined
					: { socketPath, [Symbol.asyncDispose]: () => Promise.resolve() };
			},
		},
		contentStore: () => undefined,
		output: () => undefined,
		closed: new AbortController().signal,
	};
}

export function recordingOptions(signal: AbortSignal = new AbortController().signal): SourceOptions & {
	readonly events: ProgressEvent[];
	/** What the step printed. */
	log(): string;
} {
	const events: ProgressEvent[] = [];
	return {
		signal,
		vertex: sha256("vertex"),
		progress: { write: (event) => void events.push(event) },
		events,
		log: () => events.map((event) => (event.kind === "log" ? Buffer.from(event.log.data) : "")).join(""),
	};
}

export interface LoopbackServer extends AsyncDisposable {
	readonly port: number;
	readonly url: string;
}

export async function startServer(
	handle: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<LoopbackServer> {
	const server = createServer(handle);
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	const { port } = server.address() as AddressInfo;
	return {
		port,
		url: `http://127.0.0.1:${port}`,
		async [Symbol.asyncDispose]() {
			server.closeAllConnections();
			await new Promise<void>((resolve) => server.close(() => resolve()));
		},
	};
}
