import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { after, test } from "node:test";
import { busyboxBase, projectRoot, Workbench } from "./support/slipway.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

function printed(stderr: string): readonly string[] {
	return stderr.split("\n").flatMap((line) => /^#\d+ \d+\.\d+ (.*)$/.exec(line)?.[1] ?? []);
}

async function run(line: string, ...args: readonly string[]): Promise<readonly string[]> {
	const context = bench.context({ Dockerfile: `FROM base\n${line}\n` });
	return printed((await bench.build([...busyboxBase, ...args, context])).stderr);
}

/** A server of this machine that only its loopback reaches. */
async function withLoopbackServer<T>(work: (port: number) => Promise<T>): Promise<T> {
	const script = `require("node:net").createServer((s) => s.end("hello\\n")).listen(0, "127.0.0.1", function () { console.log(this.address().port) })`;
	const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
	try {
		const [chunk] = (await once(child.stdout, "data")) as [Buffer];
		return await work(Number(chunk.toString()));
	} finally {
		child.kill("SIGKILL");
	}
}

test("default: a network of its own with an address, a way out, and name servers that it can reach", async () => {
	await withLoopbackServer(async (port) => {
		const lines = await run(
			`RUN ip -o link | awk '{print $2}'; ip route | head -n 1; cat /etc/resolv.conf; nc -w 2 127.0.0.1 ${port} && echo reached || true`,
		);
		assert.deepEqual(lines.slice(0, 2), ["lo:", "eth0@if".concat(/\d+:$/.exec(lines[1] ?? "")?.[0] ?? "?")]);
		assert.match(lines[2] ?? "", /^default via 10\.\d+\.\d+\.1 dev eth0/);
		const servers = lines.filter((line) => line.startsWith("nameserver"));
		assert.ok(servers.length > 0);
		assert.ok(servers.every((line) => !/ (?:127\.|::1)/.test(line)));
		assert.ok(!lines.includes("hello") && !lines.includes("reached"), "the machine's loopback");
	});
});

test("none: a loopback of its own, and nothing else", async () => {
	const command =
		"ip -o link | awk '{print $2}'; ip route; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo alive";
	assert.deepEqual(await run(`RUN --network=none ${command}`), ["lo:", "alive"]);
	assert.deepEqual(await run(`RUN ${command} # by the build`, "--network", "none"), ["lo:", "alive"]);
});

test("host: only when it is allowed; it is the machine's own", async () => {
	await withLoopbackServer(async (port) => {
		const line = `RUN --network=host nc -w 5 127.0.0.1 ${port}`;
		const context = bench.context({ Dockerfile: `FROM base\n${line}\n` });
		const refused = await bench.run([...busyboxBase, context]);
		assert.equal(refused.code, 1);
		assert.match(refused.stderr, /ERROR: .*network\.host is not allowed/);
		assert.match(refused.stderr, /2 \| >>> RUN --network=host/);
		assert.deepEqual(await run(line, "--allow", "network.host"), ["hello"]);
		assert.deepEqual(await run(`RUN nc -w 5 127.0.0.1 ${port} # of the build`, "--network", "host"), [
			"hello",
		]);
	});
	const wrong = await bench.run([
		...busyboxBase,
		"--network",
		"mynet",
		bench.context({ Dockerfile: "FROM base\n" }),
	]);
	assert.match(wrong.stderr, /network mode "mynet" (?:is )?not supported/);
});

test("--add-host adds names, --debug says which network it was", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN cat /etc/hosts\n" });
	const args = ["--add-host", "db:10.1.2.3", "--add-host", "six=[fd00::1]", "--debug"];
	const { stderr } = await bench.build([...busyboxBase, ...args, context]);
	assert.deepEqual(printed(stderr), [
		"127.0.0.1	localhost buildkitsandbox",
		"::1	localhost ip6-localhost ip6-loopback",
		"10.1.2.3	db",
		"fd00::1	six",
	]);
	assert.match(stderr, /^DEBUG: network of steps: bridge$/m);
});

test("nothing of a network stays on the machine, also when the builder was killed and another one has run", () => {
	const [quick, slow] = ["true after the kill", "echo started; sleep 300"].map((command) =>
		bench.context({ Dockerfile: `FROM base\nRUN ${command}\n` }),
	);
	const build = [
		`${projectRoot}/bin/slipway`,
		"build",
		"--root",
		bench.root,
		"--progress",
		"plain",
		...busyboxBase,
	];
	// On a machine of its own, since other builders run on this one.
	const script = `set -e
		ip link set lo up; ip link add out type veth peer name far; ip addr add 192.0.2.9/24 dev out
		ip link set far up; ip link set out up; ip route add default via 192.0.2.1
		state() { ip -o link | cut -d: -f2 | sort; ip route; iptables-nft -S; iptables-nft -t nat -S; cat /proc/sys/net/ipv4/conf/out/forwarding; }
		state > before
		${build.join(" ")} --debug ${quick} 2> log; grep -q 'network of steps: bridge' log
		state > after; cmp before after
		${build.join(" ")} ${slow} 2> log & pid=$!
		until grep -q '^#[0-9]* [0-9.]* started' log; do sleep 0.05; done
		ip -o link | grep -q ': sw'
		kill -9 $pid; wait $pid || true
		${build.join(" ")} --no-cache ${quick} 2>/dev/null
		for i in $(seq 100); do state > after; cmp -s before after && break; sleep 0.05; done
		diff before after`;
	const result = spawnSync("unshare", ["--net", "sh", "-c", script], {
		cwd: bench.dir,
		encoding: "utf8",
		timeout: 120_000,
		env: { ...process.env, SLIPWAY_IN_PROCESS: "1", HOME: bench.dir },
	});
	assert.equal(result.status, 0, `${result.stdout}${result.stderr}`);
});

test("steps at once have networks of their own", async () => {
	const context = bench.context({
		Dockerfile: `FROM base AS one
RUN --mount=type=cache,target=/c,id=net ip -o -4 addr show eth0 | awk '{print $4}' > /c/one; i=0; until [ -e /c/two ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ] || exit 9; done
FROM base
RUN --mount=type=cache,target=/c,id=net ip -o -4 addr show eth0 | awk '{print $4}' > /c/two; i=0; until [ -e /c/one ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ] || exit 9; done; cat /c/one /c/two
COPY --from=one /etc/passwd /one
`,
	});
	const [one, two] = printed((await bench.build([...busyboxBase, context])).stderr);
	assert.match(one ?? "", /^10\./);
	assert.notEqual(one, two);
});
