import type { Socket } from "node:net";
import { ssh } from "../api/services/ssh.ts";
import { toError } from "../errors/errors.ts";
import { listenAsAgent, type SocketOwner } from "./agent-socket.ts";
import { pipeBytes } from "./byte-pipe.ts";
import { call, type OpenCall, openCall, type RemoteCalls } from "./remote-calls.ts";
import type { SessionSsh } from "./session.ts";
import { callKeys } from "./session-metadata.ts";

/** The client's agents: each connection to the socket is a call to the client. */
export function createRemoteSsh(calls: RemoteCalls): SessionSsh {
	return {
		async agent(id, { uid, gid, mode, signal }) {
			const name = id === "" ? "default" : id;
			if (!calls.supports(ssh.checkAgent) || !calls.supports(ssh.forwardAgent)) {
				return undefined;
			}
			try {
				await call(calls, ssh.checkAgent, { ID: name }, { signal });
			} catch (thrown) {
				const { code, message } = toError(thrown);
				if (code === "unimplemented" || code === "not-found" || message.includes("unset ssh forward key")) {
					return undefined;
				}
				throw thrown;
			}
			return serveAgent(calls, name, { uid, gid, mode });
		},
	};
}

function serveAgent(calls: RemoteCalls, id: string, owner: SocketOwner): ReturnType<typeof listenAsAgent> {
	const onConnection = (socket: Socket): void => {
		const ended = new AbortController();
		socket.once("close", () => ended.abort());
		let open: OpenCall<{ readonly data: Uint8Array }, { readonly data: Uint8Array }>;
		try {
			open = openCall(calls, ssh.forwardAgent, {
				signal: ended.signal,
				metadata: { [callKeys.sshId]: [id] },
			});
		} catch {
			// The client has gone; what connects here finds out by this.
			socket.destroy();
			return;
		}
		void pipeBytes(socket, open.stream, () => open.stream.closeSend()).finally(() => open[Symbol.dispose]());
	};
	return listenAsAgent({ owner, allowHalfOpen: true, onConnection });
}
