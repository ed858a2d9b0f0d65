import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createConnection, createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { dirname } from "node:path";
import { startServer } from "./source-fixture.ts";

/** Repositories in a new folder, for tests. */
export interface Repositories extends AsyncDisposable {
	readonly folder: string;
	/** Makes `<name>.git` and returns it. */
	create(name: string, flags?: readonly string[]): Repository;
	/** Serves them by git's own http-backend. */
	serve(options?: ServeOptions): Promise<GitServer>;
	/** Serves them by sshd with a key of its own, which an agent holds. */
	serveSsh(): Promise<SshServer>;
}

export interface ServeOptions {
	/** Only to who shows it. */
	readonly token?: string;
	/** Without version 2 of the protocol: objects are given only by the names that point to them. */
	readonly old?: boolean;
	/** As plain files. */
	readonly dumb?: boolean;
	/** Answers by itself where it returns true. */
	readonly intercept?: (request: IncomingMessage, response: ServerResponse) => boolean;
}

export interface Repository {
	readonly path: string;
	git(...args: readonly string[]): string;
	/** Commits these files (`->x` is a link, a leading `#!` executable, `submodule:` a commit elsewhere) and returns the commit. */
	commit(files: Readonly<Record<string, string>>, branch?: string): string;
}

export interface GitServer extends AsyncDisposable {
	readonly url: string;
	/** What was asked since the last call, without the bodies. */
	requests(): readonly string[];
}

export interface SshServer {
	/** `ssh://…:port/folder`. */
	readonly url: string;
	readonly knownHosts: string;
	/** An agent with the key that the server takes, and one without. */
	readonly agent: string;
	readonly emptyAgent: string;
}

export const commitDate = "2020-02-02T02:02:02Z";

const env = {
	PATH: process.env["PATH"] ?? "",
	HOME: "/nonexistent",
	GIT_CONFIG_NOSYSTEM: "1",
	GIT_CONFIG_GLOBAL: "/dev/null",
	GIT_AUTHOR_NAME: "a",
	GIT_AUTHOR_EMAIL: "a@example.com",
	GIT_COMMITTER_NAME: "a",
	GIT_COMMITTER_EMAIL: "a@example.com",
	GIT_AUTHOR_DATE: commitDate,
	GIT_COMMITTER_DATE: commitDate,
};

export function openRepositories(): Repositories {
	const stack = new AsyncDisposableStack();
	const folder = mkdtempSync(`${tmpdir()}/slipway-git-test-`);
	stack.defer(() => rmSync(folder, { recursive: true, force: true }));
	return {
		folder,
		create: (name, flags = []) => createRepository(`${folder}/${name}`, flags),
		serve: async (options = {}) => {
			const server = await serveHttp(folder, options);
			stack.use(server);
			return server;
		},
		serveSsh: () => serveSsh(folder, stack),
		[Symbol.asyncDispose]: () => stack.disposeAsync(),
	};
}

function createRepository(base: string, flags: readonly string[]): Repository {
	const path = `${base}.git`;
	const run = (cwd: string, args: readonly string[], input?: string): string =>
		execFileSync("git", ["-c", "core.symlinks=true", ...args], {
			cwd,
			env,
			stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
			...(input === undefined ? {} : { input }),
		}).toString();
	run(dirname(base), ["init", "--quiet", "--bare", "--initial-branch=main", ...flags, path]);
	run(path, ["config", "http.receivepack", "false"]);
	return {
		path,
		git: (...args) => run(path, args).trim(),
		commit(files, branch = "main") {
			const ref = `refs/heads/${branch}`;
			const known =
				spawnSync("git", ["show-ref", "--verify", "--quiet", ref], { cwd: path, env }).status === 0;
			const who = `a <a@example.com> ${Date.parse(commitDate) / 1000} +0000`;
			const changes = Object.entries(files).map(([name, text]) => {
				const module = /^submodule:([0-9a-f]+)$/.exec(text)?.[1];
				if (module !== undefined) {
					return `M 160000 ${module} ${name}\n`;
				}
				const link = text.startsWith("->");
				const data = link ? text.slice(2) : text;
				const mode = link ? "120000" : text.startsWith("#!") ? "100755" : "100644";
				return `M ${mode} inline ${name}\ndata ${Buffer.byteLength(data)}\n${data}\n`;
			});
			const from = known ? `from ${ref}^0\n` : "";
			run(
				path,
				["fast-import", "--quiet", "--force"],
				`commit ${ref}\nauthor ${who}\ncommitter ${who}\ndata 1\nm\n${from}${changes.join("")}\n`,
			);
			return run(path, ["rev-parse", ref]).trim();
		},
	};
}

async function serveHttp(folder: string, options: ServeOptions): Promise<GitServer> {
	// git's own is "Basic", the one of tokens "basic".
	const expected = `basic ${Buffer.from(`x-access-token:${options.token}`).toString("base64")}`;
	let seen: string[] = [];
	const server = await startServer((request, response) => {
		seen.push(`${request.method} ${request.url} ${request.headers.authorization ?? "-"}`);
		if (options.intercept?.(request, response) === true) {
			return;
		}
		if (options.token !== undefined && request.headers.authorization?.replace(/^B/, "b") !== expected) {
			response.writeHead(401, { "WWW-Authenticate": 'Basic realm="x"' }).end();
		} else {
			runBackend(folder, request, response, options);
		}
	});
	return {
		url: server.url,
		requests: () => seen.splice(0),
		[Symbol.asyncDispose]: () => {
			seen = [];
			return server[Symbol.asyncDispose]();
		},
	};
}

