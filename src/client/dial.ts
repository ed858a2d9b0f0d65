import { spawn } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { canceled, SlipwayError, toError, wrap } from "../errors/errors.ts";

/** PEM files of a connection with mutual TLS. */
export interface TlsFiles {
	/** Certificates that the builder's is checked with; default: those that Node trusts. */
	readonly ca?: string;
	readonly cert?: string;
	readonly key?: string;
	/** The name that the builder's certificate must have; default: the address's host. */
	readonly serverName?: string;
}

export interface DialOptions {
	readonly tls?: TlsFiles;
	readonly signal: AbortSignal;
	/** For programs that tunnel: `docker`, `kubectl`, `ssh`. */
	readonly env: Readonly<Record<string, string | undefined>>;
}

/**
 * A connection to a builder by BuildKit's addresses: `unix://PATH`, `tcp://HOST:PORT`; and through a program that reaches one,
 * `docker-container://NAME`, `podman-container://NAME`, `nerdctl-container://NAME`, `kube-pod://POD`, `ssh://[USER@]HOST[:PORT][/SOCKET]`.
 * Throws `unavailable` if nobody listens there, `invalid-argument` for what is no address.
 */
export async function dial(address: string, options: DialOptions): Promise<Duplex> {
	const scheme = /^([a-z-]+):\/\//.exec(address)?.[1];
	const rest = address.slice((scheme?.length ?? -3) + 3);
	switch (scheme) {
		case "unix":
			return socket(address, () => connectSocket(rest), options);
		case "tcp":
			return dialTcp(address, rest, options);
		case "docker-container":
		case "podman-container":
		case "nerdctl-container":
		case "kube-pod":
		case "ssh": {
			const { tunnelCommand } = await import("./tunnel-command.ts");
			return through(tunnelCommand(scheme, address), options);
		}
		default:
			throw new SlipwayError(
				"invalid-argument",
				`invalid builder address ${JSON.stringify(address)}: use unix://PATH, tcp://HOST:PORT, docker-container://NAME, podman-container://NAME, nerdctl-container://NAME, kube-pod://POD or ssh://HOST`,
			);
	}
}

/** The three files of a directory, under BuildKit's names. */
export function tlsDirectory(directory: string): TlsFiles {
	const pick = (first: string, second: string): string => {
		const found = [first, second].find((name) => isFile(join(directory, name)));
		if (found === undefined) {
			throw new SlipwayError(
				"not-found",
				`directory did not contain one of the needed files: ${first} or ${second}`,
			);
		}
		return join(directory, found);
	};
	return { ca: pick("ca.pem", "ca.crt"), cert: pick("cert.pem", "tls.crt"), key: pick("key.pem", "tls.key") };
}

function isFile(path: string): boolean {
	return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function dialTcp(address: string, rest: string, options: DialOptions): Promise<Duplex> {
	const url = URL.parse(`tcp://${rest}`);
	if (url === null || url.hostname === "" || url.port === "") {
		throw new SlipwayError("invalid-argument", `invalid builder address ${address}: use tcp://HOST:PORT`);
	}
	const target = { host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) };
	const { tls } = options;
	if (tls === undefined) {
		return socket(address, () => connectSocket(target), options);
	}
	const files = {
		...(tls.ca === undefined ? {} : { ca: readPem(tls.ca) }),
		...(tls.cert === undefined ? {} : { cert: readPem(tls.cert) }),
		...(tls.key === undefined ? {} : { key: readPem(tls.key) }),
	};
	const servername = tls.serverName ?? target.host;
	return socket(
		address,
		() => connectTls({ ...target, ...files, servername, ALPNProtocols: ["h2"] }),
		options,
		"secureConnect",
	);
}

function readPem(path: string): Buffer {
	try {
		return readFileSync(path);
	} catch (thrown) {
		throw wrap(thrown, `could not read ${path}`);
	}
}

function socket(
	address: string,
	open: () => Socket,
	{ signal }: DialOptions,
	ready = "connect",
): Promise<Duplex> {
	return new Promise((settle, fail) => {
		const connection = open();
		const abort = (): void => void connection.destroy(canceled(signal.reason));
		const done = (thrown?: unknown): void => {
			signal.removeEventListener("abort", abort);
			connection.off("error", done);
			if (thrown === undefined) {
				settle(connection);
			} else {
				const error = toError(thrown);
				fail(
					error.code === "canceled"
						? error
						: wrap(thrown, `failed to dial ${JSON.stringify(address)}, make sure the builder is running`, {
								code: "unavailable",
							}),
				);
			}
		};
		connection.once("error", done);
		connection.once(ready, () => done());
		signal.addEventListener("abort", abort);
		if (signal.aborted) {
			abort();
		}
	});
}

/** The stdio of a program that speaks to the builder (`buildctl dial-stdio` at the other end). */
function through(command: readonly string[], { signal, env }: DialOptions): Promise<Duplex> {
	const [program = "", ...args] = command;
	return new Promise((settle, fail) => {
		const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...env } });
		let said = "";
		child.stderr.on("data", (chunk: Buffer) => {
			said = (said + chunk.toString()).slice(-4096);
		});
		const connection = Duplex.from({ readable: child.stdout, writable: child.stdin });
		const abort = (): void => void child.kill();
		signal.addEventListener("abort", abort, { once: true });
		child.once("error", (thrown) => fail(wrap(thrown, `could not run ${program}`, { code: "unavailable" })));
		child.once("spawn", () => settle(connection));
		child.once("exit", (code) => {
			signal.removeEventListener("abort", abort);
			connection.destroy(
				new SlipwayError("unavailable", `${program} ended with exit code ${code}: ${said.trim()}`),
			);
		});
		connection.once("close", () => child.kill());
	});
}
