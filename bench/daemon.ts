/**
 * `npm run bench:daemon [NAME…]`: `slipwayd` against the real `buildkitd`, driven by the same client, Debian's `docker-buildx` that `make
 * clients` unpacked, in turn, and the ratio of the medians. The peer is the daemon at `BUILDKIT_HOST`. BENCH_RUNS (default 5)
 * counted pairs after one to warm up. Both daemons keep their state between runs of one benchmark. `cached-buildctl` and
 * `vertices-10000` have the `buildctl` of the path as the client; the latter is run only when named, as the peer needs minutes for it.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
	closeSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { encodeDefinition } from "../src/llb/definition-message.ts";
import { mkfile } from "../src/llb/file-steps.ts";
import { scratch } from "../src/llb/state.ts";

const root = resolve(import.meta.dirname, "..");
const clients = join(root, ".slipway/clients");
const base = join(root, ".slipway/images/busybox");
const runs = Number(process.env["BENCH_RUNS"] ?? 5);

interface Builder {
	readonly name: "slipwayd" | "buildkitd";
	readonly address: string;
	readonly pid: number;
}

interface Benchmark {
	readonly name: string;
	readonly what: string;
	/** At most this much of the peer's. */
	readonly target: number;
	/** Takes a moment, which the rest of the machine disturbs: runs four times as often. */
	readonly isShort?: boolean;
	/** Counted runs at most, for what takes long or hardly varies. */
	readonly maxRuns?: number;
	/** What is measured of one run: seconds, or bytes of memory. */
	run(builder: Builder, run: number): Promise<number>;
}

const work = mkdtempSync(join(tmpdir(), "slipway-bench-daemon-"));
const socket = join(work, "slipwayd.sock");

function buildx(builder: Builder, context: string, more: readonly string[] = []): Promise<void> {
	const args = [
		"--builder",
		builder.name,
		"build",
		"--progress",
		"quiet",
		"--build-context",
		`base=oci-layout://${base}:latest`,
	];
	return finished(
		spawn(join(clients, "bin/docker-buildx"), [...args, ...more, context], {
			env: { PATH: process.env["PATH"], HOME: work, DOCKER_CONFIG: join(work, "docker") },
			stdio: ["ignore", "ignore", "pipe"],
		}),
	);
}

/** It knows images of a layout by digest only. */
function buildctl(builder: Builder, context: string): Promise<void> {
	const digest: string = JSON.parse(readFileSync(join(base, "index.json"), "utf8")).manifests[0].digest;
	const frontend = ["--frontend", "dockerfile.v0", "--opt", `context:base=oci-layout://base@${digest}`];
	const lent = [
		"--local",
		`context=${context}`,
		"--local",
		`dockerfile=${context}`,
		"--oci-layout",
		`base=${base}`,
	];
	return finished(
		spawn("buildctl", ["--addr", builder.address, "build", "--progress", "quiet", ...frontend, ...lent], {
			env: { PATH: process.env["PATH"], HOME: work },
			stdio: ["ignore", "ignore", "pipe"],
		}),
	);
}

function finished(child: ChildProcess): Promise<void> {
	let stderr = "";
	child.stderr?.on("data", (chunk) => {
		stderr += chunk;
	});
	return new Promise((done, failed) => {
		child.on("error", failed);
		child.on("close", (code) =>
			code === 0 ? done() : failed(new Error(`${child.spawnargs.join(" ")}:\n${stderr}`)),
		);
	});
}

async function seconds(action: () => Promise<unknown>): Promise<number> {
	const start = performance.now();
	await action();
	return (performance.now() - start) / 1000;
}

function context(name: string, files: Readonly<Record<string, string>>): string {
	const dir = join(work, name);
	mkdirSync(dir, { recursive: true });
	for (const [file, text] of Object.entries(files)) {
		writeFileSync(join(dir, file), text);
	}
	return dir;
}

