/**
 * `npm run bench [NAME…]`: whole builds against a peer, in turn, and the ratio of the medians. The peer is the real BuildKit
 * (`buildctl` on the path, `BUILDKIT_HOST` set), else Debian's buildah. BENCH_RUNS (default 5) counted pairs after one to warm up.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { measureContext } from "./context.ts";
import { measureFrontend } from "./frontend.ts";
import { measureAptCache, measureSharedMount } from "./mounts.ts";
import { buildah, buildkit, type Measurement, type Peer, slipway } from "./peers.ts";
import { measureRegistry, registryBenchmarks } from "./registry.ts";
import { measureRemoteCache } from "./remote-cache.ts";

interface Benchmark {
	readonly name: string;
	readonly what: string;
	/** At most this much of the peer's wall time. */
	readonly target: number;
	/** As an OCI tar with gzip layers, in place of no output. */
	readonly output: boolean;
	/** More flags of ours. */
	readonly args?: readonly string[];
	/** Makes the context of one pair of runs; the same directory for both peers. */
	prepare(work: string, run: number): string;
	/** Both peers build it once, unmeasured, before each pair. */
	readonly warm: boolean;
	/** Peak memory too, against this much of the peer's. */
	readonly memoryTarget?: number;
}

function fresh(work: string, name: string): string {
	const dir = join(work, name);
	rmSync(dir, { recursive: true, force: true });
	mkdirSync(dir, { recursive: true });
	return dir;
}

function manyFiles(dir: string, count: number, seed: number): void {
	for (let i = 0; i < count; i++) {
		const folder = join(dir, "files", `d${i % 200}`);
		if (i < 200) {
			mkdirSync(folder, { recursive: true });
		}
		writeFileSync(join(folder, `f${i}.txt`), `${seed} ${i} ${"content ".repeat((i * 7919) % 900)}\n`);
	}
}

/** Half of it compresses. Kept between runs under another name and with another beginning: a new file to every builder. */
function bigFile(work: string, dir: string, seed: number): void {
	const kept = join(work, "big.bin");
	if (!existsSync(kept)) {
		spawnSync("sh", [
			"-c",
			`for i in $(seq 64); do head -c 8388608 /dev/urandom; head -c 8388608 /dev/zero | tr '\\0' 'a'; done > ${kept}`,
		]);
	}
	spawnSync("sh", ["-c", `printf '%016d' ${seed} | dd of=${kept} conv=notrunc status=none`]);
	mkdirSync(join(dir, "files"));
	renameSync(kept, join(dir, "files/big.bin"));
}

function afterBig(work: string, dir: string): void {
	renameSync(join(dir, "files/big.bin"), join(work, "big.bin"));
}

const copyAll = "FROM scratch\nCOPY files /files\n";

const benchmarks: readonly Benchmark[] = [
	{
		name: "cached-5000",
		what: "rebuild, everything cached, context of 5,000 files",
		target: 0.5,
		output: false,
		warm: true,
		prepare(work) {
			const dir = join(work, "cached");
			if (!existsSync(dir)) {
				mkdirSync(dir);
				manyFiles(dir, 5000, 1);
				writeFileSync(join(dir, "Dockerfile"), "FROM base\nRUN true\nCOPY . /src\nRUN true after\n");
			}
			return dir;
		},
	},
	{
		name: "run-20",
		what: "20 distinct RUN true, cold",
		target: 0.7,
		output: false,
		warm: false,
		prepare(work, run) {
			const dir = fresh(work, "runs");
			const steps = Array.from({ length: 20 }, (_, i) => `RUN true ${Date.now()} ${run} ${i}`);
			writeFileSync(join(dir, "Dockerfile"), `FROM base\n${steps.join("\n")}\n`);
			return dir;
		},
	},
	...[false, true].map(
		(sandboxed): Benchmark => ({
			name: sandboxed ? "run-100-sandbox" : "run-100",
			what: `100 distinct RUN true, cold, ${sandboxed ? "each in a network of its own; the peer's in the host's" : "in the host's network"}`,
			target: sandboxed ? 1 : 0.7,
			output: false,
			warm: false,
			args: sandboxed ? [] : ["--network", "host"],
			prepare(work, run) {
				const dir = fresh(work, `hundred-${sandboxed}`);
				const steps = Array.from({ length: 100 }, (_, i) => `RUN true ${Date.now()} ${run} ${i}`);
				writeFileSync(join(dir, "Dockerfile"), `FROM base\n${steps.join("\n")}\n`);
				return dir;
			},
		}),
	),
	...[false, true].map(
		(output): Benchmark => ({
			name: output ? "copy-20000-gzip" : "copy-20000",
			what: `cold COPY of 20,000 small files${output ? ", exported as OCI tar with gzip" : ""}`,
			target: 0.7,
			output,
			warm: false,
			memoryTarget: 1.5,
			prepare(work, run) {
				const dir = fresh(work, `small-${run}-${output}`);
				manyFiles(dir, 20_000, Date.now());
				writeFileSync(join(dir, "Dockerfile"), copyAll);
				return dir;
			},
		}),
	),
	...[false, true].map(
		(output): Benchmark => ({
			name: output ? "copy-1gb-gzip" : "copy-1gb",
			what: `cold COPY of one file of 1 GB${output ? ", exported as OCI tar with gzip" : ""}`,
			target: 0.7,
			output,
			warm: false,
			memoryTarget: 1.5,
			prepare(work, run) {
				const dir = fresh(work, `big-${run}-${output}`);
				bigFile(work, dir, Date.now());
				writeFileSync(join(dir, "Dockerfile"), copyAll);
				return dir;
			},
		}),
	),
];

