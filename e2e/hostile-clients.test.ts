import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { emptyBuildHistoryRequest, emptySolveRequest } from "../src/api/generated/control.ts";
import type { Channel, Codec, Method, MethodKind } from "../src/api/grpc.ts";
import { content } from "../src/api/services/content.ts";
import { control } from "../src/api/services/control.ts";
import { llbBridge } from "../src/api/services/gateway.ts";
import { health } from "../src/api/services/health.ts";
import { reflection } from "../src/api/services/reflection.ts";
import { trace } from "../src/api/services/trace.ts";
import { SlipwayError } from "../src/errors/errors.ts";
import { DaemonBench, type RunningDaemon, requireClients } from "./support/daemon.ts";
import { busyboxLayout } from "./support/slipway.ts";

const base = ["--build-context", `base=oci-layout://${busyboxLayout}:latest`];
const never = new AbortController().signal;
const methods: readonly Method<MethodKind, unknown, unknown>[] = [
	control,
	content,
	llbBridge,
	health,
	reflection,
	trace,
].flatMap((service) => Object.values(service) as unknown as Method<MethodKind, unknown, unknown>[]);
const raw: Codec<Uint8Array> = {
	encode: (bytes) => ({ finish: () => bytes }),
	decode: (bytes) => bytes,
};

