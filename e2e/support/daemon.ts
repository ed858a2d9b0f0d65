import { type ChildProcess, spawn } from "node:child_process";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readFileSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Channel } from "../../src/api/grpc.ts";
import { openChannel } from "../../src/api/grpc-client.ts";
import type { Finished } from "./slipway.ts";
import { projectRoot } from "./slipway.ts";

/** Debian's docker, docker-buildx and docker-compose, which `make clients` unpacked. */
export const clientsDirectory: string = join(projectRoot, ".slipway/clients");

export interface DaemonOptions {
	/** Besides the state directory and the socket. */
	readonly flags?: readonly string[];
	/** How it is called; default `bin/slipwayd`. */
	readonly command?: readonly string[];
	readonly env?: Readonly<Record<string, string>>;
	/** Files that are open in it from descriptor 3 on. */
	readonly files?: readonly number[];
	/** In place of one of its own. */
	readonly root?: string;
}

/** A daemon with a state directory and a docker configuration of its own; everything goes when disposed. */
export class DaemonBench implements AsyncDisposable {
	readonly dir: string;
	readonly root: string;
	readonly socket: string;
	readonly #running = new Set<ChildProcess>();
	#contexts = 0;

	constructor() {
		this.dir = mkdtempSync(join(tmpdir(), "slipwayd-e2e-"));
		this.root = join(this.dir, "state");
		this.socket = join(this.dir, "run/slipwayd.sock");
		mkdirSync(join(this.dir, "docker"));
		symlinkSync(join(clientsDirectory, "cli-plugins"), join(this.dir, "docker/cli-plugins"));
	}

	get address(): string {
		return `unix://${this.socket}`;
	}

	/** A directory with these files. */
	context(files: Readonly<Record<string, string>>): string {
		const dir = join(this.dir, `context${this.#contexts++}`);
		for (const [name, content] of Object.entries(files)) {
			mkdirSync(dirname(join(dir, name)), { recursive: true });
			writeFileSync(join(dir, name), content);
		}
		return dir;
	}

	/** Resolves when it serves; rejects with what it said if it does not. */
	async startDaemon(options: DaemonOptions = {}): Promise<RunningDaemon> {
		const command = options.command ?? [join(projectRoot, "bin/slipwayd"), "--addr", this.address];
		const daemon = this.#spawn(
			[...command, "--root", options.root ?? this.root, ...(options.flags ?? [])],
			options.env ?? {},
			options.files ?? [],
		);
		await daemon.says(/running server on/);
		return daemon;
	}

	/** Runs a client to its end; failing is an error that shows what was printed. */
	async client(args: readonly string[], options: { readonly cwd?: string } = {}): Promise<Finished> {
		const result = await this.tryClient(args, options).finished;
		if (result.code !== 0) {
			throw new Error(
				`${args.join(" ")} ended with ${result.code ?? result.signal}:\n${result.stderr}${result.stdout}`,
			);
		}
		return result;
	}

	/** A client that may fail, or be killed. */
	tryClient(
		[name = "", ...args]: readonly string[],
		{ cwd = this.dir }: { readonly cwd?: string } = {},
	): RunningDaemon {
		return this.#spawn(
			[join(clientsDirectory, "bin", name), ...args],
			{ DOCKER_CONFIG: join(this.dir, "docker") },
			[],
			cwd,
		);
	}

	/** A connection of ours to the daemon's API. */
	async channel(): Promise<Channel> {
		const connection = connect(this.socket);
		await new Promise((resolve, reject) => connection.once("connect", resolve).once("error", reject));
		return openChannel(connection);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		for (const child of this.#running) {
			child.kill("SIGKILL");
			await new Promise((resolve) => child.once("close", resolve));
		}
		rmSync(this.dir, { recursive: true, force: true });
	}

	#spawn(
		[command = "", ...args]: readonly string[],
		env: Readonly<Record<string, string>>,
		files: readonly number[],
		cwd: string = this.dir,
	): RunningDaemon {
		const child = spawn(command, args, {
			cwd,
			env: { PATH: `${clientsDirectory}/bin:${process.env["PATH"] ?? ""}`, HOME: this.dir, ...env },
			stdio: ["ignore", "pipe", "pipe", ...files],
		});
		this.#running.add(child);
		const stdout: Buffer[] = [];
		let stderr = "";
		const watchers = new Set<() => void>();
		child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
		child.stderr?.on("data", (chunk: Buffer) => {
			stderr += chunk.toString();
			for (const watch of watchers) {
				watch();
			}
		});
		const finished = new Promise<Finished>((done, failed) => {
			child.on("error", failed);
			child.on("close", (code, signal) => {
				this.#running.delete(child);
				done({ code, signal, stdout: Buffer.concat(stdout), stderr });
			});
		});
		return {
			child,
			finished,
			says: (text) =>
				new Promise((seen, failed) => {
					const watch = (): void => {
						if (text.test(stderr)) {
							watchers.delete(watch);
							seen();
						}
					};
					watchers.add(watch);
					watch();
					void finished.then(() => failed(new Error(`never said ${text}:\n${stderr}`)), failed);
				}),
			said: () => stderr,
			residentBytes: () => residentBytes(child.pid ?? 0),
		};
	}
}

export interface RunningDaemon {
	readonly child: ChildProcess;
	readonly finished: Promise<Finished>;
	/** Resolves when standard error has had the text; rejects if the program ended before. */
	says(text: RegExp): Promise<void>;
	/** All of standard error so far. */
	said(): string;
	residentBytes(): number;
}

/** Fails with what to do if the clients are not there. */
export function requireClients(): void {
	if (!existsSync(join(clientsDirectory, "bin/docker-buildx"))) {
		throw new Error("docker's clients are missing: 'make clients' unpacks them");
	}
}

function residentBytes(pid: number): number {
	const status = readFileSync(`/proc/${pid}/status`, "utf8");
	return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