function median(values: readonly number[]): number {
	const sorted = values.toSorted((a, b) => a - b);
	return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function measure(
	benchmark: Benchmark,
	peers: readonly Peer[],
	work: string,
	runs: number,
): readonly Measurement[][] {
	const results: Measurement[][] = peers.map(() => []);
	for (let run = 0; run <= runs; run++) {
		const context = benchmark.prepare(work, run);
		for (const [index, peer] of peers.entries()) {
			const dest = join(work, "out.tar");
			const options = { args: benchmark.args ?? [], ...(benchmark.output ? { dest } : {}) };
			if (benchmark.warm) {
				peer.build(context, options);
			}
			const measured = peer.build(context, options);
			rmSync(dest, { force: true });
			if (run > 0) {
				results[index]?.push(measured);
			}
		}
		if (benchmark.name.startsWith("copy-1gb")) {
			afterBig(work, context);
		}
		// Contexts stay until the end: for half a minute after inodes are freed, ext4 makes new ones twenty times slower.
	}
	return results;
}

const root = resolve(import.meta.dirname, "..");
const base = join(root, ".slipway/images/busybox");
if (!existsSync(join(root, "dist")) || !existsSync(base)) {
	console.error("run 'npm run build' and 'make images' first");
	process.exit(1);
}
const wanted = process.argv.slice(2);
const runs = Number(process.env["BENCH_RUNS"] ?? 5);
const work = mkdtempSync(join(process.env["BENCH_DIR"] ?? tmpdir(), "slipway-bench-"));
const options = { base, work };
const ours = slipway(options);
const peer = buildkit(options) ?? buildah(options);
let missed = 0;
try {
	console.log(`medians of ${runs} pairs; seconds of wall time (and MiB of peak memory); peer: ${peer.name}`);
	console.log("| build | slipway | peer | ratio | goal |\n|---|---|---|---|---|");
	for (const benchmark of benchmarks) {
		if (wanted.length > 0 && !wanted.includes(benchmark.name)) {
			continue;
		}
		const [mine = [], theirs = []] = measure(benchmark, [ours, peer], work, runs);
		const times = [mine, theirs].map((list) => median(list.map((each) => each.seconds))) as [number, number];
		const memory = [mine, theirs].map((list) => median(list.map((each) => each.memory))) as [number, number];
		const ratio = times[0] / times[1];
		missed += ratio > benchmark.target ? 1 : 0;
		console.log(
			`| ${benchmark.what} | ${times[0].toFixed(3)} | ${times[1].toFixed(3)} | ${ratio.toFixed(2)} | ${benchmark.target} |`,
		);
		if (benchmark.memoryTarget !== undefined) {
			const share = memory[0] / memory[1];
			missed += share > benchmark.memoryTarget ? 1 : 0;
			console.log(
				`| peak memory of it | ${memory[0].toFixed(0)} | ${memory[1].toFixed(0)} | ${share.toFixed(2)} | ${benchmark.memoryTarget} |`,
			);
		}
	}
	if (wanted.length === 0 || wanted.includes("frontend")) {
		missed += measureFrontend(options, { runs, target: 2 });
	}
	const ofRegistries = registryBenchmarks.filter((name) => wanted.length === 0 || wanted.includes(name));
	if (peer.name === "buildkit" && ofRegistries.length > 0) {
		missed += await measureRegistry({ work, runs, wanted: ofRegistries });
	}
	if (peer.name === "buildkit" && (wanted.length === 0 || wanted.includes("context-50000"))) {
		missed += measureContext({ work, runs, target: 0.3, wholeTarget: 0.7 });
	}
	if (wanted.length === 0 || wanted.includes("remote-cache")) {
		missed += await measureRemoteCache({ base, work, runs, target: 0.8 });
	}
	if (wanted.length === 0 || wanted.includes("shared-mount")) {
		missed += await measureSharedMount({ work, runs, target: 1.5 });
	}
	// Depends on the mirror's speed as much as on ours.
	if (wanted.includes("apt-cache")) {
		await measureAptCache({ work, runs });
	}
} finally {
	ours.stop();
	peer.stop();
	rmSync(work, { recursive: true, force: true });
}
process.exitCode = missed > 0 ? 1 : 0;
