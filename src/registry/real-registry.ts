import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SlipwayError } from "../errors/errors.ts";

/** Debian's `docker-registry` on loopback with an empty storage, for tests. */
export interface RealRegistry extends AsyncDisposable {
	/** `127.0.0.1:port`. */
	readonly host: string;
}

export interface RealRegistryOptions {
	/** A line of an htpasswd file with bcrypt. */
	readonly htpasswd?: string;
	/** PEM files. */
	readonly tls?: { readonly certificate: string; readonly key: string };
}

export async function startRealRegistry(options: RealRegistryOptions = {}): Promise<RealRegistry> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-registry-"));
	const host = `127.0.0.1:${await freePort()}`;
	const { htpasswd, tls } = options;
	writeFileSync(join(directory, "htpasswd"), `${htpasswd ?? ""}\n`);
	const config = {
		version: "0.1",
		log: { level: "error", accesslog: { disabled: true } },
		storage: { filesystem: { rootdirectory: join(directory, "storage") }, delete: { enabled: true } },
		http: {
			addr: host,
			...(tls === undefined ? {} : { tls: { certificate: tls.certificate, key: tls.key } }),
		},
		...(htpasswd === undefined
			? {}
			: { auth: { htpasswd: { realm: "test", path: join(directory, "htpasswd") } } }),
	};
	// JSON is YAML too.
	writeFileSync(join(directory, "config.yml"), JSON.stringify(config));
	const child = spawn("docker-registry", ["serve", join(directory, "config.yml")], {
		stdio: ["ignore", "ignore", "pipe"],
	});
	const said: Buffer[] = [];
	child.stderr.on("data", (chunk: Buffer) => said.push(chunk));
	const ended = new Promise<void>((resolve) => {
		child.on("exit", () => resolve());
		child.on("error", (error) => {
			said.push(Buffer.from(error.message));
			resolve();
		});
	});
	const registry: RealRegistry = {
		host,
		async [Symbol.asyncDispose]() {
			child.kill("SIGKILL");
			await ended;
			rmSync(directory, { recursive: true, force: true });
		},
	};
	try {
		await untilListening(host, child, ended);
	} catch (thrown) {
		await registry[Symbol.asyncDispose]();
		const output = Buffer.concat(said).toString();
		throw new SlipwayError("unavailable", `docker-registry did not start: ${output}`, { cause: thrown });
	}
	return registry;
}

function freePort(): Promise<number> {
	return new Promise((resolve, reject) => {
		const server = createServer();
		server.on("error", reject);
		server.listen(0, "127.0.0.1", () => {
			const address = server.address();
			server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
		});
	});
}

async function untilListening(host: string, child: ChildProcess, ended: Promise<void>): Promise<void> {
	const { connect } = await import("node:net");
	const [address, port] = host.split(":");
	let gone = false;
	void ended.then(() => {
		gone = true;
	});
	for (let tries = 0; tries < 600 && !gone; tries++) {
		const open = await new Promise<boolean>((resolve) => {
			const socket = connect(Number(port), address, () => {
				socket.destroy();
				resolve(true);
			});
			socket.on("error", () => resolve(false));
		});
		if (open) {
			return;
		}
		await sleep(50);
	}
	throw new SlipwayError("unavailable", `nothing listens at ${host} (process ${child.pid})`);
}
