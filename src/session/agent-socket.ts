import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { wrap } from "../errors/errors.ts";
import { changeOwner } from "../sys/owner.ts";

/** Who may connect. */
export interface SocketOwner {
	readonly uid: number;
	readonly gid: number;
	readonly mode: number;
}

export interface AgentSocketOptions {
	readonly owner: SocketOwner;
	/** A client that has said all may still be answered. */
	readonly allowHalfOpen: boolean;
	/** `hold` keeps another socket among those that are destroyed at the end. */
	readonly onConnection: (client: Socket, hold: (other: Socket) => Socket) => void;
}

/** A socket in a directory of its own that a step finds an agent at. Disposing ends its connections and removes it. */
export async function listenAsAgent({
	owner,
	allowHalfOpen,
	onConnection,
}: AgentSocketOptions): Promise<AsyncDisposable & { readonly socketPath: string }> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-ssh-"));
	const socketPath = join(directory, "agent");
	const sockets = new Set<Socket>();
	const hold = (socket: Socket): Socket => {
		sockets.add(socket);
		socket.on("error", () => socket.destroy());
		socket.once("close", () => sockets.delete(socket));
		return socket;
	};
	const server = createServer({ allowHalfOpen }, (client) => onConnection(hold(client), hold));
	try {
		await new Promise<void>((done, failed) => {
			server.on("error", failed);
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
			for (const socket of sockets) {
				socket.destroy();
			}
			await new Promise<void>((done) => server.close(() => done()));
			rmSync(directory, { recursive: true, force: true });
		},
	};
}
