import type { Channel, Metadata, ServedMethod } from "../api/grpc.ts";
import { serveGrpc } from "../api/grpc-server.ts";
import { control } from "../api/services/control.ts";
import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import { canceled } from "../errors/errors.ts";
import type { LocalSessionOptions } from "./local-session.ts";
import { serveAuth, serveHealth, serveSecrets, serveSsh } from "./serve-abilities.ts";
import { serveContent } from "./serve-content.ts";
import { serveDirectories, serveOutputs } from "./serve-files.ts";
import { sessionKeys } from "./session-metadata.ts";
import { createTunnel } from "./tunnel.ts";

/**
 * Lends to a builder elsewhere: opens `Control.Session` and serves what is lent inside, until it is disposed or the signal fires. The same
 * description makes the session of a builder in this process (local-session.ts).
 */
export async function serveSession(
	channel: Channel,
	lends: LocalSessionOptions,
	{ signal }: { readonly signal: AbortSignal },
): Promise<AsyncDisposable> {
	const ended = new AbortController();
	const all = AbortSignal.any([signal, ended.signal]);
	const { methods, ...served } = createSessionMethods(lends, all);
	await using cleanup = new AsyncDisposableStack();
	cleanup.use(served);
	const stream = channel.stream(control.session, {
		signal: all,
		metadata: sessionMetadata(lends, methods),
	});
	cleanup.defer(() => stream.cancel());
	await stream.headers;
	const tunnel = createTunnel(stream, { closeSend: () => stream.closeSend() });
	const server = cleanup.use(serveGrpc(methods));
	const closed = server.accept(tunnel);
	const held = cleanup.move();
	return {
		async [Symbol.asyncDispose]() {
			ended.abort(canceled());
			tunnel.destroy();
			await held.disposeAsync();
			await closed;
		},
	};
}

/** Who the client is and what it offers. */
export function sessionMetadata(
	{ id, sharedKey }: Pick<LocalSessionOptions, "id" | "sharedKey">,
	methods: readonly ServedMethod[],
): Metadata {
	return {
		[sessionKeys.id]: [id],
		[sessionKeys.sharedKey]: [sharedKey],
		[sessionKeys.method]: methods.map(({ method }) => method.path),
	};
}

/** The services of what is lent, and no others. Disposing it ends what they hold; the signal ends what they do. */
export function createSessionMethods(
	lends: LocalSessionOptions,
	signal: AbortSignal,
): AsyncDisposable & { readonly methods: readonly ServedMethod[] } {
	let own: ThreadPool | undefined;
	const pool = (): ThreadPool => lends.pool ?? (own ??= createThreadPool({ size: 1 }));
	const ssh = serveSsh(lends, signal);
	return {
		methods: [
			...serveHealth(),
			...serveDirectories(lends),
			...serveOutputs(lends, pool),
			...serveAuth(lends),
			...serveSecrets(lends),
			...ssh.methods,
			...serveContent(lends),
		],
		async [Symbol.asyncDispose]() {
			await ssh[Symbol.asyncDispose]();
			await own?.[Symbol.asyncDispose]();
		},
	};
}
