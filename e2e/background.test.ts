import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { busyboxBase, projectRoot, Workbench } from "./support/slipway.ts";

const bench = new Workbench({ background: true });
after(() => bench[Symbol.dispose]());

/** The process that has the state directory; it stays after a build. */
function builder(): number {
	return Number(readFileSync(join(bench.root, "owner"), "utf8"));
}

function isAlive(pid: number): boolean {
	// A process that has ended and was not waited for is a zombie.
	try {
		return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
	} catch {
		return false;
	}
}

async function until(what: string, holds: () => boolean): Promise<void> {
	for (let waited = 0; !holds(); waited += 20) {
		assert.ok(waited < 10_000, `waited too long: ${what}`);
		await sleep(20);
	}
}

function containers(): readonly string[] {
	const directory = join(bench.root, "executor/containers");
	return existsSync(directory) ? readdirSync(directory) : [];
}

test("a second build is served by the builder that the first one started", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN echo once > /file\n" });
	await bench.build([...busyboxBase, context]);
	const first = builder();
	const again = await bench.build([...busyboxBase, context]);
	assert.equal(builder(), first);
	assert.match(again.stderr, /RUN echo once > \/file\n#\d+ CACHED/);
});

test("a build sees the client's directory, input, output, environment and descriptors", async () => {
	const context = bench.context({
		"in/Dockerfile":
			"FROM base\nARG FROM_ENV\nRUN --mount=type=secret,id=s echo $FROM_ENV $(cat /run/secrets/s) > /out\n",
		"in/file": "x",
	});
	const command = `printf 'FROM base\\nARG FROM_ENV\\nCOPY file /copied\\nRUN --mount=type=secret,id=s echo "$FROM_ENV $(wc -c < /run/secrets/s)" > /said\\nFROM scratch\\nCOPY --from=0 /copied /said /\\n' |
		${projectRoot}/bin/slipway build --root ${bench.root} --progress plain ${busyboxBase.join(" ")} --build-arg FROM_ENV \
		--secret id=s,src=<(printf four) --metadata-file meta.json -f - -o - in | tar -xO said copied`;
	const { SLIPWAY_IN_PROCESS: _, ...env } = process.env;
	const run = spawnSync("bash", ["-c", command], {
		cwd: context,
		env: { ...env, HOME: bench.dir, FROM_ENV: "given" },
		encoding: "utf8",
	});
	assert.equal(run.stdout, "xgiven 4\n", run.stderr);
	assert.ok(existsSync(join(context, "meta.json")));
});

test("a failing build gives the same error and exit code as in one process", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN echo said; exit 3\n" });
	const here = await bench.run([...busyboxBase, context]);
	using other = new Workbench();
	const there = await other.run([...busyboxBase, context]);
	const end = (text: string): string => text.slice(text.indexOf("------\n")).replace(/^\d+\.\d+ /gm, "");
	assert.equal(here.code, 1);
	assert.equal(end(here.stderr), end(there.stderr));
	assert.match(here.stderr, /exit code: 3/);
});

for (const signal of ["SIGINT", "SIGKILL"] as const) {
	test(`a client that ends by ${signal} ends its build and nothing else`, async () => {
		const context = bench.context({
			Dockerfile: `FROM base\nRUN echo started ${signal}; sleep 600\n`,
		});
		const pid = builder();
		const run = bench.start([...busyboxBase, context]);
		await run.sees(/started SIG/);
		run.child.kill(signal);
		const { code } = await run.finished;
		assert.equal(code, signal === "SIGINT" ? 130 : null);
		await until("the container is gone", () => containers().length === 0);
		assert.equal(builder(), pid);
		assert.ok(isAlive(pid));
	});
}

test("a builder that is killed fails its build with a clear sentence, and the next build starts another", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN echo up; sleep 600\n" });
	const run = bench.start([...busyboxBase, context]);
	await run.sees("up\n");
	const pid = builder();
	process.kill(pid, "SIGKILL");
	const { code, stderr } = await run.finished;
	assert.equal(code, 1);
	assert.match(stderr, /ERROR: the background builder ended before the command did/);
	const quick = bench.context({ Dockerfile: "FROM base\nRUN true\n" });
	await bench.build([...busyboxBase, quick]);
	assert.notEqual(builder(), pid);
});

test("builds of several clients run side by side and share what they have in common", async () => {
	const together = bench.path("together");
	mkdirSync(together);
	const context = bench.context({
		Dockerfile: "FROM base\nRUN echo $(cat /proc/sys/kernel/random/uuid) > /id\nARG N\nRUN echo $N >> /id\n",
	});
	const ids = await Promise.all(
		["a", "b", "c"].map(async (name) => {
			const out = join(together, name);
			await bench.build([
				...busyboxBase,
				"--build-arg",
				`N=${name}`,
				"-o",
				`type=tar,dest=${out}.tar`,
				context,
			]);
			const text = spawnSync("tar", ["-xOf", `${out}.tar`, "id"], { encoding: "utf8" }).stdout.split("\n");
			assert.equal(text[1], name);
			return text[0];
		}),
	);
	assert.equal(new Set(ids).size, 1, "the first step ran once");
});

test("clients that come at the same moment have one builder", async () => {
	bench.stop();
	const context = bench.context({ Dockerfile: "FROM scratch\nCOPY Dockerfile /\n" });
	const runs = await Promise.all([1, 2, 3].map(() => bench.run([context])));
	for (const { code, stderr } of runs) {
		assert.equal(code, 0, stderr);
	}
});

test("a client with other settings gets a builder of its own settings", async () => {
	const context = bench.context({ Dockerfile: "FROM scratch\nCOPY Dockerfile /\n" });
	await bench.build([context]);
	const pid = builder();
	await bench.build([context], { env: { NO_PROXY: "example.org" } });
	assert.notEqual(builder(), pid);
	await until("the earlier builder is gone", () => !isAlive(pid));
});

test("a builder ends when it has been idle, and when it is told to stop", async () => {
	const context = bench.context({ Dockerfile: "FROM scratch\nCOPY Dockerfile /\n" });
	bench.stop();
	await bench.build(["--idle-exit", "200ms", context]);
	const pid = builder();
	await until("the idle builder is gone", () => !isAlive(pid));
	await bench.build([context]);
	const next = builder();
	bench.stop();
	// Its sockets close a moment before the process is gone.
	await until("the stopped builder is gone", () => !isAlive(next));
	writeFileSync(join(context, "new"), "");
	await bench.build([context]);
});
