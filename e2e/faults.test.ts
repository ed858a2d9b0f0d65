import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { filesBelow } from "./support/image.ts";
import { busyboxBase, type Finished, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

function errorLines(result: Finished): readonly string[] {
	return result.stderr.split("\n").filter((line) => line.startsWith("ERROR: "));
}

/** What the machine could notice of a build that has ended. */
function leftovers(dir: string): {
	readonly mounts: readonly string[];
	readonly processes: readonly string[];
} {
	const mounts = readFileSync("/proc/mounts", "utf8")
		.split("\n")
		.filter((line) => line.includes(dir));
	const processes = readdirSync("/proc")
		.filter((name) => /^\d+$/.test(name))
		.flatMap((pid) => {
			try {
				const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
				return command.includes(dir) ? [command] : [];
			} catch {
				return [];
			}
		});
	return { mounts, processes };
}

/** One sentence with the place, exit code 1, nothing left. */
const badInput: readonly {
	readonly title: string;
	readonly files: Readonly<Record<string, string>>;
	readonly args?: readonly string[];
	readonly error: RegExp;
	readonly excerpt?: RegExp;
}[] = [
	{
		title: "a missing Dockerfile",
		files: { f: "" },
		error: /failed to read dockerfile: open Dockerfile: no such file or directory/,
	},
	{
		title: "an unknown instruction",
		files: { Dockerfile: "FROM base\nCOPPY a b\n" },
		error: /dockerfile parse error on line 2: unknown instruction: COPPY \(did you mean COPY\?\)/,
		excerpt: /Dockerfile:2\n-+\n.*\n {3}2 \| >>> COPPY a b/,
	},
	{
		title: "a COPY of what is not there",
		files: { Dockerfile: "FROM base\nCOPY nothing /\n" },
		error: /"\/nothing": not found/,
		excerpt: /2 \| >>> COPY nothing \//,
	},
	{
		title: "a COPY from outside of the context",
		files: { Dockerfile: "FROM base\nCOPY ../../../../etc/hostname /stolen\n" },
		error: /"\/etc\/hostname": not found/,
	},
	{
		title: "an unreachable base image",
		files: { Dockerfile: "FROM localhost:1/nobody/home:1\nRUN true\n" },
		error: /localhost:1/,
		excerpt: /1 \| >>> FROM localhost:1\/nobody\/home:1/,
	},
	{
		title: "a failing RUN",
		files: { Dockerfile: "FROM base\n\nRUN echo about to fail && exit 42\n" },
		error:
			/process "\/bin\/sh -c echo about to fail && exit 42" did not complete successfully: exit code: 42/,
		excerpt: /3 \| >>> RUN echo about to fail && exit 42/,
	},
	{
		title: "an unknown target",
		files: { Dockerfile: "FROM base AS one\n" },
		args: ["--target", "two"],
		error: /target stage "two" could not be found/,
	},
	{ title: "an empty Dockerfile", files: { Dockerfile: "" }, error: /the Dockerfile cannot be empty/ },
	{
		title: "a flag that does not exist",
		files: { Dockerfile: "FROM base\n" },
		args: ["--colour"],
		error: /unknown flag: --colour/,
	},
	{
		title: "a flag that is not built yet",
		files: { Dockerfile: "FROM base\n" },
		args: ["--sbom=true"],
		error: /flag --sbom is not supported yet/,
	},
	{
		title: "an invalid tag",
		files: { Dockerfile: "FROM base\n" },
		args: ["-t", "Not/A/Tag"],
		error: /invalid tag "Not\/A\/Tag"/,
	},
	{
		title: "an output that does not exist",
		files: { Dockerfile: "FROM base\n" },
		args: ["-o", "type=nonsense"],
		error: /exporter "nonsense" could not be found|unknown output type/,
	},
	{
		title: "an output directory that is a file",
		files: { Dockerfile: "FROM base\n", f: "" },
		args: ["-o", "type=oci,dest=/dev/null/x.tar"],
		error: /\/dev\/null/,
	},
];

for (const { title, files, args = [], error, excerpt } of badInput) {
	test(`${title} is one clear sentence and exit code 1`, async () => {
		const result = await bench.run([...busyboxBase, ...args, bench.context(files)]);
		assert.equal(result.code, 1, result.stderr);
		assert.equal(errorLines(result).length, 1, result.stderr);
		assert.match(errorLines(result)[0] ?? "", error);
		if (excerpt !== undefined) {
			assert.match(result.stderr, excerpt);
		}
		assert.doesNotMatch(result.stderr, /^\s+at .*\.[jt]s:\d+/m, "no stack trace");
		assert.deepEqual(leftovers(bench.dir), { mounts: [], processes: [] });
	});
}

test("a missing context directory is one clear sentence", async () => {
	const result = await bench.run([bench.path("nowhere")]);
	assert.equal(result.code, 1);
	assert.match(errorLines(result)[0] ?? "", /unable to prepare context: path ".*nowhere" not found/);
});

test("symbolic links in the context never lead out of it", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nCOPY link /copied\nCOPY dir/hosts /hosts\n" });
	symlinkSync("/etc/hostname", join(context, "link"));
	symlinkSync("/etc", join(context, "dir"));
	const result = await bench.run([...busyboxBase, context]);
	assert.equal(result.code, 1);
	assert.match(errorLines(result)[0] ?? "", /not found/);
});

