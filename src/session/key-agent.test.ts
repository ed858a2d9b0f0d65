import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { answerAgentRequest, readAgentKey } from "./key-agent.ts";
import { createSshAgents } from "./ssh-agent.ts";

let dir = "";

before(() => {
	dir = mkdtempSync(join(tmpdir(), "slipway-keys-"));
});

after(() => rmSync(dir, { recursive: true, force: true }));

/** ssh's own tools judge what we make. Without waiting for it: the agent is in this process. */
async function tool(
	program: string,
	args: readonly string[],
	options: { readonly socket?: string; readonly input?: string } = {},
): Promise<{ readonly status: number | null; readonly output: string }> {
	const { spawn } = await import("node:child_process");
	const child = spawn(program, args, {
		env: { ...process.env, SSH_AUTH_SOCK: options.socket ?? "" },
		stdio: ["pipe", "pipe", "pipe"],
	});
	let output = "";
	child.stdout.on("data", (chunk: Buffer) => {
		output += chunk.toString();
	});
	child.stderr.on("data", (chunk: Buffer) => {
		output += chunk.toString();
	});
	child.stdin.end(options.input ?? "");
	return await new Promise((resolve) => child.on("close", (status) => resolve({ status, output })));
}

function makeKey(name: string, args: readonly string[]): string {
	const path = join(dir, name);
	const run = spawnSync("ssh-keygen", ["-q", "-N", "", "-C", name, "-f", path, ...args], {
		encoding: "utf8",
	});
	assert.equal(run.status, 0, run.stderr);
	return path;
}

const kinds: Readonly<Record<string, readonly string[]>> = {
	ed25519: ["-t", "ed25519"],
	rsa: ["-t", "rsa", "-b", "2048"],
	"rsa-pem": ["-t", "rsa", "-b", "2048", "-m", "PEM"],
	"rsa-pkcs8": ["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
	"ecdsa-256": ["-t", "ecdsa", "-b", "256"],
	"ecdsa-384": ["-t", "ecdsa", "-b", "384"],
	"ecdsa-521": ["-t", "ecdsa", "-b", "521"],
	"ecdsa-pem": ["-t", "ecdsa", "-b", "256", "-m", "PEM"],
};

for (const [name, args] of Object.entries(kinds)) {
	test(`a ${name} key is listed, and ssh-keygen accepts what it signed`, async () => {
		const path = makeKey(name, args);
		const ssh = createSshAgents([`default=${path}`], { env: {} });
		const signal = new AbortController().signal;
		await using agent = await ssh.agent("default", { uid: 0, gid: 0, mode: 0o600, signal });
		assert.ok(agent !== undefined);
		const socket = agent.socketPath;
		const published = readFileSync(`${path}.pub`, "utf8").split(" ").slice(0, 2).join(" ");
		assert.ok((await tool("ssh-add", ["-L"], { socket })).output.startsWith(published));
		const file = join(dir, `${name}.txt`);
		writeFileSync(file, "signed\n");
		// With the public key only: ssh-keygen has to ask the agent.
		rmSync(path);
		const signed = await tool("ssh-keygen", ["-Y", "sign", "-f", `${path}.pub`, "-n", "test", file], {
			socket,
		});
		assert.equal(signed.status, 0, signed.output);
		const signers = join(dir, `${name}.signers`);
		writeFileSync(signers, `me ${published}\n`);
		const verify = ["-Y", "verify", "-f", signers, "-I", "me", "-n", "test", "-s", `${file}.sig`];
		const verified = await tool("ssh-keygen", verify, { input: "signed\n" });
		assert.equal(verified.status, 0, verified.output);
		assert.notEqual((await tool("ssh-add", ["-D"], { socket })).status, 0, "nothing may be removed");
	});
}

test("readAgentKey: a passphrase needs an agent", () => {
	for (const [name, format] of [
		["locked", []],
		["locked-pem", ["-m", "PEM"]],
		["locked-pkcs8", ["-m", "PKCS8"]],
	] as const) {
		const path = join(dir, name);
		const args = ["-q", "-t", "rsa", "-b", "2048", "-N", "a secret", "-f", path, ...format];
		assert.equal(spawnSync("ssh-keygen", args).status, 0);
		assert.throws(() => readAgentKey(path), {
			code: "failed-precondition",
			message: /locked.*passphrase protected: add it to an agent with ssh-add/,
		});
	}
});

test("readAgentKey: what is no key is told so, whatever it holds", () => {
	const broken: Readonly<Record<string, string>> = {
		empty: "",
		text: "hello",
		pem: "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
		short: "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n",
		magic: "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
	};
	for (const [name, text] of Object.entries(broken)) {
		const path = join(dir, `broken-${name}`);
		writeFileSync(path, text);
		assert.throws(() => readAgentKey(path), {
			code: "invalid-argument",
			message: /failed to parse .*broken-/,
		});
	}
	assert.throws(() => readAgentKey(join(dir, "nowhere")), { code: "not-found" });
});

test("answerAgentRequest: malformed and foreign requests fail", () => {
	const failure = [0, 0, 0, 1, 5];
	for (const request of [
		[0, 0, 0, 1, 13],
		[0, 0, 0, 5, 13, 255, 255, 255, 255],
		[0, 0, 0, 1, 19],
		[0, 0, 0, 1, 27],
	]) {
		assert.deepEqual([...answerAgentRequest([], Uint8Array.from(request))], failure);
	}
	assert.deepEqual([...answerAgentRequest([], Uint8Array.of(0, 0, 0, 1, 11))], [0, 0, 0, 5, 12, 0, 0, 0, 0]);
});
