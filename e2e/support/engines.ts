import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer, connect as dial } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { clientsDirectory } from "./daemon.ts";
import { projectRoot } from "./slipway.ts";

/** A container engine of a test's own, with Docker's API at a socket. */
export interface TestEngine extends AsyncDisposable {
	/** For `DOCKER_HOST`; what goes through it is counted. */
	readonly host: string;
	/** Bytes of each image load so far. */
	readonly loads: readonly number[];
	get(path: string): Promise<unknown>;
}

/** Debian unstable's dockerd with plain storage and no network; `containerd`: with containerd's image store. */
export async function startDocker(dir: string, store: "classic" | "containerd"): Promise<TestEngine> {
	const own = join(dir, `docker-${store}`);
	mkdirSync(own);
	const config = join(own, "daemon.json");
	writeFileSync(config, JSON.stringify({ features: { "containerd-snapshotter": store === "containerd" } }));
	const bin = join(clientsDirectory, "bin");
	const socket = join(own, "docker.sock");
	const args = [
		...["--config-file", config, "--data-root", join(own, "data"), "--exec-root", join(own, "exec")],
		...["--pidfile", join(own, "pid"), "--host", `unix://${socket}`],
		...["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"],
		`--storage-driver=${store === "containerd" ? "native" : "vfs"}`,
	];
	return startEngine(join(bin, "dockerd"), args, socket, { PATH: `${bin}:${process.env["PATH"]}` });
}

/** Debian's podman as a service. */
export async function startPodman(dir: string): Promise<TestEngine> {
	const state = join(dir, "podman");
	mkdirSync(state);
	const socket = join(state, "podman.sock");
	const args = ["system", "service", "--time", "0", `unix://${socket}`];
	return startEngine(join(projectRoot, "scripts/podman"), args, socket, { PODMAN_STATE: state });
}

async function startEngine(
	program: string,
	args: readonly string[],
	socket: string,
	env: Readonly<Record<string, string>>,
): Promise<TestEngine> {
	const child = spawn(program, args, {
		env: { ...process.env, ...env },
		stdio: ["ignore", "pipe", "pipe"],
		detached: true,
	});
	let said = "";
	for (const stream of [child.stdout, child.stderr]) {
		stream.on("data", (chunk: Buffer) => {
			said = (said + chunk.toString()).slice(-4000);
		});
	}
	const ended = new Promise<void>((resolve) => {
		child.on("error", (error) => {
			said += error.message;
			resolve();
		});
		child.on("exit", () => resolve());
	});
	const loads: number[] = [];
	const counter = await countingProxy(`${socket}.counted`, socket, loads);
	const engine: TestEngine = {
		host: `unix://${socket}.counted`,
		loads,
		get: (path) => getJson(socket, path),
		async [Symbol.asyncDispose]() {
			counter.close();
			end(child);
			await ended;
			unmountBelow(dirname(socket));
		},
	};
	let gone = false;
	void ended.then(() => {
		gone = true;
	});
	for (let tries = 0; tries < 300 && !gone; tries++) {
		if (existsSync(socket)) {
			try {
				await engine.get("/version");
				return engine;
			} catch {}
		}
		await sleep(100);
	}
	await engine[Symbol.asyncDispose]();
	throw new Error(`${program} did not start; 'make packages clients' installs what the tests need:\n${said}`);
}

/** The engine with whatever it has started, which is a group of its own. */
function end(child: ChildProcess): void {
	try {
		process.kill(-(child.pid ?? 0), "SIGTERM");
	} catch {}
	setTimeout(() => {
		try {
			process.kill(-(child.pid ?? 0), "SIGKILL");
		} catch {}
	}, 5000).unref();
}

/** Engines leave their storage mounted. */
function unmountBelow(dir: string): void {
	const mounts = readFileSync("/proc/self/mountinfo", "utf8")
		.split("\n")
		.map((line) => line.split(" ")[4] ?? "")
		.filter((path) => path.startsWith(`${dir}/`));
	for (const path of mounts.reverse()) {
		spawnSync("umount", ["-l", path]);
	}
}

async function countingProxy(from: string, to: string, loads: number[]): Promise<{ close(): void }> {
	const server = createServer((client) => {
		const upstream = dial(to);
		let first = "";
		let bytes = 0;
		client.on("data", (chunk: Buffer) => {
			first ||= chunk.toString("latin1", 0, 40);
			bytes += chunk.length;
		});
		upstream.on("close", () => {
			if (first.startsWith("POST /images/load")) {
				loads.push(bytes);
			}
		});
		client.on("error", () => upstream.destroy());
		upstream.on("error", () => client.destroy());
		client.pipe(upstream).pipe(client);
	});
	await new Promise<void>((resolve) => {
		server.listen(from, resolve);
	});
	return { close: () => void server.close() };
}

function getJson(socketPath: string, path: string): Promise<unknown> {
	return new Promise((resolve, reject) => {
		const call = request({ socketPath, path, host: "engine", agent: false }, (response) => {
			let text = "";
			response.on("data", (chunk: Buffer) => {
				text += chunk.toString();
			});
			response.on("end", () => {
				if (response.statusCode === 200) {
					resolve(JSON.parse(text));
				} else {
					reject(new Error(`${path}: ${response.statusCode} ${text}`));
				}
			});
		});
		call.on("error", reject);
		call.end();
	});
}

export function digestOf(file: string): string {
	return `sha256:${createHash("sha256").update(readFileSync(file)).digest("hex")}`;
}