/** A directory with many small files, other ones for each number. */
function manyFiles(name: string, count: number, seed: number): string {
	const dir = join(work, name);
	rmSync(dir, { recursive: true, force: true });
	for (let index = 0; index < count; index++) {
		const folder = join(dir, "files", `d${index % 200}`);
		if (index < 200) {
			mkdirSync(folder, { recursive: true });
		}
		writeFileSync(join(folder, `f${index}`), `${seed} ${index} ${"content ".repeat((index * 7919) % 900)}\n`);
	}
	writeFileSync(join(dir, "Dockerfile"), "FROM scratch\nCOPY files /files\n");
	return dir;
}

/** Processor seconds of one transfer. */
interface Work {
	readonly builder: number;
	readonly client: number;
}

/** Of the transfers of the benchmark that runs. */
const works: Record<Builder["name"], Work[]> = { slipwayd: [], buildkitd: [] };

/** Sends a context, and notes what it cost whom: the client walks the tree, whatever the builder is. */
async function transfer(builder: Builder, dir: string): Promise<number> {
	const [builderBefore, clientBefore] = [processorSeconds(builder.pid), childrenSeconds()];
	const elapsed = await seconds(() => buildx(builder, dir));
	works[builder.name].push({
		builder: processorSeconds(builder.pid) - builderBefore,
		client: childrenSeconds() - clientBefore,
	});
	return elapsed;
}

/** proc(5): after the name in brackets, fields 14 and 15 are a process's own time, 16 and 17 that of its children that have ended. */
function statFields(pid: number | "self"): readonly number[] {
	const text = readFileSync(`/proc/${pid}/stat`, "utf8");
	return text
		.slice(text.lastIndexOf(")") + 2)
		.split(" ")
		.map(Number);
}

const ticksPerSecond = 100;

function processorSeconds(pid: number): number {
	const fields = statFields(pid);
	return ((fields[11] ?? 0) + (fields[12] ?? 0)) / ticksPerSecond;
}

function childrenSeconds(): number {
	const fields = statFields("self");
	return ((fields[13] ?? 0) + (fields[14] ?? 0)) / ticksPerSecond;
}

