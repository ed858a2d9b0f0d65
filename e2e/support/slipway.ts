import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

export const projectRoot: string = resolve(import.meta.dirname, "../..");
export const program: string = join(projectRoot, "bin/slipway");

/** OCI layouts that `make images` made. */
export const busyboxLayout: string = join(projectRoot, ".slipway/images/busybox");
/** Of another architecture than this machine's. */
export const foreignLayout: string = join(projectRoot, ".slipway/images/busybox-foreign");
export const debianLayout: string = join(projectRoot, ".slipway/images/debian");
/** `FROM base` in a test's Dockerfile. */
export const busyboxBase: readonly string[] = [
	"--build-context",
	`base=oci-layout://${busyboxLayout}:latest`,
];

export interface Finished {
	readonly code: number | null;
	readonly signal: NodeJS.Signals | null;
	readonly stdout: Buffer;
	readonly stderr: string;
}

export interface RunningProgram {
	readonly child: ChildProcess;
	readonly finished: Promise<Finished>;
	/** Resolves when standard error has had the text; rejects if the program ended before. */
	sees(text: string | RegExp): Promise<void>;
}

export interface ProgramOptions {
	readonly cwd?: string;
	readonly env?: Readonly<Record<string, string>>;
	readonly input?: string | Uint8Array;
}

/** One builder's state directory and scratch space; everything goes when disposed. */
export class Workbench implements Disposable {
	readonly dir: string;
	readonly root: string;
	readonly #background: boolean;
	#contexts = 0;

	/** `background`: builds run in the background builder, as a person's do. */
	constructor({ background = false }: { readonly background?: boolean } = {}) {
		this.#background = background;
		this.dir = mkdtempSync(join(tmpdir(), "slipway-e2e-"));
		this.root = join(this.dir, "state");
	}

	/** A directory with these files; a text that begins with `#!` is executable. */
	context(files: Readonly<Record<string, string | Uint8Array>>): string {
		const dir = join(this.dir, `context${this.#contexts++}`);
		mkdirSync(dir);
		for (const [name, content] of Object.entries(files)) {
			const path = join(dir, name);
			mkdirSync(dirname(path), { recursive: true });
			writeFileSync(path, content);
			if (typeof content === "string" && content.startsWith("#!")) {
				chmodSync(path, 0o755);
			}
		}
		return dir;
	}

	path(name: string): string {
		return join(this.dir, name);
	}

	start(args: readonly string[], options: ProgramOptions = {}): RunningProgram {
		const child = spawn(program, ["build", "--root", this.root, "--progress", "plain", ...args], {
			cwd: options.cwd ?? this.dir,
			env: {
				PATH: process.env["PATH"] ?? "",
				HOME: this.dir,
				...(this.#background ? {} : { SLIPWAY_IN_PROCESS: "1" }),
				...options.env,
			},
			stdio: ["pipe", "pipe", "pipe"],
		});
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
		child.stdin?.on("error", () => {});
		child.stdin?.end(options.input);
		const finished = new Promise<Finished>((done, failed) => {
			child.on("error", failed);
			child.on("close", (code, signal) => done({ code, signal, stdout: Buffer.concat(stdout), stderr }));
		});
		return {
			child,
			finished,
			sees: (text) =>
				new Promise((seen, failed) => {
					const watch = (): void => {
						if (typeof text === "string" ? stderr.includes(text) : text.test(stderr)) {
							watchers.delete(watch);
							seen();
						}
					};
					watchers.add(watch);
					watch();
					void finished.then(() => failed(new Error(`never saw ${text} in:\n${stderr}`)));
				}),
		};
	}

	run(args: readonly string[], options: ProgramOptions = {}): Promise<Finished> {
		return this.start(args, options).finished;
	}

	/** Like `run`, but failing is an error that shows what was printed. */
	async build(args: readonly string[], options: ProgramOptions = {}): Promise<Finished> {
		const result = await this.run(args, options);
		if (result.code !== 0) {
			throw new Error(
				`slipway build ${args.join(" ")} ended with ${result.code ?? result.signal}:\n${result.stderr}`,
			);
		}
		return result;
	}

	/** Ends the background builder. */
	stop(): void {
		spawnSync(program, ["stop", "--root", this.root], { stdio: "ignore", timeout: 20_000 });
	}

	[Symbol.dispose](): void {
		if (this.#background) {
			this.stop();
		}
		rmSync(this.dir, { recursive: true, force: true });
	}
}
