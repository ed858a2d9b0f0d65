import { createConnection } from "node:net";
import { HealthCheckResponse_ServingStatus } from "../api/generated/health.ts";
import type { ServedMethod } from "../api/grpc.ts";
import { serve } from "../api/grpc-server.ts";
import { auth } from "../api/services/auth.ts";
import { health } from "../api/services/health.ts";
import { secrets } from "../api/services/secrets.ts";
import { ssh } from "../api/services/ssh.ts";
import { SlipwayError } from "../errors/errors.ts";
import { pipeBytes } from "./byte-pipe.ts";
import type { LocalSessionOptions } from "./local-session.ts";
import { callKeys, metadataValue } from "./session-metadata.ts";

export function serveHealth(): readonly ServedMethod[] {
	return [serve(health.check, async () => ({ status: HealthCheckResponse_ServingStatus.SERVING }))];
}

export function serveAuth({ auth: lent, tokenAuthority }: LocalSessionOptions): readonly ServedMethod[] {
	if (lent === undefined) {
		return [];
	}
	const credentials = serve(auth.credentials, async ({ Host }, { signal }) => {
		const found = await lent.credentials(Host, { signal });
		switch (found?.kind) {
			case undefined:
				return { Username: "", Secret: "" };
			case "basic":
				return { Username: found.username, Secret: found.password };
			case "identity-token":
				return { Username: "", Secret: found.token };
		}
	});
	if (tokenAuthority === undefined) {
		return [credentials];
	}
	return [
		credentials,
		serve(auth.getTokenAuthority, async ({ Host, Salt }, { signal }) => ({
			PublicKey: await tokenAuthority.publicKey(Host, Salt, { signal }),
		})),
		serve(auth.verifyTokenAuthority, async ({ Host, Salt, Payload }, { signal }) => ({
			Signed: await tokenAuthority.sign(Host, Salt, Payload, { signal }),
		})),
		serve(auth.fetchToken, async ({ Host, Realm, Service, Scopes }, { signal }) => {
			const { token, expiresInSeconds } = await tokenAuthority.fetch(
				{ host: Host, realm: Realm, service: Service, scopes: Scopes },
				{ signal },
			);
			return { Token: token, ExpiresIn: expiresInSeconds, IssuedAt: 0 };
		}),
	];
}

export function serveSecrets({ secrets: lent }: LocalSessionOptions): readonly ServedMethod[] {
	if (lent === undefined) {
		return [];
	}
	return [
		serve(secrets.getSecret, async ({ ID }, { signal }) => {
			const data = await lent.secret(ID, { signal });
			if (data === undefined) {
				throw new SlipwayError("not-found", "not found");
			}
			return { data };
		}),
	];
}

type LentAgent = AsyncDisposable & { readonly socketPath: string };

/** Agents are opened when they are first asked for, and closed with the session. */
export function serveSsh(
	{ ssh: lent }: LocalSessionOptions,
	signal: AbortSignal,
): AsyncDisposable & { readonly methods: readonly ServedMethod[] } {
	const agents = new Map<string, Promise<LentAgent>>();
	if (lent === undefined) {
		return { methods: [], [Symbol.asyncDispose]: async () => {} };
	}
	const open = async (id: string): Promise<LentAgent> => {
		const found = await lent.agent(id, {
			uid: process.getuid?.() ?? 0,
			gid: process.getgid?.() ?? 0,
			mode: 0o600,
			signal,
		});
		if (found === undefined) {
			throw new SlipwayError("unknown", `unset ssh forward key ${id}`);
		}
		return found;
	};
	const agent = (asked: string): Promise<LentAgent> => {
		const id = asked === "" ? "default" : asked;
		const known = agents.get(id) ?? open(id);
		agents.set(id, known);
		known.catch(() => agents.delete(id));
		return known;
	};
	return {
		methods: [
			serve(ssh.checkAgent, async ({ ID }) => {
				await agent(ID);
				return {};
			}),
			serve(ssh.forwardAgent, async (stream, call) => {
				const { socketPath } = await agent(metadataValue(call.metadata, callKeys.sshId) ?? "");
				const socket = createConnection({ path: socketPath, allowHalfOpen: true });
				const onAbort = (): void => {
					socket.destroy();
				};
				call.signal.addEventListener("abort", onAbort);
				try {
					await pipeBytes(socket, stream, undefined);
				} finally {
					call.signal.removeEventListener("abort", onAbort);
				}
			}),
		],
		async [Symbol.asyncDispose]() {
			for (const opened of agents.values()) {
				await (await opened.catch(() => undefined))?.[Symbol.asyncDispose]();
			}
		},
	};
}
