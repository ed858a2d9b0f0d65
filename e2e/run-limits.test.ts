import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { busyboxBase, debianLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
after(() => {
	for (const root of [
		".",
		"memory",
		"pids",
		"cpu",
		"cpuacct",
		"cpuset",
		"devices",
		"freezer",
		"blkio",
		"systemd",
		"unified",
	]) {
		for (const name of ["slipway", ""]) {
			const group = join("/sys/fs/cgroup", root, `slipway-e2e-${process.pid}`, name);
			tool("sh", ["-c", `rmdir ${group} 2>/dev/null || true`]);
		}
	}
	bench[Symbol.dispose]();
});

function printed(stderr: string): readonly string[] {
	return stderr.split("\n").flatMap((line) => /^#\d+ \d+\.\d+ (.*)$/.exec(line)?.[1] ?? []);
}

function contextOf(...lines: readonly string[]): string {
	return bench.context({ Dockerfile: ["FROM base", ...lines, ""].join("\n") });
}

async function run(line: string, ...args: readonly string[]): Promise<readonly string[]> {
	return printed((await bench.build([...busyboxBase, ...args, contextOf(line)])).stderr);
}

function lastError(stderr: string): string {
	return stderr.split("\n").findLast((line) => line.startsWith("ERROR: ")) ?? "";
}

/** Of these tests alone. */
const groupArgs = ["--cgroup-parent", `slipway-e2e-${process.pid}`];

/** Groups of steps, which must not outlive them. */
function groupsLeft(): readonly string[] {
	const roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
	return roots
		.map((root) => join(root, `slipway-e2e-${process.pid}`, "slipway"))
		.filter((parent) => existsSync(parent))
		.flatMap((parent) => readdirSync(parent, { withFileTypes: true }))
		.filter((entry) => entry.isDirectory())
		.map((entry) => entry.name);
}

const isVersionTwo = existsSync("/sys/fs/cgroup/cgroup.controllers");

test("--shm-size, --ulimit, --cgroup-parent", async () => {
	const lines = await run(
		"RUN df -k /dev/shm | awk 'END {print $2}'; ulimit -Sn; ulimit -Hn; cat /proc/self/cgroup",
		...["--shm-size", "32m", "--ulimit", "nofile=1000:2000", ...groupArgs],
	);
	assert.deepEqual(lines.slice(0, 3), ["32768", "1000", "2000"]);
	if (!isVersionTwo) {
		assert.ok(lines.join("\n").includes(`:/slipway-e2e-${process.pid}/slipway/`));
	}
	const wrong = await bench.run([...busyboxBase, "--ulimit", "nofile=many", contextOf("RUN true")]);
	assert.match(lastError(wrong.stderr), /invalid ulimit argument: nofile=many/);
});

test("CPU limits are the group's", async () => {
	const show = isVersionTwo
		? "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpuset.cpus"
		: "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus";
	const expected = isVersionTwo ? ["50000 100000", "0"] : ["50000", "100000", "512", "0"];
	assert.deepEqual(
		await run(`RUN ${show}`, "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"),
		expected,
	);
	const resource = ["--resource", "cpu-quota=50000", "--resource", "cpu-period=100000"];
	assert.deepEqual(
		await run(
			`RUN ${show} # again`,
			...resource,
			"--resource",
			"cpu-shares=512",
			"--resource",
			"cpuset-cpus=0",
		),
		expected,
	);
});

test("a step that wants more memory than it may have is killed, and the error says why", async () => {
	const context = contextOf("RUN echo before", "RUN echo last words; tail /dev/zero");
	const result = await bench.run([
		...busyboxBase,
		...groupArgs,
		"--memory",
		"48m",
		"--memory-swap",
		"48m",
		context,
	]);
	assert.equal(result.code, 1);
	assert.match(
		lastError(result.stderr),
		/did not complete successfully: exit code: 137: cannot allocate memory$/,
	);
	assert.match(result.stderr, / > \[2\/3\] RUN echo last words.*:\n[\d.]+ last words\n------/);
	const limit = isVersionTwo ? "memory.max" : "memory/memory.limit_in_bytes";
	const [value] = await run(`RUN cat /sys/fs/cgroup/${limit}`, "-m", "48m");
	assert.ok(Math.abs(Number(value) - 48 * 1024 * 1024) <= 4096, value);
	assert.deepEqual(groupsLeft(), []);
});

test("--step-timeout kills the step and names it; without time over nothing happens", async () => {
	const context = contextOf("RUN true", "RUN trap '' TERM INT; echo begun; sleep 300");
	const result = await bench.run([...busyboxBase, "--step-timeout", "1s", context]);
	assert.equal(result.code, 1);
	assert.match(
		lastError(result.stderr),
		/killed at the time limit of 1s for "\[2\/3\] RUN trap '' TERM INT; echo begun; sleep 300" \(--step-timeout\)$/,
	);
	assert.match(result.stderr, /3 \| >>> RUN trap/);
	await run("RUN true in time", "--step-timeout", "5m");
});

test("--max-parallelism: so many steps at once", async () => {
	const stage = (name: string): string =>
		`FROM base AS ${name}\nRUN --mount=type=cache,target=/c,id=slots mkdir /c/busy && sleep 0.2 && rmdir /c/busy && echo ${name} > /of-${name}\n`;
	const names = ["a", "b", "c"];
	const copies = names.map((name) => `COPY --from=${name} /of-${name} /`).join("\n");
	const dockerfile = `${names.map(stage).join("")}FROM base\n${copies}\n`;
	await bench.build([...busyboxBase, "--max-parallelism", "1", bench.context({ Dockerfile: dockerfile })]);
});

test("failing steps: exit code, signal, the last lines, the place", async () => {
	for (const [command, message] of [
		["echo tell; exit 42", "exit code: 42"],
		["echo tell; sh -c 'kill -9 $$'; exit $?", "exit code: 137"],
		["echo tell; sh -c 'kill -15 $$'; exit $?", "exit code: 143"],
		["echo tell; nothing-of-the-name", "exit code: 127"],
	] as const) {
		const result = await bench.run([...busyboxBase, contextOf(`RUN ${command}`)]);
		assert.equal(result.code, 1);
		assert.equal(
			lastError(result.stderr),
			`ERROR: process "/bin/sh -c ${command}" did not complete successfully: ${message}`,
		);
		assert.match(result.stderr, /------\n > \[1\/2\] RUN echo tell.*:\n[\d.]+ tell\n/);
		assert.match(result.stderr, /Dockerfile:2\n-+\n.*\n {3}2 \| >>> RUN echo tell/);
	}
	const missing = await bench.run([...busyboxBase, contextOf('RUN ["/no/such/program"]')]);
	assert.match(lastError(missing.stderr), /\/no\/such\/program.*(?:no such file|not found)/i);
});

test("--device: what a file of the machine describes, when it is allowed", async () => {
	const kind = `slipway-e2e.example/n${process.pid}`;
	const spec = join("/run/cdi", `slipway-e2e-${process.pid}.yaml`);
	mkdirSync("/run/cdi", { recursive: true });
	writeFileSync(
		spec,
		`cdiVersion: "0.6.0"
kind: ${kind}
devices:
- name: one
  containerEdits:
    env: ["GIVEN=yes"]
    deviceNodes:
    - path: /dev/mynull
      hostPath: /dev/null
    mounts:
    - hostPath: ${bench.dir}
      containerPath: /of/host
      options: [ro, rbind]
`,
	);
	try {
		const show =
			"ls -l /dev/mynull | cut -c1; echo x > /dev/mynull && echo $GIVEN; [ -d /of/host/state ] && echo mounted";
		const context = contextOf(`RUN --device=${kind}=one ${show}`, "RUN ! ls /of /dev/mynull");
		const refused = await bench.run([...busyboxBase, context]);
		assert.match(
			lastError(refused.stderr),
			new RegExp(`device ${kind}=one is requested by the build but not allowed`),
		);
		for (const allow of ["device", `device=${kind}=one`]) {
			const { stderr } = await bench.build([...busyboxBase, "--no-cache", "--allow", allow, context]);
			assert.deepEqual(printed(stderr).slice(0, 3), ["c", "yes", "mounted"]);
		}
		const missing = contextOf(`RUN --device=${kind}=two,required true`);
		const unknown = await bench.run([...busyboxBase, "--allow", "device", missing]);
		assert.match(lastError(unknown.stderr), new RegExp(`required device "${kind}=two" is not registered`));
		await bench.build([...busyboxBase, contextOf(`RUN --device=${kind}=two true`)]);
	} finally {
		rmSync(spec);
	}
});

test("--security=insecure only when it is allowed", async () => {
	const insecure = contextOf(
		"RUN --security=insecure mount -t tmpfs t /mnt 2>&1 || mkdir /m && mount -t tmpfs t /m && echo mounted",
	);
	const refused = await bench.run([...busyboxBase, insecure]);
	assert.match(lastError(refused.stderr), /security\.insecure is not allowed/);
	const allowed = await bench.build([...busyboxBase, "--allow", "security.insecure", insecure]);
	assert.match(allowed.stderr, /mounted/);
	const unknown = await bench.run([...busyboxBase, "--allow", "everything", contextOf("RUN true")]);
	assert.match(lastError(unknown.stderr), /invalid entitlement: everything/);
});

test("a step that forks without end meets its own limit only", async () => {
	const context = contextOf("RUN i=0; while :; do sleep 1000 & i=$((i+1)); done");
	const result = await bench.run([...busyboxBase, ...groupArgs, "--step-timeout", "2m", context]);
	assert.equal(result.code, 1);
	assert.match(result.stderr, /can't fork/);
	assert.match(lastError(result.stderr), /exit code: 2$/);
	assert.deepEqual(groupsLeft(), []);
	await run("RUN true after the bomb");
});

test("what runs in the background ends with the step", async () => {
	const mark = `${process.pid}${Date.now() % 100_000}`;
	const lines = await run(
		`RUN (trap '' TERM HUP; sleep ${mark}) & setsid sleep ${mark} & sleep 0.1; echo over`,
	);
	assert.deepEqual(lines, ["over"]);
	const alive = readdirSync("/proc")
		.filter((name) => /^\d+$/.test(name))
		.filter((pid) => {
			try {
				return readFileSync(`/proc/${pid}/cmdline`, "utf8") === `sleep\0${mark}\0`;
			} catch {
				return false;
			}
		});
	assert.deepEqual(alive, []);
});

test("output without end is clipped, and the build goes on", async () => {
	const context = contextOf("RUN yes 0123456789 | head -c 40000000", "RUN echo next");
	const { stderr } = await bench.build([...busyboxBase, context]);
	assert.match(stderr, /\[output clipped, log limit (?:200KiB\/s|2MiB) reached\]/);
	assert.ok(stderr.length < 12_000_000, `${stderr.length}`);
	assert.match(stderr, /next/);
	const limits = { BUILDKIT_STEP_LOG_MAX_SIZE: "2048", BUILDKIT_STEP_LOG_MAX_SPEED: "-1" };
	const failing = contextOf("RUN yes 0123456789 | head -c 100000; echo the end; exit 1");
	const failed = await bench.run([...busyboxBase, failing], { env: limits });
	assert.match(failed.stderr, /\[output clipped, log limit 2KiB reached\]/);
	assert.match(failed.stderr, /the end\n/, "what was cut is shown when the step fails");
});

test("a step that fills the disk fails, and the next build works", async () => {
	const small = bench.path("small");
	mkdirSync(small);
	tool("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", small]);
	try {
		const args = [...busyboxBase, "--root", small];
		const result = await bench.run([...args, contextOf("RUN dd if=/dev/zero of=/full bs=64k")]);
		assert.equal(result.code, 1);
		assert.match(result.stderr, /No space left on device/);
		const after = await bench.build([...args, contextOf("RUN echo room > /x && cat /x")]);
		assert.deepEqual(printed(after.stderr), ["room"]);
	} finally {
		tool("umount", ["-l", small]);
	}
});

test("mount points and working directories that become links lead nowhere outside", async () => {
	writeFileSync(bench.path("secret"), "s");
	const context = bench.context({
		file: "x",
		Dockerfile: `FROM base
RUN touch /etc/precious && mkdir -p /etc/keep
RUN --mount=type=secret,id=s,target=/a/precious --mount=type=tmpfs,target=/a/keep mv /a /z && ln -s /etc /a
RUN [ -e /etc/precious ] && [ -d /etc/keep ] && rm -f /a && ln -s ../../../../../../../../${bench.path("outside").slice(1)} /a
RUN --mount=type=tmpfs,target=/a/b --mount=type=secret,id=s,target=/a/c ls /a
WORKDIR /a/w
RUN pwd
RUN mv /etc /etc2 && ln -s ../../../../../..${bench.path("outside")} /etc
RUN ls -l / | grep -c 'etc ->'
RUN rm /etc && ln -s /proc/1/root/etc /etc && cat /etc/hosts >/dev/null; ls /
`,
	});
	await bench.run([...busyboxBase, "--secret", `id=s,src=${bench.path("secret")}`, context]);
	assert.equal(existsSync(bench.path("outside")), false);
	assert.equal(existsSync("/etc/precious"), false);
	const first = contextOf(
		"RUN touch /etc/precious && mkdir -p /etc/keep",
		"RUN --mount=type=secret,id=s,target=/a/precious --mount=type=tmpfs,target=/a/keep mv /a /z && ln -s /etc /a",
		"RUN [ -e /etc/precious ] && [ -d /etc/keep ] && echo kept",
	);
	const kept = await bench.build([...busyboxBase, "--secret", `id=s,src=${bench.path("secret")}`, first]);
	assert.match(kept.stderr, /kept/);
});

test("files that nobody may read or change are no trouble for the builder", async () => {
	const base = ["--build-context", `base=oci-layout://${debianLayout}:bookworm`];
	const line = "RUN --security=insecure mkdir /d && echo x > /d/i && chmod 000 /d/i /d && chattr +i /d/i";
	const allow = ["--allow", "security.insecure"];
	const failed = await bench.run([...base, ...allow, contextOf(`${line} && exit 1`)]);
	assert.equal(failed.code, 1);
	assert.match(lastError(failed.stderr), /exit code: 1$/);
	await bench.build([...base, ...allow, contextOf(line, "RUN true after immutable files")]);
	assert.deepEqual(readdirSync(join(bench.root, "executor/containers")), []);
	tool("sh", ["-c", `chattr -R -i ${bench.root}/snapshots 2>/dev/null || true`]);
});
