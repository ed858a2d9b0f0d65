import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Images of 1 GB in 8 layers to and from Debian's `docker-registry` on loopback, and exports of one layer of 1 GB, against the real
 * BuildKit (`BUILDKIT_HOST`). Half of the bytes of the layers compress.
 */
export interface RegistryBenchOptions {
	readonly work: string;
	readonly runs: number;
	/** Names of measurements; empty is all. */
	readonly wanted: readonly string[];
}

const program = resolve(import.meta.dirname, "../bin/slipway");
export const registryBenchmarks: readonly string[] = ["pull-1gb", "push-1gb", "export-gzip", "export-zstd"];

/** The number of figures that were missed. */
export async function measureRegistry({ work, runs, wanted }: RegistryBenchOptions): Promise<number> {
	const isWanted = (name: string): boolean => wanted.length === 0 || wanted.includes(name);
	let missed = 0;
	const report = (what: string, [ours, theirs]: readonly [number, number], target: number): void => {
		const ratio = ours / theirs;
		missed += ratio > target ? 1 : 0;
		console.log(`| ${what} | ${ours.toFixed(3)} | ${theirs.toFixed(3)} | ${ratio.toFixed(2)} | ${target} |`);
	};
	if (isWanted("pull-1gb") || isWanted("push-1gb")) {
		await using source = await startRegistry(join(work, "source"));
		const image = `${source.host}/bench/layers:1`;
		slipway(join(work, "publisher"), ["-t", image, "--push", layersContext(work)]);
		rmSync(join(work, "publisher"), { recursive: true });
		if (isWanted("pull-1gb")) {
			const context = derivedContext(work, image);
			const pairs = [];
			for (let run = 0; run <= runs; run++) {
				const root = join(work, `puller-${run}`);
				context.touch();
				const ours = slipway(root, [context.dir]);
				rmSync(root, { recursive: true });
				buildctl(["prune", "--all"]);
				pairs.push([ours, build(context.dir, [])] as const);
			}
			report("pull and unpack 1 GB in 8 layers", medians(pairs), 0.8);
		}
		if (isWanted("push-1gb")) {
			const context = derivedContext(work, image);
			const root = join(work, "pusher");
			// The builder that stays in the background, as it does between a person's builds.
			const push = (host: string): number =>
				timed(program, [
					...["build", "--root", root, "--idle-exit", "20s", "--progress", "quiet"],
					...["-t", `${host}/bench/pushed:1`, "--push", context.dir],
				]);
			slipway(root, [context.dir]);
			build(context.dir, []);
			const pairs = [];
			for (let run = 0; run <= runs; run++) {
				pairs.push([
					await toFresh(work, push),
					await toFresh(work, (host) =>
						build(context.dir, ["--output", `type=image,name=${host}/bench/pushed:1,push=true`]),
					),
				] as const);
			}
			report("push 1 GB in 8 layers", medians(pairs), 0.8);
		}
	}
	if (isWanted("export-gzip") || isWanted("export-zstd")) {
		const gzip: (readonly [number, number])[] = [];
		const zstd: (readonly [number, number])[] = [];
		const root = join(work, "exporter");
		const dest = join(work, "export.tar");
		for (let run = 0; run <= runs; run++) {
			const output = (kind: string): string => `type=oci,dest=${dest},compression=${kind}`;
			const exported = (kind: string): number => {
				const context = bigContext(work, run * 2 + (kind === "zstd" ? 1 : 0));
				slipway(root, [context]);
				return slipway(root, ["-o", output(kind), context]);
			};
			const ours = exported("gzip");
			const context = bigContext(work, run * 2);
			build(context, []);
			gzip.push([ours, build(context, ["--output", output("gzip")])]);
			zstd.push([exported("zstd"), ours]);
			rmSync(dest, { force: true });
		}
		report("export as OCI tar with gzip, 1 GB", medians(gzip), 0.6);
		report("the same with zstd, against our gzip", medians(zstd), 0.5);
	}
	return missed;
}

function medians(pairs: readonly (readonly [number, number])[]): readonly [number, number] {
	// The first pair warms up.
	const column = (at: 0 | 1): number => {
		const sorted = pairs
			.slice(1)
			.map((pair) => pair[at])
			.sort((a, b) => a - b);
		return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
	};
	return [column(0), column(1)];
}

/** Seconds of a build in a process of its own. */
function slipway(root: string, args: readonly string[]): number {
	return timed(program, ["build", "--root", root, "--in-process", "--progress", "quiet", ...args]);
}

