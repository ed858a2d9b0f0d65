import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/**
 * One file changed in a context of 50,000: the time from the start to the end of the vertex `[internal] load build context`, as both
 * clients' progress says it, and the whole build. Ours runs in its background builder, the peer is the real BuildKit (`BUILDKIT_HOST`).
 */
export interface ContextBenchOptions {
	readonly work: string;
	readonly runs: number;
	/** Of the context's phase; and of the whole build, whose COPY has 50,000 files to write again. */
	readonly target: number;
	readonly wholeTarget: number;
}

const program = resolve(import.meta.dirname, "../bin/slipway");
const files = 50_000;
const folders = 500;
const nameOf = (file: number): string => `files/d${file % folders}/f${file}.txt`;

interface Times {
	readonly phase: number;
	readonly whole: number;
}

/** The number of figures that were missed. */
export function measureContext({ work, runs, target, wholeTarget }: ContextBenchOptions): number {
	const context = join(work, "context-50000");
	const state = join(work, "context-builder");
	const ours = [
		...[program, "build", "--root", state, "--idle-exit", "60s", "--progress", "rawjson"],
		...[context],
	];
	const theirs = [
		...["buildctl", "build", "--progress", "rawjson", "--frontend", "dockerfile.v0"],
		...["--local", `context=${context}`, "--local", `dockerfile=${context}`],
	];
	let missed = 0;
	const report = (what: string, [a, b]: readonly [number, number], goal: number): void => {
		missed += a / b > goal ? 1 : 0;
		console.log(`| ${what} | ${a.toFixed(3)} | ${b.toFixed(3)} | ${(a / b).toFixed(2)} | ${goal} |`);
	};
	makeFiles(context);
	writeFileSync(join(context, "Dockerfile"), "FROM scratch\nCOPY files /files\n");
	try {
		const pairs: (readonly [Times, Times])[] = [];
		for (let run = 0; run <= runs; run++) {
			const measured = [ours, theirs].map((command) => {
				writeFileSync(join(context, nameOf(7)), `changed ${process.hrtime.bigint()}\n`);
				return timed(command);
			});
			pairs.push(measured as [Times, Times]);
		}
		// The first pair copies everything.
		const medians = (of: (times: Times) => number): readonly [number, number] => [
			median(pairs.slice(1).map(([mine]) => of(mine))),
			median(pairs.slice(1).map(([, other]) => of(other))),
		];
		report(
			"one file changed in 50,000: the context",
			medians((times) => times.phase),
			target,
		);
		report(
			"the whole build, with a COPY of all",
			medians((times) => times.whole),
			wholeTarget,
		);
	} finally {
		spawnSync(program, ["stop", "--root", state]);
		rmSync(state, { recursive: true, force: true });
	}
	return missed;
}

function makeFiles(context: string): void {
	for (let folder = 0; folder < folders; folder++) {
		mkdirSync(join(context, "files", `d${folder}`), { recursive: true });
	}
	for (let file = 0; file < files; file++) {
		writeFileSync(join(context, nameOf(file)), `${file} ${"content ".repeat((file * 7919) % 900)}\n`);
	}
}

function timed([command = "", ...args]: readonly string[]): Times {
	const start = process.hrtime.bigint();
	const run = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 << 20 });
	const whole = Number(process.hrtime.bigint() - start) / 1e9;
	if (run.status !== 0) {
		throw new Error(`${command} ${args.join(" ")}\n${run.stderr}${run.stdout}`);
	}
	return { phase: phaseOf(run.stderr), whole };
}

/** Seconds that the vertex took, of the last event that says it is complete. */
function phaseOf(progress: string): number {
	let seconds = Number.NaN;
	for (const line of progress.split("\n").filter((each) => each.startsWith("{"))) {
		const { vertexes = [] }: { readonly vertexes?: readonly VertexEvent[] } = JSON.parse(line);
		for (const { name, started, completed } of vertexes) {
			if (name === "[internal] load build context" && started !== undefined && completed !== undefined) {
				seconds = (Date.parse(completed) - Date.parse(started)) / 1000;
			}
		}
	}
	return seconds;
}

interface VertexEvent {
	readonly name: string;
	readonly started?: string;
	readonly completed?: string;
}

function median(values: readonly number[]): number {
	return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