function runBackend(
	folder: string,
	request: IncomingMessage,
	response: ServerResponse,
	{ old = false, dumb = false }: ServeOptions,
): void {
	const [path = "", query = ""] = (request.url ?? "").split("?");
	const child = spawn("git", ["http-backend"], {
		env: {
			...env,
			GIT_PROJECT_ROOT: folder,
			GIT_HTTP_EXPORT_ALL: "1",
			REQUEST_METHOD: request.method ?? "",
			PATH_INFO: decodeURIComponent(path),
			QUERY_STRING: dumb ? "" : query,
			CONTENT_TYPE: request.headers["content-type"] ?? "",
			GIT_PROTOCOL: old ? "" : String(request.headers["git-protocol"] ?? ""),
			HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "",
			REMOTE_ADDR: "127.0.0.1",
		},
		stdio: ["pipe", "pipe", "ignore"],
	});
	request.pipe(child.stdin);
	child.stdin.on("error", () => {});
	let head: Buffer | undefined = Buffer.alloc(0);
	child.stdout.on("data", (chunk: Buffer) => {
		if (head === undefined) {
			response.write(chunk);
			return;
		}
		head = Buffer.concat([head, chunk]);
		const end = head.indexOf("\r\n\r\n");
		if (end !== -1) {
			for (const line of head.subarray(0, end).toString().split("\r\n")) {
				const colon = line.indexOf(":");
				const name = line.slice(0, colon);
				const value = line.slice(colon + 1).trim();
				if (name === "Status") {
					response.statusCode = Number(value.slice(0, 3));
				} else {
					response.setHeader(name, value);
				}
			}
			response.write(head.subarray(end + 4));
			head = undefined;
		}
	});
	child.stdout.on("end", () => response.end());
}

async function serveSsh(folder: string, stack: AsyncDisposableStack): Promise<SshServer> {
	const home = `${folder}/ssh`;
	mkdirSync(home, { mode: 0o700 });
	// Without it sshd does not start where no service has ever made it.
	mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
	for (const name of ["host", "user"]) {
		execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", `${home}/${name}`]);
	}
	const publicKey = (name: string): string => readFileSync(`${home}/${name}.pub`, "utf8").trim();
	writeFileSync(`${home}/authorized_keys`, `${publicKey("user")}\n`, { mode: 0o600 });
	const port = await freePort();
	writeFileSync(
		`${home}/sshd_config`,
		[
			`Port ${port}`,
			"ListenAddress 127.0.0.1",
			`HostKey ${home}/host`,
			`AuthorizedKeysFile ${home}/authorized_keys`,
			"PasswordAuthentication no",
			"KbdInteractiveAuthentication no",
			"UsePAM no",
			"StrictModes no",
			`PidFile ${home}/pid`,
			"PermitRootLogin yes",
			"",
		].join("\n"),
	);
	const start = (program: string, args: readonly string[]): ChildProcess => {
		const child = spawn(program, args, { stdio: "ignore" });
		stack.defer(async () => {
			const ended = new Promise((resolve) => child.once("exit", resolve));
			if (child.exitCode === null && child.kill()) {
				await ended;
			}
		});
		return child;
	};
	start("/usr/sbin/sshd", ["-D", "-f", `${home}/sshd_config`]);
	const agent = `${home}/agent`;
	const emptyAgent = `${home}/empty-agent`;
	start("ssh-agent", ["-D", "-a", agent]);
	start("ssh-agent", ["-D", "-a", emptyAgent]);
	await untilListening({ path: agent });
	await untilListening({ path: emptyAgent });
	await untilListening({ port, host: "127.0.0.1" });
	chmodSync(`${home}/user`, 0o600);
	execFileSync("ssh-add", ["-q", `${home}/user`], { env: { ...env, SSH_AUTH_SOCK: agent } });
	rmSync(`${home}/user`);
	return {
		url: `ssh://${userInfo().username}@127.0.0.1:${port}${folder}`,
		knownHosts: `[127.0.0.1]:${port} ${publicKey("host")}\n`,
		agent,
		emptyAgent,
	};
}

async function freePort(): Promise<number> {
	const server = createServer();
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	const address = server.address();
	await new Promise((resolve) => server.close(resolve));
	assert.ok(typeof address === "object" && address !== null);
	return address.port;
}

async function untilListening(where: { path: string } | { port: number; host: string }): Promise<void> {
	for (let attempt = 0; ; attempt++) {
		const error = await new Promise<Error | undefined>((resolve) => {
			const socket = createConnection(where);
			socket.once("connect", () => {
				socket.destroy();
				resolve(undefined);
			});
			socket.once("error", resolve);
		});
		if (error === undefined) {
			return;
		}
		if (attempt > 200) {
			throw error;
		}
		await new Promise((resolve) => setTimeout(resolve, 25));
	}
}
