import assert from "node:assert/strict";
import {
	cpSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { SlipwayError } from "../errors/errors.ts";
import { setPropagation } from "../sys/mount.ts";
import { unshare } from "../sys/namespace.ts";
import { hideUnifiedHierarchy } from "./cgroups.ts";
import type { ExecOptions, Executor, ExitStatus, RunningProcess } from "./executor.ts";
import { createNetworks, type Networks } from "./networks.ts";
import { createOciExecutor } from "./oci-executor.ts";
import { findRuntime } from "./runtime.ts";

/** A container whose first process waits for its input to end, and others beside it. */

let directory = "";
let executor: Executor;
let networks: Networks;

before(() => {
	assert.ok(existsSync("/bin/busybox"), "needs busybox-static");
	directory = mkdtempSync(join(tmpdir(), "slipway-container-"));
	const rootfs = join(directory, "rootfs");
	for (const name of ["bin", "etc", "tmp"]) {
		mkdirSync(join(rootfs, name), { recursive: true });
	}
	cpSync("/bin/busybox", join(rootfs, "bin/busybox"));
	for (const applet of ["sh", "cat", "id", "sleep", "echo", "stty", "tty", "wc", "head", "kill", "true"]) {
		symlinkSync("busybox", join(rootfs, "bin", applet));
	}
	writeFileSync(join(rootfs, "etc/passwd"), "app:x:1000:1001::/:/bin/sh\n");
	const searchPath = process.env["PATH"] ?? "";
	networks = createNetworks(
		{ mode: "host" },
		{ root: join(directory, "network"), searchPath, debug: () => {} },
	);
	let entered = false;
	executor = createOciExecutor({
		networks,
		root: join(directory, "executor"),
		findRuntime: () => findRuntime({ searchPath, stateDir: join(directory, "runtime") }),
		beforeMounts: () => {
			if (!entered) {
				entered = true;
				unshare(["mount"]);
				setPropagation("/", "rslave");
				hideUnifiedHierarchy();
			}
		},
	});
});

after(async () => {
	await networks[Symbol.asyncDispose]();
	rmSync(directory, { recursive: true, force: true });
});

const never = new AbortController().signal;
const env = ["PATH=/bin", "TERM=xterm"];

interface TestContainer extends AsyncDisposable {
	readonly id: string;
	readonly ended: Promise<ExitStatus>;
	readonly output: () => string;
	readonly input: Input;
}

/** What a test writes to a process. */
class Input {
	readonly #chunks: Uint8Array[] = [];
	#ended = false;
	#wake: () => void = () => {};

	write(text: string): void {
		this.#chunks.push(Buffer.from(text));
		this.#wake();
	}

	end(): void {
		this.#ended = true;
		this.#wake();
	}

	async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
		while (!this.#ended || this.#chunks.length > 0) {
			const chunk = this.#chunks.shift();
			if (chunk !== undefined) {
				yield chunk;
			} else {
				await new Promise<void>((resolve) => {
					this.#wake = resolve;
				});
			}
		}
	}
}

let count = 0;

async function startContainer(args: readonly string[] = ["cat"]): Promise<TestContainer> {
	const id = `container${process.pid}n${count++}`;
	const input = new Input();
	const end = new AbortController();
	let output = "";
	const started = Promise.withResolvers<RunningProcess>();
	const ended = executor.run({
		id,
		root: {
			mounts: [{ type: "bind", source: join(directory, "rootfs"), options: ["rbind"] }],
			readonly: false,
		},
		mounts: [],
		process: { args, env, cwd: "/", user: "" },
		network: "none",
		security: "sandbox",
		extraHosts: [],
		ulimits: [],
		platform: { os: "linux", architecture: "amd64" },
		removeMountStubsRecursive: true,
		onOutput: (_, chunk) => {
			output += Buffer.from(chunk).toString();
		},
		io: { stdin: input },
		onStarted: started.resolve,
		signal: end.signal,
	});
	ended.catch(started.reject);
	await started.promise;
	return {
		id,
		ended,
		output: () => output,
		input,
		async [Symbol.asyncDispose]() {
			end.abort();
			await ended.catch(() => {});
		},
	};
}

interface Ran {
	readonly code: number;
	readonly out: string;
	readonly err: string;
}

async function exec(
	container: TestContainer,
	args: readonly string[],
	more: Partial<ExecOptions> = {},
): Promise<Ran> {
	const texts = ["", "", ""];
	const { code } = await executor.exec({
		id: container.id,
		process: { args, env, cwd: "/", user: "" },
		security: "sandbox",
		onOutput: (stream, chunk) => {
			texts[stream] += Buffer.from(chunk).toString();
		},
		signal: never,
		...more,
	});
	return { code, out: texts[1] ?? "", err: texts[2] ?? "" };
}