test("Ctrl-C ends the running step at once and leaves nothing", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN trap '' INT TERM; echo started; sleep 300\n" });
	const running = bench.start([...busyboxBase, "-o", bench.path("never"), context]);
	await running.sees(/^#\d+ [\d.]+ started/m);
	const began = performance.now();
	running.child.kill("SIGINT");
	const result = await running.finished;
	assert.equal(result.code, 130, result.stderr);
	assert.ok(performance.now() - began < 10_000);
	assert.match(result.stderr, /CANCELED/);
	assert.deepEqual(leftovers(bench.dir), { mounts: [], processes: [] });
	assert.deepEqual(readdirSync(join(bench.root, "executor/containers")), []);
	assert.deepEqual(readdirSync(join(bench.root, "mounts")), []);
	assert.equal(existsSync(bench.path("never")), false);
});

test("two builds at once on one state directory: the second is told who has it", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN echo started; sleep 300\n" });
	const running = bench.start([...busyboxBase, context]);
	await running.sees(/^#\d+ [\d.]+ started/m);
	const second = await bench.run([...busyboxBase, context]);
	assert.equal(second.code, 1);
	assert.match(
		errorLines(second)[0] ?? "",
		/state directory .* is in use by another builder \(process \d+\)/,
	);
	running.child.kill("SIGTERM");
	assert.equal((await running.finished).code, 130);
});

test("a builder that is killed at any moment leaves a state that the next build uses", async () => {
	using other = new Workbench();
	const files: Record<string, string> = {
		Dockerfile:
			"FROM base AS a\nCOPY . /src\nRUN cat /src/f* > /all && sleep 0.05\nFROM base\nCOPY --from=a /all /all\nRUN sleep 0.05; echo done > /done\n",
	};
	for (let i = 0; i < 200; i++) {
		files[`f${i}`] = `${i}\n`;
	}
	const context = other.context(files);
	const output = other.path("killed.tar");
	const args = [...busyboxBase, "-t", "killed:1", "-o", `type=oci,dest=${output}`, context];
	const whole = performance.now();
	await other.build(["--no-cache", ...args]);
	const length = performance.now() - whole;
	for (let round = 0; round < 12; round++) {
		const running = other.start(["--no-cache", ...args]);
		await new Promise((resolve) => setTimeout(resolve, (length * (round + 0.5)) / 12));
		running.child.kill("SIGKILL");
		await running.finished;
	}
	// What a killed builder's container does is ended by the next builder.
	await other.build(args);
	assert.match(tool("skopeo", ["inspect", `oci-archive:${output}`]), /"Layers"/);
	assert.deepEqual(leftovers(other.dir), { mounts: [], processes: [] });
	assert.deepEqual(readdirSync(join(other.root, "executor/containers")), []);
	assert.deepEqual(readdirSync(join(other.root, "content/ingest")), []);
	assert.deepEqual(
		filesBelow(other.dir).filter((file) => /killed\.tar./.test(file)),
		[],
		"no half output stays beside the output",
	);
	const again = await other.build(args);
	assert.match(again.stderr, /CACHED/);
});

test("a full disk is one clear sentence, and with space again the build goes on", async () => {
	using other = new Workbench();
	const small = other.path("small");
	mkdirSync(small);
	tool("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", small]);
	try {
		const args = [...busyboxBase, "--root", join(small, "state")];
		const context = other.context({ Dockerfile: "FROM base\nRUN echo fits > /f\n" });
		await other.build([...args, context]);
		const big = other.context({ Dockerfile: "FROM base\nRUN echo fits > /f\nCOPY big /\n" });
		writeFileSync(join(big, "big"), Buffer.alloc(40 << 20, "x"));
		const result = await other.run([...args, big]);
		assert.equal(result.code, 1);
		assert.equal(errorLines(result).length, 1, result.stderr);
		assert.match(errorLines(result)[0] ?? "", /no space left on device|ENOSPC|disk is full/i);
		const after = await other.build([...args, context]);
		assert.match(after.stderr, /CACHED/);
	} finally {
		tool("umount", [small]);
	}
});

test("a damaged blob in the store is named, and rebuilt when it can be", async () => {
	using other = new Workbench();
	const context = other.context({ Dockerfile: "FROM base\nRUN head -c 100000 /dev/urandom > /random\n" });
	const args = [...busyboxBase, "-o", `type=oci,dest=${other.path("one.tar")}`, context];
	await other.build(args);
	const blobs = join(other.root, "content/blobs/sha256");
	const largest = readdirSync(blobs)
		.map((name) => ({ name, size: readFileSync(join(blobs, name)).length }))
		.filter((blob) => blob.size > 90_000 && blob.size < 200_000)
		.at(0);
	assert.ok(largest !== undefined, "the step's layer is a blob");
	const data = readFileSync(join(blobs, largest.name));
	data[5000] = (data[5000] ?? 0) ^ 0xff;
	writeFileSync(join(blobs, largest.name), data);
	const result = await other.run(args);
	if (result.code === 0) {
		assert.match(result.stderr, /WARNING: .*damaged/);
	} else {
		assert.equal(result.code, 1);
		assert.match(errorLines(result)[0] ?? "", new RegExp(largest.name));
	}
	await other.build(args);
	tool("skopeo", ["copy", `oci-archive:${other.path("one.tar")}`, `oci:${other.path("checked")}:x`]);
});
