import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { debianLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/** RUN on Debian, with its package mirror and a real sshd: needs a network. */
const bench = new Workbench();
const base = ["--build-context", `debian=oci-layout://${debianLayout}:bookworm`];
const ssh = bench.path("ssh");
let port = 0;
let sshd: ChildProcess;

before(async () => {
	mkdirSync(ssh, { mode: 0o700 });
	const key = (name: string, type: string, phrase = ""): void => {
		tool("ssh-keygen", ["-q", "-t", type, "-N", phrase, "-C", name, "-f", join(ssh, name)]);
	};
	key("host", "ed25519");
	key("ed", "ed25519");
	key("rsa", "rsa");
	key("ec", "ecdsa");
	key("locked", "ed25519", "a pass phrase");
	const authorized = ["ed", "rsa", "ec", "locked"].map((name) => {
		const text = readFileSync(join(ssh, `${name}.pub`), "utf8").trim();
		return `command="echo welcome ${name}" ${text}\n`;
	});
	writeFileSync(join(ssh, "authorized_keys"), authorized.join(""), { mode: 0o600 });
	port = await freePort();
	const config = [
		`Port ${port}`,
		"ListenAddress 127.0.0.1",
		`HostKey ${join(ssh, "host")}`,
		`AuthorizedKeysFile ${join(ssh, "authorized_keys")}`,
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"PasswordAuthentication no",
		"PermitRootLogin yes",
	];
	writeFileSync(join(ssh, "config"), `${config.join("\n")}\n`);
	mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
	sshd = spawn("/usr/sbin/sshd", ["-D", "-e", "-f", join(ssh, "config")], {
		stdio: ["ignore", "ignore", "pipe"],
	});
	let said = "";
	for await (const chunk of sshd.stderr ?? []) {
		said += String(chunk);
		if (said.includes("listening")) {
			break;
		}
	}
});

after(() => {
	sshd.kill("SIGKILL");
	bench[Symbol.dispose]();
});

async function freePort(): Promise<number> {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port: free } = server.address() as AddressInfo;
	server.close();
	return free;
}

function printed(stderr: string): readonly string[] {
	return stderr.split("\n").flatMap((line) => /^#\d+ \d+\.\d+ (.*)$/.exec(line)?.[1] ?? []);
}

const caches =
	"--mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked";
/** The first step has the packages that the others use. */
const tools = `FROM debian AS tools
RUN ${caches} rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update && apt-get install -y --no-install-recommends openssh-client
`;

test("apt through a network of the step's own; a second install finds its packages in the cache mount", async () => {
	const cold = await bench.build([...base, bench.context({ Dockerfile: tools })]);
	assert.match(cold.stderr, /Get:\d+ http.* openssh-client/);
	const again = `FROM debian\nRUN ${caches} rm -f /etc/apt/apt.conf.d/docker-clean && apt-get install -y --no-install-recommends openssh-client && dpkg -s openssh-client | grep Status\n`;
	const warm = await bench.build([...base, bench.context({ Dockerfile: again })]);
	assert.match(warm.stderr, /Need to get 0 B\//);
	assert.match(warm.stderr, /Status: install ok installed/);
});

test("ssh: agents and keys under several ids, with owner and mode; what is optional may be missing", async () => {
	const agentSocket = join(ssh, "agent");
	const agent = spawn("ssh-agent", ["-D", "-a", agentSocket], { stdio: ["ignore", "pipe", "ignore"] });
	try {
		await once(agent.stdout, "data");
		tool("ssh-add", ["-q", join(ssh, "rsa")], { env: { SSH_AUTH_SOCK: agentSocket } });
		const connect = `ssh -o StrictHostKeyChecking=no -o BatchMode=yes -p ${port} root@127.0.0.1`;
		const context = bench.context({
			Dockerfile: `${tools}
RUN --network=host --mount=type=ssh ${connect} | grep welcome
RUN --network=host --mount=type=ssh,id=github ${connect} | grep welcome; ssh-add -L | wc -l; ls -ln $SSH_AUTH_SOCK | cut -c1-10
RUN --network=host --mount=type=ssh,id=other,target=/run/x/agent,mode=0666,uid=7,gid=8 ls -ln /run/x/agent | awk '{print $1, $3, $4}'; echo $SSH_AUTH_SOCK; ${connect} | grep welcome
RUN --mount=type=ssh,id=none [ -z "$(ls /run/buildkit 2>/dev/null)" ] && echo optional
RUN --mount=type=ssh ! ssh-add -D 2>/dev/null && ssh-add -L | wc -l
`,
		});
		const { stderr } = await bench.build(
			[
				...base,
				...["--allow", "network.host", "--ssh", "default", "--ssh", `other=${join(ssh, "ec")}`],
				...["--ssh", `github=${join(ssh, "ed")},${join(ssh, "rsa")}`, context],
			],
			{ env: { SSH_AUTH_SOCK: agentSocket } },
		);
		const lines = printed(stderr).filter((line) => /^(?:welcome|\d+$|s[r-][w-]|\/run|optional)/.test(line));
		assert.deepEqual(lines, [
			"welcome rsa",
			"welcome ed",
			"2",
			"srw-------",
			"srw-rw-rw- 7 8",
			"/run/x/agent",
			"welcome ec",
			"optional",
			"1",
		]);
	} finally {
		agent.kill("SIGKILL");
	}
});

test("ssh: a key with a passphrase asks for an agent; a required agent that is missing is the line's error", async () => {
	const context = bench.context({ Dockerfile: `${tools}RUN --mount=type=ssh,required=true true\n` });
	const locked = await bench.run([...base, "--ssh", `default=${join(ssh, "locked")}`, context]);
	assert.equal(locked.code, 1);
	assert.match(
		locked.stderr,
		/ERROR: .*locked: this private key is passphrase protected: add it to an agent with ssh-add/,
	);
	const missing = await bench.run([...base, context]);
	assert.equal(missing.code, 1);
	assert.match(missing.stderr, /ERROR: .*no SSH key "default" forwarded from the client/);
	assert.match(missing.stderr, /3 \| >>> RUN --mount=type=ssh,required=true true/);
});
