import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { after, test } from "node:test";
import { busyboxBase, projectRoot, Workbench } from "./support/slipway.ts";

const bench = new Workbench({ background: true });
after(() => bench[Symbol.dispose]());

const program = `${projectRoot}/bin/slipway`;
const context = bench.context({
	Dockerfile:
		"FROM base\nENV COLOR=blue\nWORKDIR /work\nRUN echo kept > f\nUSER 33\nUSER 0\nRUN --mount=type=tmpfs,target=/t echo new > g; rm f; exit 7\n",
});
const { SLIPWAY_IN_PROCESS: _, ...ownEnv } = process.env;
const env = { ...ownEnv, HOME: bench.dir };
const args = ["debug", "build", "--root", bench.root, "--progress", "plain", ...busyboxBase];

function debug(input: string, extra: readonly string[] = []): ReturnType<typeof spawnSync> {
	return spawnSync(program, [...args, ...extra, context], { input, encoding: "utf8", env, timeout: 60_000 });
}

test("debug build opens a shell with what the step left, what was before, and its environment", () => {
	const run = debug(
		'ls; echo before; ls /slipway-before/work; echo $COLOR; pwd; grep -c " /t " /proc/mounts; echo "$SLIPWAY_COMMAND"\n',
	);
	assert.equal(
		run.stdout,
		"g\nbefore\nf\nblue\n/work\n1\n/bin/sh -c 'echo new > g; rm f; exit 7'\n",
		String(run.stderr),
	);
	assert.equal(run.status, 1, "the build has failed nevertheless");
	assert.match(String(run.stderr), /exit code: 7\n$/);
	assert.match(
		String(run.stderr),
		/with the files as the step left them; those from before are in \/slipway-before\./,
	);
});

test("debug build shows the state before the step, and what is done there changes nothing", () => {
	const run = debug("ls; ls /slipway-after/work; echo x > f; sh -c 'echo $0'\n", ["--state", "before"]);
	assert.equal(run.stdout, "f\ng\nsh\n", String(run.stderr));
	const again = debug("cat f\n", ["--state=before"]);
	assert.equal(again.stdout, "kept\n");
	const wrong = debug("", ["--state", "now"]);
	assert.equal(wrong.status, 1);
	assert.match(String(wrong.stderr), /invalid --state "now": use after or before/);
});

test("debug build of what does not fail, or fails outside of a process, is a build", () => {
	const good = bench.context({ Dockerfile: "FROM base\nRUN true\n" });
	const run = spawnSync(program, [...args, good], { input: "echo never\n", encoding: "utf8", env });
	assert.equal(run.status, 0);
	assert.equal(run.stdout, "");
	const copy = bench.context({ Dockerfile: "FROM base\nCOPY nothing /\n" });
	const failed = spawnSync(program, [...args, copy], { input: "echo never\n", encoding: "utf8", env });
	assert.equal(failed.status, 1);
	assert.equal(failed.stdout, "");
});

test("the shell has the person's terminal, with its size, through the background builder", async () => {
	const command = `stty rows 33 cols 111; ${program} ${args.join(" ")} ${context}; echo ended $?; stty -a | grep -o -- '-\\?icanon'`;
	const child = spawn("script", ["-qec", command, "/dev/null"], { env, stdio: ["pipe", "pipe", "inherit"] });
	let seen = "";
	let asked = false;
	child.stdout.on("data", (chunk: Buffer) => {
		seen += chunk.toString();
		if (!asked && /# \S*$/.test(seen)) {
			asked = true;
			child.stdin.write('tty && stty size && echo "color $COLOR" && exit\r');
		}
	});
	const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
	await new Promise((done) => child.once("close", done));
	clearTimeout(timer);
	assert.match(seen, /\/dev\/pts\/\d+\r*\n33 111\r*\ncolor blue/);
	assert.match(seen, /ended 1\r*\nicanon/, "the terminal is as it was");
});
