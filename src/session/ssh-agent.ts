import { chmodSync, chownSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { SlipwayError, wrap } from "../errors/errors.ts";
import type { SessionSsh } from "./session.ts";

/**
 * The client's agents by id, from `--ssh`: `default`, `id`, `id=socket`; without a socket it is that of `SSH_AUTH_SOCK`.
 * Throws `invalid-argument` for what is no agent.
 */
export function createSshAgents(
	specs: readonly string[],
	options: {
		readonly env: Readonly<Record<string, string | undefined>>;
		/** What relative paths start from; default: the process's own directory. */
		readonly cwd?: string;
	},
): SessionSsh {
	const agents = new Map(specs.map((spec) => parseAgent(spec, options.env, options.cwd ?? "")));
	return {
		async agent(id, { uid, gid, mode, signal }) {
			signal.throwIfAborted();
			const agentPath = agents.get(id === "" ? "default" : id);
			return agentPath === undefined ? undefined : serveAgent(agentPath, { uid, gid, mode });
		},
	};
}

function parseAgent(
	spec: string,
	env: Readonly<Record<string, string | undefined>>,
	cwd: string,
): [string, string] {
	const equals = spec.indexOf("=");
	const id = (equals === -1 ? spec : spec.slice(0, equals)) || "default";
	const given = equals === -1 ? "" : spec.slice(equals + 1);
	const path = given === "" ? (env["SSH_AUTH_SOCK"] ?? "") : given;
	if (path === "") {
		throw new SlipwayError(
			"invalid-argument",
			"invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set",
		);
	}
	let isSocket: boolean;
	try {
		isSocket = statSync(resolve(cwd, path)).isSocket();
	} catch (error) {
		throw wrap(error, `failed to find ssh agent ${id}`);
	}
	if (!isSocket) {
		throw new SlipwayError(
			"unimplemented",
			`--ssh ${spec}: ${path} is no socket, and keys from files are not supported: add it to an agent with ssh-add, then use --ssh ${id}`,
		);
	}
	return [id, resolve(cwd, path)];
}

/**
 * A socket that speaks to the agent, and only lets through what a build needs: the list of keys, and signatures. What would
 * change the agent or take its keys is refused.
 */
async function serveAgent(
	agentPath: string,
	owner: { readonly uid: number; readonly gid: number; readonly mode: number },
): Promise<AsyncDisposable & { readonly socketPath: string }> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-ssh-"));
	const socketPath = join(directory, "agent");
	const sockets = new Set<Socket>();
	const hold = (socket: Socket): Socket => {
		sockets.add(socket);
		socket.on("error", () => socket.destroy());
		socket.once("close", () => sockets.delete(socket));
		return socket;
	};
	const server = createServer((client) => {
		hold(client);
		relay(client, hold(createConnection(agentPath)));
	});
	try {
		await new Promise<void>((done, failed) => {
			server.once("error", failed);
			server.listen(socketPath, done);
		});
		chownSync(socketPath, owner.uid, owner.gid);
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

/** draft-ietf-sshm-ssh-agent, section 3: a message is its length (4 bytes), its type (1 byte), its content. */
const allowedRequests: ReadonlySet<number> = new Set([11, 13]);
const failure = Uint8Array.of(0, 0, 0, 1, 5);

/** OpenSSH's own limit for one message. */
const maxMessage = 256 * 1024;

/** Requests are answered in their order, so the next is looked at when the last has its answer. */
function relay(client: Socket, agent: Socket): void {
	const end = (): void => {
		client.destroy();
		agent.destroy();
	};
	client.once("close", end);
	agent.once("close", end);
	const answer = async (): Promise<void> => {
		const answers = messages(agent);
		for await (const request of messages(client)) {
			if (!allowedRequests.has(request[4] ?? 0)) {
				client.write(failure);
				continue;
			}
			agent.write(request);
			const next = await answers.next();
			if (next.done === true) {
				return;
			}
			client.write(next.value);
		}
	};
	// A broken connection is the client's to notice.
	answer().then(end, end);
}

async function* messages(socket: Socket): AsyncGenerator<Buffer, undefined> {
	let pending: Buffer = Buffer.alloc(0);
	for await (const chunk of socket as AsyncIterable<Buffer>) {
		pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
		while (pending.length >= 4) {
			const length = pending.readUInt32BE(0);
			if (length === 0 || length > maxMessage) {
				return;
			}
			if (pending.length < 4 + length) {
				break;
			}
			yield pending.subarray(0, 4 + length);
			pending = pending.subarray(4 + length);
		}
	}
}