function residentBytes({ pid }: Builder): number {
	return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

/** Longer than either takes to give back what it does not need while it waits. */
const idleMs = 15_000;

async function idleBytes(builder: Builder): Promise<number> {
	await new Promise((resolve) => setTimeout(resolve, idleMs));
	return residentBytes(builder);
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

/** Groups of vertices over one, each group with a vertex over it, and one over those: next to no work but the solver's. */
function graph(groups: number, vertices: number): Uint8Array {
	const ground = scratch().file(mkfile("/ground", 0o644, "ground"));
	const [first = ground, ...others] = Array.from({ length: groups }, (_, group) => {
		const [head = ground, ...rest] = Array.from({ length: vertices - 1 }, (_, index) =>
			ground.requires(`vertex ${group} ${index}`, ground),
		);
		return head.requires(`group ${group}`, ...rest);
	});
	return encodeDefinition(first.requires("all", ...others).marshal());
}

function buildGraph(builder: Builder, file: string): Promise<void> {
	const definition = openSync(file, "r");
	const args = ["--addr", builder.address, "build", "--progress", "plain"];
	const child = spawn("buildctl", args, { stdio: [definition, "ignore", "pipe"] });
	closeSync(definition);
	return finished(child);
}

const small = (): string =>
	context("small", { Dockerfile: "FROM base\nRUN echo one\nCOPY a /a\nRUN cat /a\n", a: "content\n" });

const benchmarks: readonly Benchmark[] = [
	{
		name: "memory-idle",
		what: "resident memory after the first build",
		target: 1.5,
		maxRuns: 2,
		async run(builder) {
			await buildx(builder, small());
			return await idleBytes(builder);
		},
	},
	{
		name: "cached",
		what: "rebuild of a small project, everything cached",
		target: 0.8,
		isShort: true,
		run: (builder) => seconds(() => buildx(builder, small())),
	},
	{
		name: "cached-buildctl",
		what: "the same through buildctl, if one is on the path",
		target: 0.8,
		isShort: true,
		run: (builder) => seconds(() => buildctl(builder, small())),
	},
	{
		name: "parallel-16",
		what: "16 distinct builds at once",
		target: 1.2,
		run: (builder, run) =>
			seconds(() =>
				Promise.all(
					Array.from({ length: 16 }, (_, index) =>
						buildx(
							builder,
							context(`parallel${index}`, {
								Dockerfile: `FROM base\nRUN echo ${run} ${index} > /x\nRUN cat /x\n`,
							}),
						),
					),
				),
			),
	},
	{
		name: "context-20000",
		what: "context of 20,000 small files, new ones",
		target: 1,
		async run(builder, run) {
			const dir = manyFiles("many", 20_000, run);
			return await transfer(builder, dir);
		},
	},
	{
		name: "context-20000-again",
		what: "context of 20,000 small files, unchanged",
		target: 0.5,
		async run(builder) {
			const dir = existsSync(join(work, "same")) ? join(work, "same") : manyFiles("same", 20_000, -1);
			await buildx(builder, dir);
			return await transfer(builder, dir);
		},
	},
	{
		name: "context-1g",
		what: "context of 1 GB in one file, a new one",
		target: 1,
		async run(builder, run) {
			const dir = context("big", { Dockerfile: "FROM scratch\nCOPY big /big\n" });
			const file = join(dir, "big");
			spawnSync("sh", [
				"-c",
				`[ -f ${file} ] || head -c 1073741824 /dev/urandom >${file}; printf '%016d' ${run} | dd of=${file} conv=notrunc status=none`,
			]);
			return await transfer(builder, dir);
		},
	},
	{
		name: "memory-50",
		what: "resident memory after 50 more builds",
		target: 1.5,
		maxRuns: 2,
		async run(builder, run) {
			const after: number[] = [];
			for (let index = 1; index <= (run === 0 ? 50 : 10); index++) {
				await buildx(
					builder,
					context("memory", { Dockerfile: `FROM base\nRUN echo ${run} ${index} > /x\n` }),
				);
				if (index % 10 === 0) {
					after.push(await idleBytes(builder));
				}
			}
			if (run === 0) {
				const [tenth = 0, last = 0] = [after[0], after.at(-1)];
				console.log(
					`  ${builder.name} after 10, 20, 30, 40 and 50 builds: ${after.map(mebibytes).join(", ")}; ` +
						`the last is ${(last / tenth).toFixed(2)} of the first`,
				);
			}
			return after.at(-1) ?? 0;
		},
	},
	{
		name: "vertices-10000",
		what: "a graph of 10,000 tiny vertices, everything cached",
		target: 1.5,
		maxRuns: 1,
		async run(builder) {
			const file = join(work, "vertices");
			if (!existsSync(file)) {
				writeFileSync(file, graph(100, 100));
			}
			return await seconds(() => buildGraph(builder, file));
		},
	},
];

function median(values: readonly number[]): number {
	return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** The process that listens on the socket: whoever has its inode open. */
function pidOf(path: string): number {
	const line = readFileSync("/proc/net/unix", "utf8")
		.split("\n")
		.find((each) => each.endsWith(` ${path}`));
	const inode = line?.trim().split(/\s+/)[6];
	for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
		try {
			for (const fd of readdirSync(`/proc/${pid}/fd`)) {
				if (readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`) {
					return Number(pid);
				}
			}
		} catch {
			// Gone, or not ours to look at.
		}
	}
	throw new Error(`nobody listens on ${path}`);
}

async function main(): Promise<void> {
	const peerAddress = process.env["BUILDKIT_HOST"] ?? "";
	if (!peerAddress.startsWith("unix://") || !existsSync(join(clients, "bin/docker-buildx"))) {
		throw new Error(
			"BUILDKIT_HOST must be the unix:// address of a buildkitd, and 'make clients' must have been run",
		);
	}
	mkdirSync(join(work, "docker"));
	symlinkSync(join(clients, "cli-plugins"), join(work, "docker/cli-plugins"));
	const daemon = spawn(
		join(root, "bin/slipwayd"),
		["--root", join(work, "state"), "--addr", `unix://${socket}`],
		{
			stdio: ["ignore", "ignore", "inherit"],
		},
	);
	try {
		await listening();
		const peerPath = peerAddress.slice("unix://".length);
		for (const [name, path] of [
			["slipwayd", socket],
			["buildkitd", peerPath],
		]) {
			const args = ["create", "--name", name ?? "", "--driver", "remote", `unix://${path}`];
			await finished(
				spawn(join(clients, "bin/docker-buildx"), args, {
					env: { PATH: process.env["PATH"], HOME: work, DOCKER_CONFIG: join(work, "docker") },
					stdio: ["ignore", "ignore", "pipe"],
				}),
			);
		}
		const ours: Builder = { name: "slipwayd", address: `unix://${socket}`, pid: pidOf(socket) };
		const theirs: Builder = { name: "buildkitd", address: peerAddress, pid: pidOf(peerPath) };
		const wanted = process.argv.slice(2);
		const hasBuildctl = spawnSync("buildctl", ["--version"]).status === 0;
		const chosen = benchmarks.filter(({ name }) =>
			wanted.length === 0
				? name !== "vertices-10000" && (hasBuildctl || name !== "cached-buildctl")
				: wanted.includes(name),
		);
		for (const benchmark of chosen) {
			await compare(benchmark, ours, theirs);
		}
	} finally {
		daemon.kill("SIGTERM");
		await new Promise((resolve) => daemon.once("close", resolve));
		rmSync(work, { recursive: true, force: true });
	}
}

async function listening(): Promise<void> {
	for (;;) {
		const ok = await new Promise<boolean>((done) => {
			const probe = connect(socket, () => {
				probe.destroy();
				done(true);
			});
			probe.on("error", () => done(false));
		});
		if (ok) {
			return;
		}
		await new Promise((next) => setTimeout(next, 50));
	}
}

async function compare(benchmark: Benchmark, ours: Builder, theirs: Builder): Promise<void> {
	const own: number[] = [];
	const peers: number[] = [];
	for (
		let run = 0;
		run <= Math.min(benchmark.maxRuns ?? runs * 4, runs * (benchmark.isShort === true ? 4 : 1));
		run++
	) {
		// Each goes first every other time.
		const order = run % 2 === 0 ? [ours, theirs] : [theirs, ours];
		for (const builder of order) {
			const value = await benchmark.run(builder, run);
			if (run > 0) {
				(builder === ours ? own : peers).push(value);
			}
		}
		if (run === 0) {
			works.slipwayd.length = 0;
			works.buildkitd.length = 0;
		}
	}
	const ratio = median(own) / median(peers);
	const show = (value: number): string =>
		benchmark.name.startsWith("memory") ? mebibytes(value) : `${value.toFixed(3)} s`;
	const verdict = ratio <= benchmark.target ? "ok" : "MISSED";
	console.log(
		`${benchmark.name}: ${show(median(own))} against ${show(median(peers))}, ratio ${ratio.toFixed(2)} (at most ${benchmark.target}) ${verdict}: ${benchmark.what}`,
	);
	if (works.slipwayd.length > 0) {
		const of = (name: Builder["name"], whose: keyof Work): number =>
			median(works[name].map((work) => work[whose]));
		const [mine, other] = [of("slipwayd", "builder"), of("buildkitd", "builder")];
		console.log(
			`  processor time of the builder: ${mine.toFixed(2)} s against ${other.toFixed(2)} s, ratio ${(mine / other).toFixed(2)}; ` +
				`of the client itself: ${of("slipwayd", "client").toFixed(2)} s and ${of("buildkitd", "client").toFixed(2)} s`,
		);
		works.slipwayd.length = 0;
		works.buildkitd.length = 0;
	}
}

await main();