suite("a container with several processes", () => {
	test("each has its own streams and exit code, and the end of the first ends it", async () => {
		await using container = await startContainer();
		assert.deepEqual(await exec(container, ["sh", "-c", "echo out; echo err >&2; exit 3"]), {
			code: 3,
			out: "out\n",
			err: "err\n",
		});
		container.input.write("for the first");
		container.input.end();
		assert.equal((await container.ended).code, 0);
		assert.equal(container.output(), "for the first");
		await assert.rejects(exec(container, ["true"]), { code: "not-found" });
	});

	test("a process that can't be run is an error, and the container goes on", async () => {
		await using container = await startContainer();
		await assert.rejects(exec(container, ["missing"]), (error: unknown) => {
			assert.ok(error instanceof SlipwayError);
			assert.match(error.message, /could not start the process: .*missing/);
			return true;
		});
		assert.equal((await exec(container, ["true"])).code, 0);
	});

	test("the end of the first process ends the others", async () => {
		await using container = await startContainer();
		const started = Promise.withResolvers<unknown>();
		const other = exec(container, ["sleep", "100"], { onStarted: started.resolve });
		await started.promise;
		container.input.end();
		await container.ended;
		assert.notEqual((await other).code, 0);
	});

	test("a process is another user in another directory", async () => {
		await using container = await startContainer();
		const ran = await exec(container, ["sh", "-c", "id -u; id -g; pwd"], {
			process: { args: ["sh", "-c", "id -u; id -g; pwd"], env, cwd: "/tmp", user: "app" },
		});
		assert.equal(ran.out, "1000\n1001\n/tmp\n");
	});

	test("input of any size is read to its end", async () => {
		await using container = await startContainer();
		const input = new Input();
		input.write("x".repeat(3_000_000));
		input.end();
		assert.equal((await exec(container, ["wc", "-c"], { io: { stdin: input } })).out.trim(), "3000000");
	});

	test("a process that reads nothing of its input ends all the same", async () => {
		await using container = await startContainer();
		const input = new Input();
		input.write("x".repeat(3_000_000));
		assert.equal((await exec(container, ["true"], { io: { stdin: input } })).code, 0);
	});

	test("output waits for its reader", async () => {
		await using container = await startContainer();
		let size = 0;
		await exec(container, ["sh", "-c", "head -c 300000 /dev/zero"], {
			onOutput: async (_, chunk) => {
				await new Promise((resolve) => setImmediate(resolve));
				size += chunk.length;
			},
		});
		assert.equal(size, 300_000);
	});

	test("signals reach the process", async () => {
		await using container = await startContainer();
		const script = "trap 'echo got; exit 9' HUP; echo ready; while :; do sleep 0.02; done";
		const running = Promise.withResolvers<RunningProcess>();
		const ready = Promise.withResolvers<void>();
		let out = "";
		const ended = exec(container, ["sh", "-c", script], {
			onStarted: running.resolve,
			onOutput: (_, chunk) => {
				out += Buffer.from(chunk).toString();
				ready.resolve();
			},
		});
		await ready.promise;
		(await running.promise).signal("SIGHUP");
		assert.equal((await ended).code, 9);
		assert.equal(out, "ready\ngot\n");
	});

	test("aborting one process leaves the others", async () => {
		await using container = await startContainer();
		const end = new AbortController();
		const ended = exec(container, ["sleep", "100"], { signal: end.signal, onStarted: () => end.abort() });
		await assert.rejects(ended, { code: "canceled" });
		assert.equal((await exec(container, ["true"])).code, 0);
	});

	test("nothing is left of a container", async () => {
		{
			await using container = await startContainer();
			await exec(container, ["true"]);
		}
		assert.deepEqual(readdirSync(join(directory, "executor", "containers")), []);
		assert.deepEqual(readdirSync(join(directory, "executor", "processes")), []);
	});
});

suite("terminals", () => {
	test("a process has a terminal of its own, of the size that it is given", async () => {
		await using container = await startContainer();
		const input = new Input();
		let out = "";
		const ended = exec(container, ["sh"], {
			process: { args: ["sh"], env: [...env, "PS1="], cwd: "/", user: "" },
			io: { stdin: input, terminal: true },
			onStarted: (process) => {
				process.resize({ rows: 33, columns: 99 });
				// Until the size has come through.
				input.write("until [ \"$(stty size)\" = '33 99' ]; do sleep 0.02; done; tty; echo sized; exit 5\n");
			},
			onOutput: (stream, chunk) => {
				assert.equal(stream, 1);
				out += Buffer.from(chunk).toString();
			},
		});
		assert.equal((await ended).code, 5);
		assert.match(out, /\/dev\/pts\/\d+\r\nsized\r\n/);
	});

	test("the first process may have one, of which nothing is lost when it ends at once", async () => {
		for (let round = 0; round < 5; round++) {
			let out = "";
			const { code } = await executor.run({
				id: `container${process.pid}t${round}`,
				root: {
					mounts: [{ type: "bind", source: join(directory, "rootfs"), options: ["rbind"] }],
					readonly: false,
				},
				mounts: [],
				process: { args: ["sh", "-c", "tty; exit 6"], env, cwd: "/", user: "" },
				network: "none",
				security: "sandbox",
				extraHosts: [],
				ulimits: [],
				platform: { os: "linux", architecture: "amd64" },
				removeMountStubsRecursive: true,
				onOutput: (_, chunk) => {
					out += Buffer.from(chunk).toString();
				},
				io: { terminal: true },
				signal: never,
			});
			assert.equal(code, 6);
			assert.match(out, /\/dev\/pts\/\d+\r\n/);
		}
	});

	test("a terminal that others have open too ends with its own process", async () => {
		await using container = await startContainer();
		const { code } = await exec(container, ["sh", "-c", "sleep 100 & exit 7"], { io: { terminal: true } });
		assert.equal(code, 7);
	});
});
