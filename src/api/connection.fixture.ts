import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Duplex, duplexPair } from "node:stream";
import type { Channel, GrpcServer, GrpcServerOptions, ServedMethod } from "./grpc.ts";
import { type ChannelOptions, openChannel } from "./grpc-client.ts";
import { serveGrpc } from "./grpc-server.ts";

/** A server and a client on it, for tests; disposing it closes both. */
export interface Served extends AsyncDisposable {
	readonly channel: Channel;
	readonly server: GrpcServer;
	/** The client's end of the connection. */
	readonly connection: Duplex;
	/** Another connection to the same server. */
	connect(): Promise<Duplex>;
}

export type Transport = "memory" | "unix";

export async function startServer(
	methods: readonly ServedMethod[],
	options: GrpcServerOptions & ChannelOptions & { readonly transport?: Transport } = {},
): Promise<Served> {
	const server = serveGrpc(methods, options);
	await using stack = new AsyncDisposableStack();
	stack.use(server);
	const transport = options.transport === "unix" ? await listen(server, stack) : async () => inMemory(server);
	const connection = await transport();
	const channel = stack.use(openChannel(connection, options));
	const moved = stack.move();
	return {
		channel,
		server,
		connection,
		connect: transport,
		[Symbol.asyncDispose]: () => moved.disposeAsync(),
	};
}

function inMemory(server: GrpcServer): Duplex {
	const [near, far] = duplexPair();
	void server.accept(far);
	// A pair does not tell the other side when one is destroyed, as a socket does.
	near.once("close", () => far.destroy());
	far.once("close", () => near.destroy());
	return near;
}

async function listen(server: GrpcServer, stack: AsyncDisposableStack): Promise<() => Promise<Socket>> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-grpc-"));
	const path = join(directory, "socket");
	const listener = createServer((socket) => void server.accept(socket));
	await new Promise<void>((resolve) => listener.listen(path, resolve));
	stack.defer(() => {
		listener.close();
		rmSync(directory, { recursive: true });
	});
	return async () => {
		const socket = connect(path);
		await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
		return socket;
	};
}
