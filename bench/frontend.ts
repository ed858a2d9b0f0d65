import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { PeerOptions } from "./peers.ts";

const instructions = 2000;
const root = resolve(import.meta.dirname, "..");

/**
 * Parsing and converting a Dockerfile of 2,000 instructions: the wall time of the question `convertllb` less that of the same
 * question about one instruction, which takes out what a process and a session cost. Against the real BuildKit, where
 * `BUILDKIT_HOST` says one runs. Prints a row of the table; gives 1 if the goal is missed.
 */
export function measureFrontend(
	{ base, work }: PeerOptions,
	{ runs, target }: { readonly runs: number; readonly target: number },
): number {
	const [small, big] = [1, instructions].map((count) => {
		const dir = join(work, `frontend-${count}`);
		mkdirSync(dir);
		writeFileSync(join(dir, "Dockerfile"), dockerfile(count));
		return dir;
	}) as [string, string];
	const askers = [slipway(base, work), buildkit(base)].filter((each) => each !== undefined);
	const seconds = askers.map(() => ({ small: [] as number[], big: [] as number[] }));
	for (let run = 0; run <= runs; run++) {
		for (const [index, ask] of askers.entries()) {
			const pair = { small: ask(small), big: ask(big) };
			if (run > 0) {
				seconds[index]?.small.push(pair.small);
				seconds[index]?.big.push(pair.big);
			}
		}
	}
	const [mine = Number.NaN, theirs] = seconds.map((each) => median(each.big) - median(each.small));
	const what = `parse and convert ${instructions} instructions`;
	if (theirs === undefined) {
		console.log(`| ${what} | ${mine.toFixed(3)} | - | - | ${target} |`);
		return 0;
	}
	const ratio = mine / theirs;
	console.log(`| ${what} | ${mine.toFixed(3)} | ${theirs.toFixed(3)} | ${ratio.toFixed(2)} | ${target} |`);
	return ratio > target ? 1 : 0;
}

/** What real Dockerfiles are made of, each line a step of its own, with variables that change. */
function dockerfile(count: number): string {
	const lines = Array.from({ length: count }, (_, at) => {
		switch (at % 5) {
			case 0:
				return `RUN echo ${at} > /f${at}`;
			case 1:
				return `ENV V${at}=$V${at - 5}x${at}`;
			case 2:
				return `COPY f${at} /d${at}/`;
			case 3:
				return `LABEL l${at}="v $V${at - 2}"`;
			default:
				return `WORKDIR /w${at}`;
		}
	});
	return `FROM base\n${lines.join("\n")}\n`;
}

type Ask = (context: string) => number;

function slipway(base: string, work: string): Ask {
	const args = ["build", "--root", join(work, "slipway"), "--progress", "quiet", "--call", "convertllb"];
	const named = ["--build-context", `base=oci-layout://${base}:latest`];
	return (context) => wallTime(join(root, "bin/slipway"), [...args, ...named, context]);
}

function buildkit(base: string): Ask | undefined {
	const hasDaemon =
		process.env["BUILDKIT_HOST"] !== undefined &&
		spawnSync("buildctl", ["debug", "workers"], { stdio: "ignore" }).status === 0;
	if (!hasDaemon) {
		return undefined;
	}
	const digest: string = JSON.parse(readFileSync(join(base, "index.json"), "utf8")).manifests[0].digest;
	const args = ["build", "--progress", "quiet", "--frontend", "dockerfile.v0"];
	const layout = ["--oci-layout", `base=${base}`, "--opt", `context:base=oci-layout://base@${digest}`];
	return (context) =>
		wallTime("buildctl", [
			...args,
			...layout,
			"--opt",
			"requestid=frontend.convertllb",
			"--local",
			`context=${context}`,
			"--local",
			`dockerfile=${context}`,
		]);
}

function wallTime(program: string, args: readonly string[]): number {
	const start = process.hrtime.bigint();
	const run = spawnSync(program, args, { encoding: "utf8", maxBuffer: 1 << 30 });
	const seconds = Number(process.hrtime.bigint() - start) / 1e9;
	if (run.status !== 0) {
		throw new Error(`${program} ${args.join(" ")}\n${run.stderr}`);
	}
	return seconds;
}

function median(values: readonly number[]): number {
	return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
