import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ssh } from "../api/services/ssh.ts";
import { toError, wrap } from "../errors/errors.ts";
import { changeOwner } from "../sys/owner.ts";
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

async function serveAgent(
	calls: RemoteCalls,
	id: string,
	owner: { readonly uid: number; readonly gid: number; readonly mode: number },
): Promise<AsyncDisposable & { readonly socketPath: string }> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-ssh-"));
	const socketPath = join(directory, "agent");
	const ended = new AbortController();
	const sockets = new Set<Socket>();
	const server = createServer({ allowHalfOpen: true }, (socket) => {
		sockets.add(socket);
		socket.once("close", () => sockets.delete(socket));
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
	});
	try {
		await new Promise<void>((done, failed) => {
			server.once("error", failed);
			server.listen(socketPath, done);
		});
		changeOwner(socketPath, owner.uid, owner.gid);
		chmodSync(socketPath, owner.mode);
	} catch (error) {
		server.close();
		rmSync(directory, { recursive: true, force: true });
		throw wrap(error, "failed to forward the ssh agent");
	}
	return {
		socketPath,
		async [Symbol.asyncDispose]() {
			ended.abort();
			for (const socket of sockets) {
				socket.destroy();
			}
			await new Promise<void>((done) => server.close(() => done()));
			rmSync(directory, { recursive: true, force: true });
		},
	};
}
