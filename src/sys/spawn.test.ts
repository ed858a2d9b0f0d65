import assert from "node:assert/strict";
import { spawn as nodeSpawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { spawn } from "./spawn.ts";
import type { ExitStatus, SpawnOptions } from "./sys.ts";
import { getTerminalSize, openTerminal } from "./terminal.ts";

const env = { PATH: "/usr/bin:/bin" };

async function run(
	argv: SpawnOptions["argv"],
	options: Partial<SpawnOptions> = {},
): Promise<{ readonly output: string; readonly errors: string; readonly status: ExitStatus }> {
	const child = spawn({ argv, env, ...options });
	const [output, errors, status] = await Promise.all([
		child.stdout === undefined ? "" : text(child.stdout),
		child.stderr === undefined ? "" : text(child.stderr),
		child.exited,
	]);
	return { output, errors, status };
}

test("a child gets arguments, environment and folder, and its output and status come back", async () => {
	const result = await run(
		["sh", "-c", 'printf "%s|%s|" "$1" "$A"; pwd; echo oops >&2; exit 3', "sh", "a b"],
		{
			env: { ...env, A: "ü=1" },
			cwd: "/usr",
		},
	);
	assert.deepEqual(result, { output: "a b|ü=1|/usr\n", errors: "oops\n", status: { code: 3 } });
});

test("input is written to the child and ends", async () => {
	const child = spawn({ argv: ["cat"], env, stdin: "pipe" });
	const data = "x".repeat(1 << 20);
	child.stdin?.end(data);
	assert.equal(child.stdout && (await text(child.stdout)), data);
	assert.deepEqual(await child.exited, { code: 0 });
});

test("a program that cannot be run throws at once", () => {
	assert.throws(
		() => spawn({ argv: ["no-such-program"], env }),
		(error: Error) =>
			hasCode(error, "not-found") &&
			error.message === "spawn no-such-program: ENOENT: no such file or directory",
	);
	assert.throws(() => spawn({ argv: ["/etc/passwd"], env }), /spawn \/etc\/passwd: EACCES/);
	assert.throws(() => spawn({ argv: ["true"], env, cwd: "/nowhere" }), /spawn true in \/nowhere: ENOENT/);
	assert.throws(() => spawn({ argv: ["echo", "a\0b"], env }), /EINVAL/);
});

test("a killed child says by what", async () => {
	const child = spawn({ argv: ["sleep", "60"], env });
	assert.equal(child.kill("SIGTERM"), true);
	assert.deepEqual(await child.exited, { code: 143, signal: "SIGTERM" });
	assert.equal(child.kill("SIGTERM"), false);
});

test("a group is killed with its grandchildren", async () => {
	const child = spawn({ argv: ["sh", "-c", "sleep 60 & echo started; wait"], env, group: "own" });
	assert.ok(child.stdout !== undefined);
	await once(child.stdout, "readable");
	assert.equal(child.kill("SIGKILL", { group: true }), true);
	assert.equal((await child.exited).signal, "SIGKILL");
	// The grandchild held the pipe: it ends only when that is dead too.
	assert.equal(await text(child.stdout), "started\n");
	const plain = spawn({ argv: ["true"], env });
	assert.throws(() => plain.kill("SIGTERM", { group: true }), /no process group/);
	await plain.exited;
});

test("signals that this process ignores are at their default in the child", async () => {
	const status = await run(["sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status"]);
	assert.equal(status.output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
});

test("the child has the descriptors it was given and no others", async () => {
	const folder = mkdtempSync(join(tmpdir(), "sys-spawn-"));
	writeFileSync(join(folder, "a"), "from a");
	writeFileSync(join(folder, "b"), "from b");
	const a = openSync(join(folder, "a"), "r");
	const b = openSync(join(folder, "b"), "r");
	try {
		const result = await run(["sh", "-c", "cat <&4; cat <&3; ls /proc/self/fd | wc -l"], {
			extraFds: [a, b],
		});
		assert.equal(result.output, "from bfrom a6\n");
	} finally {
		closeSync(a);
		closeSync(b);
		rmSync(folder, { recursive: true });
	}
});

test("output can go to a file of ours, or to nothing", async () => {
	const folder = mkdtempSync(join(tmpdir(), "sys-spawn-"));
	const fd = openSync(join(folder, "out"), "w");
	try {
		const child = spawn({ argv: ["sh", "-c", "echo one; echo two >&2"], env, stdout: fd, stderr: "null" });
		assert.equal(child.stdout, undefined);
		await child.exited;
		assert.equal(readFileSync(join(folder, "out"), "utf8"), "one\n");
	} finally {
		closeSync(fd);
		rmSync(folder, { recursive: true });
	}
});

test("many children at once are all reaped, beside those of Node", async () => {
	const ours = Array.from({ length: 30 }, (_, index) => run(["sh", "-c", `exit ${index}`]));
	const nodes = Array.from({ length: 10 }, async (_, index) => {
		const [code] = await once(nodeSpawn("sh", ["-c", `exit ${index}`]), "exit");
		return code as number;
	});
	assert.deepEqual(
		(await Promise.all(ours)).map(({ status }) => status.code),
		Array.from({ length: 30 }, (_, index) => index),
	);
	assert.deepEqual(
		await Promise.all(nodes),
		Array.from({ length: 10 }, (_, index) => index),
	);
	const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8");
	assert.equal(children, "", "a child was left behind");
});

test("a child in a session of its own has the terminal", async () => {
	using terminal = openTerminal({ rows: 33, columns: 101 });
	const tty = { path: terminal.path, flags: constants.O_RDWR };
	const child = spawn({
		argv: ["sh", "-c", "stty size < /dev/tty; test -t 1"],
		env,
		stdin: tty,
		stdout: tty,
		stderr: tty,
		group: "session",
	});
	assert.deepEqual(await child.exited, { code: 0 });
	const into = Buffer.alloc(100);
	assert.equal(into.toString("utf8", 0, (await import("node:fs")).readSync(terminal.fd, into)), "33 101\r\n");
	assert.deepEqual(getTerminalSize(terminal.fd), { rows: 33, columns: 101 });
});