describe("what clients do to a daemon", () => {
	const bench = new DaemonBench();
	let daemon: RunningDaemon;
	before(async () => {
		requireClients();
		daemon = await bench.startDaemon();
		await bench.client(["docker-buildx", "create", "--name", "slip", "--driver", "remote", bench.address]);
	});
	after(() => bench[Symbol.asyncDispose]());

	/** It is there, answers, and nothing of others runs on. */
	async function isWell(): Promise<void> {
		assert.equal(daemon.child.exitCode, null);
		await using channel = await bench.channel();
		const { record } = await channel.unary(control.listWorkers, { filter: [] }, { signal: never });
		assert.equal(record.length, 1);
		const active = channel.stream(control.listenBuildHistory, { signal: never });
		await active.send({ ...emptyBuildHistoryRequest(), ActiveOnly: true });
		const running = new Set<string>();
		const watching = (async () => {
			for await (const { type, record: build } of active) {
				if (type === 0) {
					running.add(build?.Ref ?? "");
				} else {
					running.delete(build?.Ref ?? "");
				}
			}
		})();
		watching.catch(() => {});
		await active.headers;
		for (let attempt = 0; running.size > 0; attempt++) {
			assert.ok(attempt < 1000, `builds that nobody waits for: ${[...running].join(", ")}`);
			await sleep(20);
		}
	}

	interface Left {
		readonly processes: readonly string[];
		readonly containers: readonly string[];
		readonly mounts: number;
		readonly descriptors: number;
	}

	/** What a build has while it runs. */
	function leftOver(): Left {
		const proc = `/proc/${daemon.child.pid}`;
		const inRoot = (dir: string): string[] => readdirSync(join(bench.root, dir));
		return {
			processes: readdirSync(`${proc}/task`).flatMap((task) =>
				readFileSync(`${proc}/task/${task}/children`, "utf8").split(" ").filter(Boolean),
			),
			containers: [...inRoot("executor/containers"), ...inRoot("cache/mounts"), ...inRoot("mounts")],
			mounts: readFileSync(`${proc}/mountinfo`, "utf8").split("\n").length,
			descriptors: readdirSync(`${proc}/fd`).length,
		};
	}

	/** Threads and kept network namespaces come and go a little later than builds. */
	async function leavesNothing(before: Left): Promise<void> {
		const few = 8;
		for (let attempt = 0; ; attempt++) {
			const { processes, containers, mounts, descriptors } = leftOver();
			const isClean =
				processes.length + containers.length === 0 &&
				mounts <= before.mounts + few &&
				descriptors <= before.descriptors + few;
			if (isClean) {
				return;
			}
			const now = { processes, containers, mounts, descriptors };
			assert.ok(attempt < 500, `left over: ${JSON.stringify(now)}, before ${JSON.stringify(before)}`);
			await sleep(20);
		}
	}

	test("builds whose client is killed at 50 points", async () => {
		const files: Record<string, string> = {
			Dockerfile: "FROM base\nCOPY . /x\nRUN echo ran; cat /x/* > /y\nRUN sleep 5\n",
		};
		for (let index = 0; index < 200; index++) {
			files[`file${index}`] = randomBytes(4000).toString("hex");
		}
		const context = bench.context(files);
		await bench.client([
			"docker-buildx",
			"--builder",
			"slip",
			"build",
			...base,
			"-o",
			"type=cacheonly",
			context,
		]);
		const before = leftOver();
		const points = Array.from({ length: 50 }, (_, index) => index * 12);
		const next = points[Symbol.iterator]();
		const worker = async (): Promise<void> => {
			for (const point of next) {
				const args = ["docker-buildx", "--builder", "slip", "build", ...base, "--build-arg", `P=${point}`];
				const build = bench.tryClient([...args, "-o", `type=oci,dest=${bench.dir}/o${point}`, context]);
				await sleep(60 + point);
				build.child.kill("SIGKILL");
				await build.finished;
			}
		};
		await Promise.all([worker(), worker(), worker(), worker()]);
		await isWell();
		await leavesNothing(before);
	});

	test("100 clients at once, some of which say nothing", async () => {
		const silent = Array.from({ length: 20 }, () => connect(bench.socket).on("error", () => {}));
		const channels = await Promise.all(Array.from({ length: 80 }, () => bench.channel()));
		try {
			await Promise.all(
				channels.map(async (channel, index) => {
					await channel.unary(control.info, {}, { signal: never });
					await assert.rejects(
						channel.unary(
							control.solve,
							{ ...emptySolveRequest(), Ref: `many${index}`, Frontend: "none" },
							{ signal: never },
						),
						{ message: "invalid frontend: none" },
					);
				}),
			);
		} finally {
			await Promise.all(channels.map((channel) => channel[Symbol.asyncDispose]()));
			for (const socket of silent) {
				socket.destroy();
			}
		}
		await isWell();
	});

	/** All methods at once, as most of them wait for something that does not come. */
	async function nonsense(channel: Channel, rounds: number): Promise<void> {
		const call = async ({ kind, path }: (typeof methods)[number], round: number): Promise<void> => {
			const method: Method<MethodKind, Uint8Array, Uint8Array> = { kind, path, request: raw, response: raw };
			const stream = channel.stream(method, {
				signal: AbortSignal.timeout(200),
				metadata: { "buildkit-controlapi-buildid": [`none${round}`] },
			});
			try {
				await stream.send(randomBytes([0, 1, 20, 3000][round % 4] ?? 0));
				stream.closeSend();
				for await (const _ of stream) {
					// Anything but a crash.
				}
			} catch (error) {
				assert.ok(error instanceof SlipwayError, String(error));
			}
		};
		for (let round = 0; round < rounds; round++) {
			await Promise.all(methods.map((method) => call(method, round)));
		}
	}

	test("random messages on every method, bytes that are no HTTP/2, messages that are too large", async () => {
		await using channel = await bench.channel();
		await nonsense(channel, 16);
		const large: Method<"unary", Uint8Array, Uint8Array> = {
			kind: "unary",
			path: control.solve.path,
			request: raw,
			response: raw,
		};
		await assert.rejects(channel.unary(large, new Uint8Array(17 << 20), { signal: never }), {
			code: "resource-exhausted",
		});
		for (let round = 0; round < 20; round++) {
			await new Promise((resolve) => {
				const socket = connect(bench.socket, () => socket.end(randomBytes(2000)));
				socket.on("error", () => {}).on("close", resolve);
				socket.resume();
			});
		}
		await isWell();
	});

	test("memory stays where it was", async () => {
		await using channel = await bench.channel();
		await nonsense(channel, 8);
		const before = daemon.residentBytes();
		await nonsense(channel, 16);
		const ratio = daemon.residentBytes() / before;
		assert.ok(ratio < 1.2, `resident memory grew to ${ratio.toFixed(2)} of what it was`);
	});
});
