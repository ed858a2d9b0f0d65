import { statSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { resolve } from "node:path";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { listenAsAgent, type SocketOwner } from "./agent-socket.ts";
import { type AgentKey, agentFailure, answerAgentRequest, readAgentKey } from "./key-agent.ts";
import type { SessionSsh } from "./session.ts";

/** What is lent under one id: the agent at a socket, or keys of files. */
type Lent =
	| { readonly kind: "socket"; readonly path: string; readonly raw: boolean }
	| { readonly kind: "keys"; readonly keys: readonly AgentKey[] };

/**
 * The client's agents by id, from `--ssh`: `default`, `id`, `id=socket`, `id=key,key`; without a path it is the socket of
 * `SSH_AUTH_SOCK`. `raw=true` after a socket lends whatever it speaks, unfiltered. Throws `invalid-argument` for what is no agent.
 */
export function createSshAgents(
	specs: readonly string[],
	options: {
		readonly env: Readonly<Record<string, string | undefined>>;
		/** What relative paths start from; default: the process's own directory. */
		readonly cwd?: string;
	},
): SessionSsh {
	const agents = new Map<string, Lent>();
	for (const spec of specs) {
		const { id, ...parsed } = parseSpec(spec, options.env);
		if (agents.has(id)) {
			throw new SlipwayError("invalid-argument", `duplicate agent ID ${JSON.stringify(id)}`);
		}
		agents.set(id, lentBy(id, parsed, options.cwd ?? ""));
	}
	return {
		async agent(id, { uid, gid, mode, signal }) {
			signal.throwIfAborted();
			const lent = agents.get(id === "" ? "default" : id);
			return lent === undefined ? undefined : serveAgent(lent, { uid, gid, mode });
		},
	};
}

function parseSpec(
	spec: string,
	env: Readonly<Record<string, string | undefined>>,
): { readonly id: string; readonly paths: readonly string[]; readonly raw: boolean } {
	const equals = spec.indexOf("=");
	const id = (equals === -1 ? spec : spec.slice(0, equals)) || "default";
	const values = equals === -1 ? [] : spec.slice(equals + 1).split(",");
	const given = values.filter((value) => value !== "" && !value.startsWith("raw="));
	const raw = values.find((value) => value.startsWith("raw="))?.slice("raw=".length) ?? "false";
	if (!/^(?:1|t|true|0|f|false)$/i.test(raw)) {
		throw new SlipwayError("invalid-argument", `invalid value for 'raw': ${raw}`);
	}
	const paths = given.length === 0 ? [env["SSH_AUTH_SOCK"] ?? ""] : given;
	if (paths[0] === "") {
		throw new SlipwayError(
			"invalid-argument",
			"invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set",
		);
	}
	return { id, paths, raw: /^(?:1|t|true)$/i.test(raw) };
}

function lentBy(
	id: string,
	{ paths, raw }: { readonly paths: readonly string[]; readonly raw: boolean },
	cwd: string,
): Lent {
	const absolute = paths.map((path) => resolve(cwd, path));
	const sockets = absolute.filter((path) => {
		try {
			return statSync(path).isSocket();
		} catch (error) {
			throw wrap(error, `failed to find ssh agent ${id}`);
		}
	});
	const [socket] = sockets;
	if (sockets.length > 1) {
		throw new SlipwayError("invalid-argument", `--ssh ${id}: only single socket allowed`);
	}
	if (raw && (socket === undefined || paths.length > 1)) {
		throw new SlipwayError("invalid-argument", `raw mode must supply exactly one socket path for "${id}"`);
	}
	if (socket !== undefined && paths.length > 1) {
		throw new SlipwayError("invalid-argument", `--ssh ${id}: invalid combination of keys and sockets`);
	}
	return socket === undefined
		? { kind: "keys", keys: absolute.map(readAgentKey) }
		: { kind: "socket", path: socket, raw };
}

/**
 * A socket that speaks to the agent, and only lets through what a build needs: the list of keys, and signatures. What would
 * change the agent or take its keys is refused.
 */
function serveAgent(lent: Lent, owner: SocketOwner): ReturnType<typeof listenAsAgent> {
	return listenAsAgent({
		owner,
		allowHalfOpen: false,
		onConnection: (client, hold) => {
			if (lent.kind === "keys") {
				void answerFrom(client, lent.keys);
				return;
			}
			const agent = hold(createConnection(lent.path));
			if (lent.raw) {
				pipeRaw(client, agent);
			} else {
				relay(client, agent);
			}
		},
	});
}

/** draft-ietf-sshm-ssh-agent, section 3: a message is its length (4 bytes), its type (1 byte), its content. */
const allowedRequests: ReadonlySet<number> = new Set([11, 13]);

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
				client.write(agentFailure);
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

async function answerFrom(client: Socket, keys: readonly AgentKey[]): Promise<void> {
	try {
		for await (const request of messages(client)) {
			client.write(answerAgentRequest(keys, request));
		}
	} catch {
		// A broken connection is the client's to notice.
	}
	client.destroy();
}

function pipeRaw(client: Socket, agent: Socket): void {
	client.pipe(agent);
	agent.pipe(client);
	client.once("close", () => agent.destroy());
	agent.once("close", () => client.destroy());
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
