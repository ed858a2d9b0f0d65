import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";
import type { GitTree } from "./git-attrs.ts";
import { createGit, type Git } from "./git-command.ts";
import { findHeaderSecret } from "./session-secrets.ts";
import type { SourceOptions } from "./source.ts";

export interface GitAccessOptions {
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly timeoutMs: number;
}

/** Git with what the client lends for this remote: a login for http, an agent and known hosts for ssh. */
export async function openGit(
	tree: GitTree,
	sessions: readonly Session[],
	options: GitAccessOptions & SourceOptions,
): Promise<Git & AsyncDisposable> {
	await using stack = new AsyncDisposableStack();
	const { signal } = options;
	const header = await findHeader(tree, sessions, signal);
	const agent = tree.mountSshSock === "" ? undefined : await openAgent(tree, sessions, signal);
	if (agent !== undefined) {
		stack.use(agent);
	}
	let knownHosts: string | undefined;
	if (tree.knownSshHosts !== "") {
		const folder = mkdtempSync(`${tmpdir()}/slipway-git-`);
		stack.defer(() => rmSync(folder, { recursive: true, force: true }));
		knownHosts = `${folder}/known_hosts`;
		writeFileSync(knownHosts, tree.knownSshHosts, { mode: 0o600 });
	}
	const git = createGit({
		...options,
		remote: tree.remote,
		config:
			header === undefined
				? []
				: [[`http.${headerScope(tree.remote)}.extraheader`, `Authorization: ${header}`]],
		sshCommand: sshCommand(knownHosts),
		sshAuthSock: agent?.socketPath,
	});
	const owned = stack.move();
	return { run: git.run, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The secrets of the host go before those for all; at each the whole header before the token. */
async function findHeader(
	tree: GitTree,
	sessions: readonly Session[],
	signal: AbortSignal,
): Promise<string | undefined> {
	const { authHeaderSecret, authTokenSecret, remote } = tree;
	if (!/^https?:\/\//i.test(remote)) {
		return undefined;
	}
	const host = /^https?:\/\/(?:[^/?#]*@)?([^/?#@]*)/i.exec(remote)?.[1] ?? "";
	for (const suffix of [`.${host}`, ""]) {
		if (authHeaderSecret !== "") {
			const header = await findHeaderSecret(sessions, authHeaderSecret + suffix, { signal });
			if (header !== undefined) {
				return header;
			}
		}
		if (authTokenSecret !== "") {
			const token = await findHeaderSecret(sessions, authTokenSecret + suffix, { signal });
			if (token !== undefined) {
				return `basic ${Buffer.from(`x-access-token:${token}`).toString("base64")}`;
			}
		}
	}
	return undefined;
}

/** The login is for this repository alone; on GitHub, as its own checkout action does, for all, so that submodules work. */
function headerScope(remote: string): string {
	return ["https://github.com/", "https://www.github.com/"].find((all) => remote.startsWith(all)) ?? remote;
}

async function openAgent(
	{ mountSshSock: id }: GitTree,
	sessions: readonly Session[],
	signal: AbortSignal,
): Promise<AsyncDisposable & { readonly socketPath: string }> {
	const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, mode: 0o700 };
	for (const session of sessions) {
		try {
			const agent = await session.ssh.agent(id, { ...owner, signal });
			if (agent !== undefined) {
				return agent;
			}
		} catch (thrown) {
			if (!hasCode(thrown, "not-found") && !hasCode(thrown, "unimplemented")) {
				throw thrown;
			}
		}
	}
	throw new SlipwayError("not-found", `no SSH key ${JSON.stringify(id)} forwarded from the client`);
}

/** The builder's own keys and known hosts are not the client's to use. */
function sshCommand(knownHosts: string | undefined): string {
	const hosts =
		knownHosts === undefined
			? ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
			: [`UserKnownHostsFile="${knownHosts}"`];
	const options = [
		...hosts,
		"IdentityFile=none",
		"BatchMode=yes",
		"ConnectTimeout=30",
		"ServerAliveInterval=30",
		"ServerAliveCountMax=4",
		"LogLevel=ERROR",
	];
	return ["ssh -F /dev/null", ...options.map((option) => `-o '${option.replaceAll("'", "'\\''")}'`)].join(
		" ",
	);
}
