import { chmodSync, chownSync, rmSync } from "node:fs";
import { connect, createServer, isIP, type ListenOptions, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import type { Duplex } from "node:stream";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { makeDirectories } from "../sys/make-directories.ts";
import type { GrpcConfig } from "./config.ts";
import { isUnixSocket, requireActivated } from "./systemd.ts";
import { serverTls } from "./tls.ts";

export interface ListenOptionsOf {
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly onConnection: (connection: Duplex) => void;
	readonly warn: (message: string) => void;
}

/** One address that is listened at. Disposing it stops listening; connections stay. */
export interface Listener extends AsyncDisposable {
	/** As clients would write it; with the port that was chosen, for port 0. */
	readonly address: string;
}

/**
 * Listens at every address, or, if one cannot be had, at none: `unix://<path>`, `tcp://<host>:<port>`, `fd://` for the sockets that systemd opened (or one of them, see `requireActivated`).
 * Throws what is wrong with an address, naming it.
 */
export async function listen(config: GrpcConfig, options: ListenOptionsOf): Promise<readonly Listener[]> {
	const tls = config.tls === undefined ? undefined : serverTls(config.tls);
	await using opened = new AsyncDisposableStack();
	const listeners: Listener[] = [];
	for (const address of config.addresses) {
		for (const open of await listenAt(address, { config, tls, options })) {
			listeners.push(opened.use(open));
		}
	}
	opened.move();
	return listeners;
}

interface Place {
	readonly config: GrpcConfig;
	readonly tls: TlsOptions | undefined;
	readonly options: ListenOptionsOf;
}

async function listenAt(address: string, place: Place): Promise<readonly Listener[]> {
	const [, scheme, rest = ""] = /^([^:]*):\/\/(.*)$/s.exec(address) ?? [];
	switch (scheme) {
		case undefined:
			throw new SlipwayError(
				"invalid-argument",
				`address ${address} does not contain proto, you meant unix://${address} ?`,
			);
		case "unix":
			return [await listenUnix(address, rest, place)];
		case "tcp":
			return [await listenTcp(address, rest, place)];
		case "fd":
			return await Promise.all(
				requireActivated(address, place.options.env).map((fd) =>
					start(
						newServer(isUnixSocket(fd) ? undefined : place.tls, place.options),
						{ fd },
						() => `fd://${fd}`,
					),
				),
			);
		default:
			throw new SlipwayError("invalid-argument", `addr ${address} not supported`);
	}
}

async function listenUnix(address: string, path: string, { config, tls, options }: Place): Promise<Listener> {
	if (path === "") {
		throw new SlipwayError("invalid-argument", `address ${address} has no path`);
	}
	if (tls !== undefined) {
		options.warn(`TLS is disabled for ${address}`);
	}
	try {
		makeDirectories(dirname(path), 0o770);
	} catch (error) {
		throw wrap(error, `directory of socket ${path} cannot be made`);
	}
	await removeStale(path);
	// Nobody can connect before the socket has its owner and mode.
	const mask = process.umask(0o777);
	let listener: Promise<Listener>;
	try {
		listener = start(newServer(undefined, options), { path }, () => address);
	} finally {
		process.umask(mask);
	}
	await using opened = new AsyncDisposableStack();
	const listening = opened.use(await listener);
	chownSync(path, config.uid ?? process.getuid?.() ?? 0, config.gid ?? process.getgid?.() ?? 0);
	chmodSync(path, 0o660);
	opened.move();
	return {
		address,
		async [Symbol.asyncDispose]() {
			await listening[Symbol.asyncDispose]();
			rmSync(path, { force: true });
		},
	};
}

/** A socket that a killed daemon left refuses connections; one that takes them is in use. */
async function removeStale(path: string): Promise<void> {
	const state = await new Promise<"used" | "stale" | "none">((resolve) => {
		const probe = connect({ path });
		probe.once("connect", () => {
			probe.destroy();
			resolve("used");
		});
		probe.once("error", (error) => resolve(hasCode(toError(error), "not-found") ? "none" : "stale"));
	});
	if (state === "used") {
		throw new SlipwayError("failed-precondition", `another process listens on ${path}`);
	}
	if (state === "stale") {
		rmSync(path, { force: true });
	}
}

async function listenTcp(address: string, rest: string, { config, tls, options }: Place): Promise<Listener> {
	const [, bracketed, plain, portText] = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(rest) ?? [];
	const host = bracketed ?? plain;
	const port = Number(portText);
	if (host === undefined || !(port <= 65_535)) {
		throw new SlipwayError("invalid-argument", `address ${address} must be tcp://<host>:<port>`);
	}
	if (tls === undefined) {
		const advice = `TLS is not enabled for ${address}. enabling mutual TLS authentication is highly recommended`;
		if (!isLoopback(host) && !config.allowPlainTcp) {
			throw new SlipwayError(
				"failed-precondition",
				`${advice}: use --tlscert, --tlskey and --tlscacert, or --allow-plain-tcp if whoever reaches this address may be root here`,
			);
		}
		options.warn(advice);
	} else if (config.tls?.ca === undefined) {
		options.warn(`clients of ${address} need no certificate: use --tlscacert`);
	}
	const server = newServer(tls, options);
	return await start(server, { port, ...(host === "" ? {} : { host }) }, () => {
		const bound = server.address();
		return typeof bound === "object" && bound !== null
			? `tcp://${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`
			: address;
	});
}

function isLoopback(host: string): boolean {
	return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

function newServer(tls: TlsOptions | undefined, { onConnection, warn }: ListenOptionsOf): Server {
	const accept = (socket: Socket): void => {
		socket.setNoDelay(true);
		// Whoever serves it hears of the end by `close`.
		socket.on("error", () => {});
		onConnection(socket);
	};
	const server = tls === undefined ? createServer(accept) : createTlsServer(tls, accept);
	// Such as that no more files can be opened: it is about one connection.
	server.once("listening", () => {
		server.on("error", (error) => warn(`cannot accept a connection: ${error.message}`));
	});
	server.on("tlsClientError", (error, socket) => {
		warn(`connection from ${socket.remoteAddress ?? "a client"} refused: ${error.message}`);
		socket.destroy();
	});
	return server;
}

function start(
	server: Server,
	where: ListenOptions & { readonly fd?: number },
	address: () => string,
): Promise<Listener> {
	return new Promise((resolve, reject) => {
		server.on("error", (error) => reject(wrap(error, "cannot listen")));
		server.listen(where, () => {
			resolve({
				address: address(),
				[Symbol.asyncDispose]: () =>
					new Promise<void>((closed) => {
						server.close();
						closed();
					}),
			});
		});
	});
}
