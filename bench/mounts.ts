import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** What cache mounts are worth, and that many builders of one do not wait for each other. Measured against ourselves. */

const root = resolve(import.meta.dirname, "..");
const program = join(root, "bin/slipway");

export interface MountsOptions {
	readonly work: string;
	readonly runs: number;
}

interface Builder extends Disposable {
	build(dockerfile: string, args?: readonly string[]): Promise<void>;
}

function builder(work: string): Builder {
	const state = join(work, "mounts");
	const images = join(root, ".slipway/images");
	let count = 0;
	return {
		build(dockerfile, args = []) {
			const context = join(work, `mounts-context${count++}`);
			mkdirSync(context, { recursive: true });
			writeFileSync(join(context, "Dockerfile"), dockerfile);
			const argv = [
				...["build", "--root", state, "--progress", "quiet", ...args],
				...["--build-context", `base=oci-layout://${images}/busybox:latest`],
				...["--build-context", `debian=oci-layout://${images}/debian:bookworm`, context],
			];
			const child = spawn(program, argv, { stdio: ["ignore", "ignore", "pipe"] });
			let errors = "";
			child.stderr.on("data", (chunk: Buffer) => {
				errors += chunk.toString();
			});
			return new Promise((done, failed) => {
				child.on("close", (code) => (code === 0 ? done() : failed(new Error(errors))));
			});
		},
		[Symbol.dispose]() {
			spawnSync(program, ["stop", "--root", state]);
			rmSync(state, { recursive: true, force: true });
		},
	};
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
	const start = performance.now();
	await work();
	return (performance.now() - start) / 1000;
}

function median(values: readonly number[]): number {
	return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

const aptMounts =
	"--mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked";
const install = "apt-get update -q && apt-get install -q -y --no-install-recommends git";

/** An install that is built again, with and without a warm cache mount for apt. Needs Debian's mirror. */
export async function measureAptCache({ work, runs }: MountsOptions): Promise<void> {
	using ours = builder(work);
	const once = (mounts: string, run: string): Promise<number> =>
		seconds(() =>
			ours.build(`FROM debian\nRUN ${mounts} rm -f /etc/apt/apt.conf.d/docker-clean; ${install} # ${run}\n`),
		);
	await once(aptMounts, "warm-up");
	const warm: number[] = [];
	const cold: number[] = [];
	for (let run = 0; run < runs; run++) {
		warm.push(await once(aptMounts, `warm ${run} ${Date.now()}`));
		cold.push(await once("", `cold ${run} ${Date.now()}`));
	}
	const [mine, theirs] = [median(warm), median(cold)];
	console.log(
		`| rebuild of apt-get install git, warm cache mount against none | ${mine.toFixed(3)} | ${theirs.toFixed(3)} | ${(mine / theirs).toFixed(2)} | - |`,
	);
}

const builders = 16;
const step = (name: string): string =>
	`RUN --mount=type=cache,target=/c,id=bench for i in $(seq 40); do echo ${name} $i > /c/${name}-$i; sleep 0.05; done`;

/** Sixteen builds at once that share a cache mount, against one build with sixteen steps at once. */
export async function measureSharedMount({
	work,
	runs,
	target,
}: MountsOptions & { readonly target: number }): Promise<number> {
	using ours = builder(work);
	await ours.build("FROM base\nRUN true\n");
	const many: number[] = [];
	const single: number[] = [];
	for (let run = 0; run < runs; run++) {
		const names = Array.from({ length: builders }, (_, index) => `n${run}x${index}`);
		many.push(
			await seconds(() =>
				Promise.all(names.map((name) => ours.build(`FROM base\n${step(name)} # ${Date.now()}\n`))),
			),
		);
		const stages = names.map((name) => `FROM base AS ${name}\n${step(name)} # one ${Date.now()}\n`).join("");
		const copies = names.map((name) => `COPY --from=${name} /etc/passwd /${name}`).join("\n");
		single.push(await seconds(() => ours.build(`${stages}FROM base\n${copies}\n`)));
	}
	const [mine, theirs] = [median(many), median(single)];
	const ratio = mine / theirs;
	console.log(
		`| ${builders} builds at once with a shared cache mount, against one build with ${builders} steps | ${mine.toFixed(3)} | ${theirs.toFixed(3)} | ${ratio.toFixed(2)} | ${target} |`,
	);
	return ratio > target ? 1 : 0;
}