function build(context: string, output: readonly string[]): number {
	const locals = ["--local", `context=${context}`, "--local", `dockerfile=${context}`];
	return buildctl(["build", "--progress", "plain", "--frontend", "dockerfile.v0", ...locals, ...output]);
}

function buildctl(args: readonly string[]): number {
	return timed("buildctl", args);
}

function timed(command: string, args: readonly string[]): number {
	const start = process.hrtime.bigint();
	const run = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 << 20 });
	const seconds = Number(process.hrtime.bigint() - start) / 1e9;
	if (run.status !== 0) {
		throw new Error(`${command} ${args.join(" ")}\n${run.stderr}${run.stdout}`);
	}
	return seconds;
}

const noise = (file: string, halves: number): string =>
	`for i in $(seq ${halves}); do head -c 8388608 /dev/urandom; head -c 8388608 /dev/zero | tr '\\0' 'a'; done > ${file}`;

function layersContext(work: string): string {
	const dir = join(work, "layers");
	mkdirSync(dir);
	const names = Array.from({ length: 8 }, (_, index) => `layer${index}`);
	for (const name of names) {
		mkdirSync(join(dir, name));
		spawnSync("sh", ["-c", noise(join(dir, name, "big.bin"), 8)]);
	}
	const copies = names.map((name) => `COPY ${name} /${name}\n`);
	writeFileSync(join(dir, "Dockerfile"), `FROM scratch\n${copies.join("")}`);
	return dir;
}

/** An image on the published one, whose files its COPY wants. */
function derivedContext(work: string, image: string): { readonly dir: string; touch(): void } {
	const dir = join(work, "derived");
	mkdirSync(dir, { recursive: true });
	writeFileSync(join(dir, "Dockerfile"), `FROM ${image}\nCOPY x /x\n`);
	const touch = (): void => writeFileSync(join(dir, "x"), String(process.hrtime.bigint()));
	touch();
	return { dir, touch };
}

/** One file of 1 GB, of what the machine's own programs are made of; another one for each seed. */
function bigContext(work: string, seed: number): string {
	const dir = join(work, `export-${seed}`);
	const kept = join(work, "export.bin");
	if (existsSync(dir)) {
		return dir;
	}
	if (!existsSync(kept)) {
		spawnSync("sh", [
			"-c",
			`find /usr -xdev -type f -size +4k -exec cat {} + 2>/dev/null | head -c 1073741824 > ${kept}`,
		]);
	}
	mkdirSync(dir);
	spawnSync("sh", [
		"-c",
		`cp ${kept} ${dir}/new && printf '%016d' ${seed} | dd of=${dir}/new conv=notrunc status=none`,
	]);
	renameSync(join(dir, "new"), join(dir, "big.bin"));
	writeFileSync(join(dir, "Dockerfile"), "FROM scratch\nCOPY big.bin /\n");
	return dir;
}

async function toFresh(work: string, measure: (host: string) => number): Promise<number> {
	await using registry = await startRegistry(join(work, "target"));
	return measure(registry.host);
}

async function startRegistry(dir: string): Promise<AsyncDisposable & { readonly host: string }> {
	mkdirSync(dir);
	const port = await freePort();
	const host = `127.0.0.1:${port}`;
	const config = {
		version: "0.1",
		log: { level: "error", accesslog: { disabled: true } },
		storage: { filesystem: { rootdirectory: join(dir, "storage") } },
		http: { addr: host },
	};
	writeFileSync(join(dir, "config.yml"), JSON.stringify(config));
	const child = spawn("docker-registry", ["serve", join(dir, "config.yml")], { stdio: "ignore" });
	await answers(child, port);
	return {
		host,
		async [Symbol.asyncDispose]() {
			child.kill("SIGKILL");
			await new Promise((ended) => child.on("exit", ended));
			rmSync(dir, { recursive: true });
		},
	};
}

async function answers(child: ChildProcess, port: number): Promise<void> {
	for (let tries = 0; tries < 100 && child.exitCode === null; tries++) {
		try {
			await fetch(`http://127.0.0.1:${port}/v2/`);
			return;
		} catch {
			await sleep(50);
		}
	}
	throw new Error("docker-registry does not answer");
}

function freePort(): Promise<number> {
	return new Promise((found) => {
		const server = createServer();
		server.listen(0, "127.0.0.1", () => {
			const address = server.address();
			server.close(() => found(typeof address === "object" && address !== null ? address.port : 0));
		});
	});
}
